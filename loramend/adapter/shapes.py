"""Checks that every format shares: pairs, shapes against ranks, dtypes."""

from collections.abc import Sequence
from dataclasses import dataclass

from loramend.adapter.header import TensorInfo
from loramend.adapter.layout import ModuleLayout
from loramend.adapter.limits import Limits
from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError

FACTOR_DTYPES = ("F64", "F32", "F16", "BF16")
CARRIED_DTYPES = (*FACTOR_DTYPES, "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2")


@dataclass
class Pair:
    """The tensors of one LoRA layer, as they are found one by one."""

    a_key: str | None = None
    b_key: str | None = None
    bias_key: str | None = None
    alpha_key: str | None = None

    def complete(self, a_wanted: str, b_wanted: str, file: str) -> tuple[str, str]:
        """(a_key, b_key); raises AdapterError `tensor_unpaired` where one is missing, naming it as wanted."""
        if self.a_key is not None and self.b_key is not None:
            return self.a_key, self.b_key
        have = self.a_key or self.b_key or self.bias_key or self.alpha_key or ""
        missing = b_wanted if self.b_key is None and self.a_key is not None else a_wanted
        raise AdapterError(
            "tensor_unpaired",
            f"{quote(have)} has no partner {quote(missing)}. Save the whole adapter again.",
            where=f"{file}#{have}",
        )


def check_dtypes(tensors: dict[str, TensorInfo], factors: set[str], file: str) -> None:
    """`factors`: the names of all A, B and their biases. Raises AdapterError `tensor_dtype_unsupported`."""
    for name, info in tensors.items():
        allowed = FACTOR_DTYPES if name in factors else CARRIED_DTYPES
        if info.dtype not in allowed:
            raise AdapterError(
                "tensor_dtype_unsupported",
                f"{quote(name)} is stored as {info.dtype}; {', '.join(allowed)} are handled. Save it as one "
                "of these.",
                where=f"{file}#{name}",
            )


def check_names(modules: Sequence[ModuleLayout], limits: Limits, file: str) -> None:
    """No update may hide behind another's name, and there is a cap on updates. Raises AdapterError
    `format_unsupported` or `limit_exceeded`."""
    total = sum(module.count for module in modules)
    if total > limits.max_updates:
        raise AdapterError(
            "limit_exceeded",
            f"The adapter has {total} modules, experts included; at most {limits.max_updates} are taken.",
            where=file,
        )
    seen: set[str] = set()
    for module in modules:
        for name in module.update_names:
            if name in seen:
                raise AdapterError(
                    "format_unsupported",
                    f"Two LoRA layers both belong to {quote(name)}. Save the adapter again with PEFT.",
                    where=f"{file}#{module.a_key}",
                )
            seen.add(name)


def mismatch(name: str, info: TensorInfo, why: str, file: str) -> AdapterError:
    """The error for a tensor whose shape contradicts its partner or the rank."""
    return AdapterError(
        "tensor_shape_mismatch", f"{quote(name)} has shape {list(info.shape)}: {why}.", where=f"{file}#{name}"
    )


def check_factors(a_key: str, a: TensorInfo, b_key: str, b: TensorInfo, file: str) -> None:
    """Both have at least two dimensions and no empty one. Raises AdapterError `tensor_shape_mismatch`."""
    for key, info in ((a_key, a), (b_key, b)):
        if len(info.shape) < 2 or 0 in info.shape:
            raise mismatch(key, info, "a LoRA matrix has two or more dimensions, none of them empty", file)


def check_rank(rank: int, name: str, limits: Limits, file: str) -> None:
    if rank > limits.max_rank:
        raise AdapterError(
            "limit_exceeded",
            f"{quote(name)} has rank {rank}; at most {limits.max_rank} is taken.",
            where=f"{file}#{name}",
        )


def conv_groups(a: TensorInfo, b: TensorInfo, a_key: str, b_key: str, file: str) -> int:
    """How many groups a convolution's B (out, r/groups, 1, …) has beside A (r, in, *kernel).

    Raises AdapterError `tensor_shape_mismatch`.
    """
    if len(b.shape) != len(a.shape) or any(size != 1 for size in b.shape[2:]):
        raise mismatch(b_key, b, f"B of a convolution beside A {list(a.shape)} is (out, r, 1, …)", file)
    if not b.shape[1] or a.shape[0] % b.shape[1]:
        raise mismatch(b_key, b, f"its inner size must divide the rank {a.shape[0]}, A's first size", file)
    groups = a.shape[0] // b.shape[1]
    if b.shape[0] % groups:
        raise mismatch(b_key, b, f"its first size must be a multiple of its {groups} groups", file)
    return groups
