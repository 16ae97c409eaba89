"""A comparison of two adapters as one HTML file, in the report's looks and with its plots."""

from loramend.contracts.diff import AdapterDiff, ModuleDiff
from loramend.report.charts import STILL, Bars, paired_bars
from loramend.report.heat import heat_map
from loramend.report.html import page_environment
from loramend.report.inline import script_policy
from loramend.report.plots import apart, as_json, diff_plots


def diff_html(found: AdapterDiff) -> str:
    """The whole page; the same comparison gives the same text."""
    difference = apart(found)
    shown = sorted(found.modules, key=lambda module: -(difference[module.name] or 0.0))[:STILL]
    return page_environment().get_template("diff.html.j2").render(
        found=found,
        on_base=[module for module in found.modules if module.a.base and module.b.base],
        heat=heat_map(difference),
        charts=[(module.name, _chart(module)) for module in shown],
        sides=["A", "B"],
        plots=as_json(diff_plots(found)),
        policy=script_policy(),
    )  # fmt: skip


def _chart(module: ModuleDiff) -> Bars:
    return paired_bars(module.a.spectrum.sigma, module.b.spectrum.sigma, ("of A", "of B"))
