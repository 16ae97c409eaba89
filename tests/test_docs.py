"""What the documentation says of settings and steps is all of them."""

from pathlib import Path

import pytest
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from loramend.contracts.steps import STEP_MODELS
from service.settings import ServiceSettings
from worker.settings import WorkerSettings

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("settings", [ServiceSettings, WorkerSettings])
def test_every_setting_is_in_the_table(settings: type[BaseSettings]) -> None:
    table = (DOCS / "04-service.md").read_text(encoding="utf-8")
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else [f"LORAMEND_{name.upper()}"]
        for variable in names:
            assert f"`{variable}`" in table


def test_every_step_is_described() -> None:
    page = (DOCS / "02-methods.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in STEP_MODELS)
