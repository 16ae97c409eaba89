from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import to_json

from loramend.contracts.request import RepairRequest
from service.api.problems import documented, invalid_document

SOURCE = {"upload": "a" * 64}


def found(document: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        RepairRequest.model_validate_json(to_json(document), strict=True)
    return {item.pointer: item.detail for item in invalid_document(caught.value, document).items}


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({}, "/source"),
        ({"source": {}}, "/source"),
        ({"source": SOURCE, "sed": 1}, "/sed"),
        ({"source": SOURCE, "a/b~c": 1}, "/a~1b~0c"),
        ({"source": SOURCE, "seed": "1"}, "/seed"),
        ({"source": SOURCE, "base": "not a model id"}, "/base"),
        ({"source": SOURCE, "base": {"hub_id": "a b"}}, "/base/hub_id"),
        ({"source": SOURCE, "steps": []}, "/steps"),
        ({"source": SOURCE, "steps": [{"type": "csu", "penalty": -1}]}, "/steps/0/penalty"),
        ({"source": SOURCE, "steps": [{"type": "nosuch"}]}, "/steps/0"),
        ({"source": SOURCE, "steps": [{}]}, "/steps/0"),
        (
            {"source": SOURCE, "steps": [{"type": "csu", "form": "direction", "output_rank": "double"}]},
            "/steps/0",
        ),
    ],
)
def test_pointers_lead_into_the_document(document: Any, pointer: str) -> None:
    assert list(found(document)) == [pointer]


def test_values_are_not_repeated() -> None:
    details = found({"source": SOURCE, "hub_token": ["hf_secret"], "seed": "hf_secret"})
    assert set(details) == {"/hub_token", "/seed"}
    assert "hf_secret" not in str(details)


def test_documented_groups_by_status() -> None:
    responses = documented("not_found", "job_not_finished", "digest_mismatch")
    assert {404, 409} <= responses.keys()
    examples = responses[409]["content"]["application/problem+json"]["examples"]
    assert set(examples) == {"job_not_finished", "digest_mismatch"}
