"""Messages name the flag to change."""

import pytest

from loramend.cli.errors import one_line
from loramend.cli.flags import place
from loramend.contracts.errors import ErrorCode, ReferenceModelError, RequestError


@pytest.mark.parametrize(
    ("pointer", "flag"),
    [
        ("/base", "--base"),
        ("/base/path", "--base"),
        ("/source/upload", "ADAPTER"),
        ("/steps/0", "--step 1"),
        ("/steps/1/csu/k", "--step 2: k"),
        ("/evaluation/data/fields", "--evaluate"),
        ("/evaluation/target", "--target"),
        ("/evaluation", "--evaluate"),
        ("/publish/repo_id", "--publish"),
        ("/header/Accept", "/header/Accept"),
        ("adapter_model.safetensors#q", "adapter_model.safetensors#q"),
        ("", ""),
    ],
)
def test_a_pointer_is_told_by_its_flag(pointer: str, flag: str) -> None:
    assert place(pointer) == flag


@pytest.mark.parametrize(
    ("code", "flag"),
    [("no_default_recipe", "--step"), ("scale_guard", "--step"), ("hub_forbidden", "HF_TOKEN")],
)
def test_a_code_without_a_place_is_told_what_to_look_at(code: ErrorCode, flag: str) -> None:
    assert flag in one_line(RequestError(code, "Not like this."))


def test_a_message_that_names_a_flag_is_left_as_it_is() -> None:
    error = ReferenceModelError("reference_required", "Give a model.", where="/base")
    assert one_line(error) == "loramend: reference_required: Give a model. [--base]"
