"""`python -m scripts.plotting_library`: make loramend/report/scripts/vega.js, which every report carries.

It is Vega-Embed with Vega, Vega-Lite and all they need, as vl-convert bundles them, under a comment with
their licences. Nothing is fetched: vl-convert brings the sources.
"""

import sys
from pathlib import Path

import vl_convert

BUNDLE = Path(__file__).parent.parent / "loramend" / "report" / "scripts" / "vega.js"
VEGA_LITE = "6.4"
# The bundle stands in a page, in a script element, which these would end or twist.
_BREAKING = ("</script", "<!--", "<script", "\r", "\0")


def bundle() -> str:
    """The library as one classic script that leaves `vegaEmbed` behind and nothing else."""
    licences = (BUNDLE.parent / "LICENSES.txt").read_text(encoding="utf-8")
    code = vl_convert.javascript_bundle("globalThis.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    versions = f"Vega {vl_convert.get_vega_version()}, Vega-Lite {VEGA_LITE}"
    text = f"/*! {versions}\n{licences}*/\n(()=>{{{code.strip()}}})();\n"
    found = [token for token in _BREAKING if token in text.lower()]
    if found:
        raise ValueError(f"the bundle cannot stand in a page: it holds {found}")
    return text


def main() -> int:
    """Write the bundle; 0."""
    BUNDLE.write_text(bundle(), encoding="utf-8")
    sys.stdout.write(f"{BUNDLE.name}: {BUNDLE.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
