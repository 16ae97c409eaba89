"""The OpenAPI document: routes give their responses by model name, the schemas are added here once."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from loramend.contracts.errors import Problem
from loramend.contracts.notice import WebhookMessage
from service.api.gate import RESULTS_COOKIE, needed_scope
from service.api.guard import OPEN_PATHS, opened_by_pass
from service.api.problems import examples

_REF = "#/components/schemas/{model}"
_SECURITY = {
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key made by `loramend keys create`, or one of LORAMEND_API_KEYS, which are admins. "
        "Keys have scopes: `read`, `submit`, and `admin`, which holds both. A job is there for its owner's "
        "keys and for admins; to others it does not exist. On loopback no key is needed unless the server's "
        "settings say so.",
    },
    "pass": {
        "type": "apiKey",
        "in": "cookie",
        "name": RESULTS_COOKIE,
        "description": "Taken by a browser with a key, for one job: its own requests carry no key.",
    },
}
_DESCRIPTION = """\
Repairs LoRA adapters after training. POST an adapter, follow its job, fetch the repaired adapter and its \
spectral report.

Errors are problem details (RFC 9457) with a `code` from a closed list. `errors[].pointer` is a JSON pointer \
into the request's document; for parameters it starts with `/query`, `/path` or `/header`; inside an adapter \
it is `file#tensor`. Every answer carries `X-Request-ID`."""


def ref(model: type[BaseModel]) -> dict[str, str]:
    """A reference to the model's schema."""
    return {"$ref": _REF.format(model=model.__name__)}


def without(field: str, model: type[BaseModel]) -> dict[str, Any]:
    """The model's schema less one field, with references to the shared schemas."""
    schema = model.model_json_schema(ref_template=_REF)
    properties = {name: value for name, value in schema["properties"].items() if name != field}
    required = [name for name in schema.get("required", []) if name != field]
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": required}


def header(description: str, kind: str = "string") -> dict[str, Any]:
    """An OpenAPI response header."""
    return {"description": description, "schema": {"type": kind}}


def ok(
    model: type[BaseModel],
    description: str = "Done",
    *,
    status: int = 200,
    headers: dict[str, Any] | None = None,
) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for a JSON answer."""
    content = {"application/json": {"schema": ref(model)}}
    return {status: {"description": description, "content": content, "headers": headers or {}}}


class Described(FastAPI):
    """An app whose OpenAPI document is whole and holds the schemas of `models`."""

    models: Sequence[type[BaseModel]] = ()

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _document(self, self.models)
        return self.openapi_schema


def _security(path: str, method: str) -> list[dict[str, list[str]]]:
    """The scope that an operation needs; OpenAPI 3.1 lets a bearer scheme name it. Results open by a pass
    too; the empty alternative is loopback's."""
    if path in OPEN_PATHS:
        return []
    passed: list[dict[str, list[str]]] = [{"pass": []}] if opened_by_pass(method.upper(), path) else []
    return [{"apiKey": [needed_scope(method.upper(), path)]}, *passed, {}]


def _webhook() -> dict[str, Any]:
    """What a request's `webhook` gets."""
    headers = {
        "webhook-id": "The same at every attempt.",
        "webhook-timestamp": "The attempt's time, in seconds since 1970.",
        "webhook-signature": "`v1,` and the HMAC-SHA256 of `id.timestamp.body` under the secret's bytes, in "
        "base64.",
    }
    return {
        "summary": "A job has ended",
        "description": "After Standard Webhooks. Sent again, less and less often, until the answer is a 2xx "
        "or 410, or it is given up; `webhook` events of the job tell how it goes.",
        "parameters": [
            {"name": name, "in": "header", "required": True, **header(text)} for name, text in headers.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref(WebhookMessage)}}},
        "responses": {"2XX": {"description": "Received"}, "410": {"description": "Send no more of this job"}},
    }


def _document(app: FastAPI, models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary="LoRA adapter in, repaired adapter and spectral report out",
        description=_DESCRIPTION,
        license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        routes=app.routes,
    )
    known: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in models]
    _, schemas = models_json_schema([*known, (Problem, "validation")], ref_template=_REF)
    document["components"] = {
        "schemas": dict(sorted(schemas["$defs"].items())),
        "examples": examples(),
        "securitySchemes": _SECURITY,
    }
    document["webhooks"] = {"job-ended": {"post": _webhook()}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["security"] = _security(path, method)
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422", "")):
                del responses["422"]
            operation["responses"] = dict(sorted(responses.items()))
    return document
