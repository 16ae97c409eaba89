"""The scripts that a page carries, and the policy that lets a browser run them and nothing else.

The service needs the policy as well, so this imports neither torch nor templates.
"""

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

_FILES = ("vega.js", "specs.js", "page.js")
SCRIPTS: Mapping[str, str] = MappingProxyType(
    {name: files("loramend.report").joinpath("scripts", name).read_text(encoding="utf-8") for name in _FILES}
)
"""By name: the plotting library, the plots, and what puts them into the page."""


def script_policy() -> str:
    """A Content-Security-Policy under which these scripts run, by their digests, and nothing is fetched."""
    digests = (hashlib.sha256(text.encode()).digest() for text in SCRIPTS.values())
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:"
