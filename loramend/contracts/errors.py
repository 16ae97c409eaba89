"""Errors as types with codes from one closed list.

LoramendError                 every error this project raises on purpose
├── AdapterError              the adapter cannot be read, or must not be
├── ReferenceModelError       a base or aligned model cannot serve as reference
├── DataError                 clean, unlabelled or evaluation text cannot be read
├── BankError                 a bank of adapters cannot be read
├── RequestError              the request itself is wrong or cannot be met
├── SigningError              a key cannot sign, or cannot verify
└── JobError                  a job ended without a result
"""

from typing import Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

ErrorCode = Literal[
    # what came in
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
    "tensor_not_finite",
    "limit_exceeded",
    "format_unsupported",
    # the text it came with
    "data_required",
    "data_not_found",
    "data_invalid",
    # the models a repair measures against
    "reference_required",
    "reference_not_found",
    "reference_invalid",
    "reference_mismatch",
    "reference_identical",
    "path_not_allowed",
    # the bank it is set beside
    "bank_not_found",
    "bank_invalid",
    # the Hub
    "hub_not_found",
    "hub_forbidden",
    "hub_unavailable",
    "publish_forbidden",
    # the request
    "request_invalid",
    "no_default_recipe",
    "method_unsupported",
    "scale_guard",
    "unauthorized",
    "forbidden",
    "rate_limited",
    "quota_exceeded",
    "host_not_allowed",
    "webhook_not_allowed",
    "not_found",
    "method_not_allowed",
    "not_acceptable",
    "digest_mismatch",
    "idempotency_key_reused",
    "idempotency_in_flight",
    "job_not_finished",
    "job_not_successful",
    "job_already_finished",
    "range_not_satisfiable",
    "payload_too_large",
    "request_timeout",
    "unsupported_media_type",
    # the machine
    "worker_lost",
    "canceled",
    "timed_out",
    "phase_timed_out",
    "out_of_memory",
    "signing_key_invalid",
    "storage_unavailable",
    "disk_full",
    "broker_unavailable",
    "not_ready",
    "overloaded",
    "internal_error",
]


class CodeInfo(NamedTuple):
    """What a code means to a caller: the HTTP status it answers with and a short title."""

    status: int
    title: str


CODES: dict[ErrorCode, CodeInfo] = {
    "adapter_not_found": CodeInfo(422, "No adapter found there"),
    "archive_invalid": CodeInfo(422, "The archive cannot be read"),
    "archive_unsafe": CodeInfo(422, "The archive holds an unsafe member"),
    "archive_too_large": CodeInfo(413, "The archive unpacks to more than is allowed"),
    "pickle_refused": CodeInfo(422, "Pickled weights are never opened"),
    "safetensors_invalid": CodeInfo(422, "Not a valid safetensors file"),
    "config_invalid": CodeInfo(422, "The adapter's config is not valid"),
    "config_unsupported": CodeInfo(422, "The adapter uses a feature that is not handled"),
    "peft_type_unsupported": CodeInfo(422, "Not a LoRA adapter"),
    "tensor_unpaired": CodeInfo(422, "A LoRA matrix has no partner"),
    "tensor_shape_mismatch": CodeInfo(422, "A tensor's shape contradicts the config"),
    "tensor_dtype_unsupported": CodeInfo(422, "A tensor's dtype is not handled"),
    "tensor_not_finite": CodeInfo(422, "A tensor holds NaN or infinity"),
    "limit_exceeded": CodeInfo(422, "The adapter is over a limit for untrusted files"),
    "format_unsupported": CodeInfo(422, "The adapter's format is not handled here"),
    "data_required": CodeInfo(422, "Clean text is needed"),
    "data_not_found": CodeInfo(422, "The data was not found"),
    "data_invalid": CodeInfo(422, "The data cannot be read"),
    "reference_required": CodeInfo(422, "A reference model is needed"),
    "reference_not_found": CodeInfo(422, "The reference model was not found"),
    "reference_invalid": CodeInfo(422, "The reference model cannot be read"),
    "reference_mismatch": CodeInfo(422, "The reference model does not fit the adapter"),
    "reference_identical": CodeInfo(422, "Base and aligned model are the same"),
    "path_not_allowed": CodeInfo(422, "That local path is not allowed"),
    "bank_not_found": CodeInfo(500, "The bank of adapters was not found"),
    "bank_invalid": CodeInfo(500, "The bank of adapters cannot be read"),
    "hub_not_found": CodeInfo(422, "Not found on the Hub"),
    "hub_forbidden": CodeInfo(422, "The Hub refused access"),
    "hub_unavailable": CodeInfo(502, "The Hub could not be reached"),
    "publish_forbidden": CodeInfo(422, "The token cannot write to that repository"),
    "request_invalid": CodeInfo(422, "The request is not valid"),
    "no_default_recipe": CodeInfo(422, "No default recipe fits what was given"),
    "method_unsupported": CodeInfo(422, "The method cannot be applied to this adapter"),
    "scale_guard": CodeInfo(422, "The rescaling factor is over its guard"),
    "unauthorized": CodeInfo(401, "An API key is needed"),
    "forbidden": CodeInfo(403, "The API key may not do that"),
    "rate_limited": CodeInfo(429, "Too many requests"),
    "quota_exceeded": CodeInfo(429, "A quota is used up"),
    "host_not_allowed": CodeInfo(403, "That host or origin is not allowed"),
    "webhook_not_allowed": CodeInfo(422, "That webhook target is not allowed"),
    "not_found": CodeInfo(404, "Not found"),
    "method_not_allowed": CodeInfo(405, "Method not allowed"),
    "not_acceptable": CodeInfo(406, "No representation fits the Accept header"),
    "digest_mismatch": CodeInfo(409, "The body's digest differs from the URL's"),
    "idempotency_key_reused": CodeInfo(422, "The idempotency key was used with another body"),
    "idempotency_in_flight": CodeInfo(409, "A request with this idempotency key is still in flight"),
    "job_not_finished": CodeInfo(409, "The job has not finished"),
    "job_not_successful": CodeInfo(409, "The job has no result"),
    "job_already_finished": CodeInfo(409, "The job has already finished"),
    "range_not_satisfiable": CodeInfo(416, "The range cannot be satisfied"),
    "payload_too_large": CodeInfo(413, "The body is too large"),
    "request_timeout": CodeInfo(408, "The body took too long to come"),
    "unsupported_media_type": CodeInfo(415, "The media type is not supported"),
    "worker_lost": CodeInfo(500, "The worker died repeatedly"),
    "canceled": CodeInfo(409, "The job was canceled"),
    "timed_out": CodeInfo(500, "The job took too long"),
    "phase_timed_out": CodeInfo(500, "A phase of the job took too long"),
    "out_of_memory": CodeInfo(500, "The job ran out of memory"),
    "signing_key_invalid": CodeInfo(500, "The signing key cannot be used"),
    "storage_unavailable": CodeInfo(503, "The storage is unavailable"),
    "disk_full": CodeInfo(503, "The disk is full"),
    "broker_unavailable": CodeInfo(503, "The broker is unavailable"),
    "not_ready": CodeInfo(503, "The service is not ready"),
    "overloaded": CodeInfo(503, "Too many requests at once"),
    "internal_error": CodeInfo(500, "Something went wrong here"),
}

