"""What a bank keeps of an adapter."""

from collections.abc import Mapping

from loramend.adapter.model import Adapter, Update
from loramend.contracts.bank import BankAdapter, BankModule, ModuleStatistics
from loramend.contracts.report import Spectrum
from loramend.report.summary import adapter_summary
from loramend.spectrum.entries import kurtosis, rows
from loramend.spectrum.factored import svds
from loramend.spectrum.measures import spectrum

_DIGITS = 10


def describe(adapter: Adapter, spectra: Mapping[str, Spectrum] | None = None) -> BankAdapter:
    """The adapter's statistics, module by module.

    spectra  those of its modules, by name, where they are known already
    """
    if spectra is None:
        spectra = {update.name: spectrum(usv.S) for update, usv in svds(adapter.updates.values())}
    told = adapter_summary(adapter)
    return BankAdapter(
        name=told.name[:600],
        base_model=told.base_model[:600] if told.base_model else None,
        files=tuple(told.files),
        modules=tuple(_module(update, spectra[name]) for name, update in adapter.updates.items()),
    )


def _module(update: Update, spectrum: Spectrum) -> BankModule:
    top, sparsity = rows(update)
    return BankModule(
        name=update.name,
        shape=update.shape,
        rank=update.rank,
        statistics=ModuleStatistics(
            sigma_1=_rounded(spectrum.sigma[0]),
            norm=_rounded(spectrum.norm),
            concentration=_known(spectrum.concentration),
            spectral_entropy=_known(spectrum.spectral_entropy),
            kurtosis=_known(kurtosis(update)),
            top_rows=_known(top),
            row_sparsity=_known(sparsity),
        ),
    )


def _known(value: float | None) -> float | None:
    return None if value is None else _rounded(value)


def _rounded(value: float) -> float:
    """Without the last digits, which change with the number of threads: the same adapters, the same file."""
    return float(f"{value:.{_DIGITS}g}")
