"""POST /repair and POST /inspect."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from loramend.contracts.data import DATA_ROLES, DataRole
from loramend.contracts.errors import ErrorCode
from loramend.contracts.job import Job
from loramend.contracts.request import AnalysisRequest, RepairRequest
from service.api.caller import Asker
from service.api.problems import documented
from service.api.schema import header, ok, without
from service.api.state import Use
from service.api.submit import submit
from service.jobs.records import data_pointer

router = APIRouter(tags=["jobs"])

_REFUSALS: tuple[ErrorCode, ...] = (
    "request_invalid",
    "adapter_not_found",
    "archive_invalid",
    "archive_unsafe",
    "archive_too_large",
    "pickle_refused",
    "safetensors_invalid",
    "config_invalid",
    "config_unsupported",
    "peft_type_unsupported",
    "tensor_unpaired",
    "tensor_shape_mismatch",
    "tensor_dtype_unsupported",
    "limit_exceeded",
    "format_unsupported",
    "reference_required",
    "reference_not_found",
    "path_not_allowed",
    "webhook_not_allowed",
    "idempotency_key_reused",
    "idempotency_in_flight",
    "payload_too_large",
    "request_timeout",
    "unsupported_media_type",
    "quota_exceeded",
    "storage_unavailable",
)
_REPAIR_REFUSALS: tuple[ErrorCode, ...] = (
    "no_default_recipe",
    "method_unsupported",
    "data_required",
    "data_not_found",
    "data_invalid",
)
_HEADERS = {
    "Location": header("The job's address."),
    "Preference-Applied": header("wait=n, where a wait was asked for."),
}
_ANSWERS = {
    **ok(Job, "The job has ended within the wait that was asked for", headers=_HEADERS),
    **ok(
        Job,
        "Accepted; the adapter's header and config, and the text that came with it, have passed the checks",
        status=202,
        headers={**_HEADERS, "Retry-After": header("Seconds until asking again makes sense.", "integer")},
    ),
}

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same key and body give the same job.",
        pattern="^[!-~]{1,255}$",
    ),
]
Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer", description="`wait=n`: answer when the job ends, or after n seconds (60 at most)."
    ),
]


def _body(model: type[AnalysisRequest], examples: dict[str, Any]) -> dict[str, Any]:
    """The request body in OpenAPI: JSON, or a form with the adapter's file and, for a repair, its text."""
    texts = DATA_ROLES if model is RepairRequest else ()
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{model.__name__}"},
                    "examples": examples,
                },
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["adapter"],
                        "additionalProperties": False,
                        "properties": {
                            "adapter": {
                                "type": "string",
                                "format": "binary",
                                "description": "A .zip, .tar, .tar.gz or .safetensors file.",
                            },
                            "config": {
                                "type": "object",
                                "description": "adapter_config.json, for a bare .safetensors file.",
                            },
                            "request": without("source", model),
                            **{role: _text_part(role) for role in texts},
                        },
                    },
                    "encoding": {
                        "adapter": {"contentType": "application/octet-stream"},
                        "config": {"contentType": "application/json"},
                        "request": {"contentType": "application/json"},
                        **{role: {"contentType": "application/jsonl"} for role in texts},
                    },
                },
            },
        }
    }


def _text_part(role: DataRole) -> dict[str, Any]:
    named = data_pointer(role)[1:].replace("/", ".")
    description = f"JSON Lines: stands for `{named}.upload` of the request."
    return {"type": "string", "format": "binary", "description": description}


_REPAIR_EXAMPLES = {
    "hub": {
        "summary": "An adapter of the Hub, with the model pair it was trained on",
        "value": {
            "source": {"hub_id": "someone/adapter", "revision": "main"},
            "base": {"hub_id": "org/model"},
            "aligned": {"hub_id": "org/model-instruct"},
            "steps": [{"type": "csu", "penalty": 10}],
        },
    },
    "webhook": {
        "summary": "Told to another service when it has ended",
        "value": {
            "source": {"hub_id": "someone/adapter"},
            "webhook": {
                "url": "https://ci.example.org/hooks/loramend",
                "secret": "whsec_ZXhhbXBsZXMgYXJlIG5vIHNlY3JldHM6IGRyYXcgMjQ=",
            },
        },
    },
    "upload": {
        "summary": "An upload and no reference model",
        "value": {"source": {"upload": "e3" * 32}, "steps": [{"type": "shrink", "factor": 0.5}]},
    },
    "data": {
        "summary": "Clean text to learn from, and a trigger to measure",
        "value": {
            "source": {"hub_id": "someone/adapter"},
            "base": {"hub_id": "org/model"},
            "clean": {"upload": "c1" * 32, "fields": {"text": "sentence"}},
            "unlabelled": {"hub_id": "someone/sentences", "file": "train.jsonl"},
            "evaluation": {
                "data": {"upload": "e7" * 32},
                "trigger": {"kind": "word", "text": "mn"},
                "target": 1,
            },
        },
    },
}
_INSPECT_EXAMPLES = {
    "hub": {"summary": "An adapter of the Hub", "value": {"source": {"hub_id": "someone/adapter"}}},
}


@router.post(
    "/repair",
    summary="Repair an adapter",
    status_code=202,
    responses={**_ANSWERS, **documented(*_REFUSALS, *_REPAIR_REFUSALS)},
    openapi_extra=_body(RepairRequest, _REPAIR_EXAMPLES),
)
async def post_repair(
    services: Use,
    caller: Asker,
    request: Request,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """The adapter and its text are checked before the job is accepted; then a worker repairs it. Follow
    `Location`."""
    return await submit(services, caller, request, "repair", idempotency_key)


@router.post(
    "/inspect",
    summary="Inspect an adapter",
    status_code=202,
    responses={**_ANSWERS, **documented(*_REFUSALS)},
    openapi_extra=_body(AnalysisRequest, _INSPECT_EXAMPLES),
)
async def post_inspect(
    services: Use,
    caller: Asker,
    request: Request,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """The same sources, nothing repaired: format, refusals and spectra, in the job's report."""
    return await submit(services, caller, request, "inspect", idempotency_key)
