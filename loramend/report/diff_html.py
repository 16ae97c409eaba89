"""A comparison of two adapters as one HTML file, in the report's looks: no script, nothing fetched."""

from loramend.contracts.diff import AdapterDiff, ModuleDiff
from loramend.report.charts import Bars, paired_bars
from loramend.report.heat import heat_map
from loramend.report.html import page_environment


def diff_html(found: AdapterDiff) -> str:
    """The whole page; the same comparison gives the same text."""
    environment = page_environment()
    environment.filters["pair_chart"] = _chart
    return environment.get_template("diff.html.j2").render(
        found=found,
        on_base=[module for module in found.modules if module.a.base and module.b.base],
        heat=heat_map({module.name: module.cosine for module in found.modules}),
    )


def _chart(module: ModuleDiff) -> Bars:
    return paired_bars(module.a.spectrum.sigma, module.b.spectrum.sigma, ("of A", "of B"))
