"""`python -m service.openapi [FILE]`: write the OpenAPI document, the same bytes every time."""

import sys
from pathlib import Path

import yaml

from service.app import create_app
from service.settings import ServiceSettings

COMMITTED = Path(__file__).parent.parent / "openapi" / "openapi.yaml"


def render() -> str:
    """The document as YAML. No setting has a part in it."""
    document = create_app(ServiceSettings.model_construct(storage_url="memory://")).openapi()
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED).write_text(render(), encoding="utf-8")