assert set(CODES) == set(get_args(ErrorCode))


class ProblemItem(BaseModel):
    """One thing that was wrong: a JSON pointer (or file and tensor name) and what is wrong there."""

    model_config = ConfigDict(extra="forbid")

    pointer: str = Field(description="JSON pointer into the request, or `file#tensor` inside an adapter.")
    detail: str


class Problem(BaseModel):
    """Problem details (RFC 9457). `type` is `urn:loramend:error:<code>`."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int
    detail: str
    code: ErrorCode
    errors: list[ProblemItem] = Field(default_factory=list)
    request_id: str | None = None


class LoramendError(Exception):
    """An error with a code, a sentence that says what was wrong and what to do, and where it was.

    `where` names the place: a JSON pointer, a file, a tensor or a module.
    """

    def __init__(self, code: ErrorCode, detail: str, *, where: str | None = None) -> None:
        super().__init__(detail)
        self.code: ErrorCode = code
        self.detail = detail
        self.where = where

    def __str__(self) -> str:
        return f"{self.detail} [{self.where}]" if self.where else self.detail

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.code, self.detail, self.where))

    def problem(self, request_id: str | None = None) -> Problem:
        """This error as problem details."""
        info = CODES[self.code]
        items = [ProblemItem(pointer=self.where, detail=self.detail)] if self.where else []
        return Problem(
            type=f"urn:loramend:error:{self.code}",
            title=info.title,
            status=info.status,
            detail=self.detail,
            code=self.code,
            errors=items,
            request_id=request_id,
        )


def _rebuild(kind: type[LoramendError], code: ErrorCode, detail: str, where: str | None) -> LoramendError:
    return kind(code, detail, where=where)


class AdapterError(LoramendError):
    """The adapter cannot be read, or must not be."""


class ReferenceModelError(LoramendError):
    """A base or aligned model cannot serve as reference."""


class DataError(LoramendError):
    """Clean, unlabelled or evaluation text cannot be read."""


class BankError(LoramendError):
    """A bank of adapters cannot be read."""


class RequestError(LoramendError):
    """The request itself is wrong or cannot be met."""


class SigningError(LoramendError):
    """A key cannot sign, or cannot verify. The message never names the file or quotes it."""


class JobError(LoramendError):
    """A job ended without a result."""
