"""adapter_config.json: read under limits, and a typed view of what decides an update's scale and shape."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from loramend.adapter.limits import Limits
from loramend.adapter.patterns import Patterns
from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError

CONFIG_FILE = "adapter_config.json"

# Far above any adapter's, and far below what recursive writers of JSON bear.
_MAX_DEPTH = 64
MAX_ALPHA = 1e9

Rank = Annotated[int, Field(ge=1, lt=2**31)]
Flag = Annotated[bool, BeforeValidator(lambda value: False if value is None else value)]
Alpha = Annotated[float, Field(ge=-MAX_ALPHA, le=MAX_ALPHA, allow_inf_nan=False)]


class _DuplicateKeyError(ValueError):
    """A JSON object names a key twice; args: the key."""


def read_config(path: Path, limits: Limits) -> dict[str, Any]:
    """The config as it stands in the file. Raises AdapterError `config_invalid` or `limit_exceeded`."""
    where = path.name
    with path.open("rb") as file:
        raw = file.read(limits.max_config_bytes + 1)
    if len(raw) > limits.max_config_bytes:
        raise AdapterError(
            "limit_exceeded", f"The config is over {limits.max_config_bytes} bytes.", where=where
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(f"it is not UTF-8 (byte {error.start})", where) from None
    return parse_config(text, where)


def parse_config(text: str, where: str) -> dict[str, Any]:
    """A JSON object of some depth, without duplicate keys, NaN, infinity or lone surrogates. Raises
    AdapterError `config_invalid`."""
    try:
        config = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except _DuplicateKeyError as error:
        raise _invalid(f"the key {quote(str(error.args[0]))} stands in it twice", where) from None
    except json.JSONDecodeError as error:
        raise _invalid(
            f"{error.msg} at line {error.lineno}, column {error.colno}", f"{where}:{error.lineno}"
        ) from None
    except RecursionError:
        raise _invalid("it is nested too deeply", where) from None
    except ValueError as error:
        raise _invalid(quote(str(error)), where) from None
    if not isinstance(config, dict):
        raise _invalid("it must be a JSON object", where)
    if _depth_exceeds(config, _MAX_DEPTH):
        raise _invalid("it is nested too deeply", where)
    try:
        json.dumps(config, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # JSON can escape what no UTF-8 file, and so no report, can hold.
        raise _invalid("a string holds half of a surrogate pair", where) from None
    return config


def _depth_exceeds(value: dict[str, Any], most: int) -> bool:
    level: list[Any] = [value]
    for _ in range(most):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKeyError(key)
        found[key] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number JSON knows")


def _invalid(why: str, where: str) -> AdapterError:
    return AdapterError("config_invalid", f"The adapter's config is not valid: {why}.", where=where)


class LoraSettings(BaseModel):
    """What of a LoRA config decides shapes and scales; every other key is capability.py's business.

    Defaults are PEFT's. Types are strict, as PEFT would fail later on any other.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    r: Rank = 8
    lora_alpha: Alpha = 8
    use_rslora: Flag = False
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, Alpha] | None = None
    fan_in_fan_out: Flag = False
    lora_bias: Flag = False
    target_modules: list[str] | str | None = None
    target_parameters: Annotated[list[str], Field(max_length=2000)] | None = None

    def scale(self, rank: int, alpha: float) -> float:
        """s = alpha/r, or alpha/sqrt(r) under rsLoRA (arXiv 2312.03732)."""
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def parse_settings(config: dict[str, Any], where: str) -> LoraSettings:
    """The typed view. Raises AdapterError `config_invalid` at the first key of a wrong type or range."""
    try:
        return LoraSettings.model_validate(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        pointer = "".join(f"/{quote(str(part))}" for part in first["loc"])
        raise _invalid(f"{pointer}: {first['msg']}", f"{where}#{pointer}") from None


class RankTable:
    """Rank and alpha of a module by its name, as PEFT resolves them."""

    def __init__(self, settings: LoraSettings, limits: Limits, where: str) -> None:
        self._settings = settings
        self._found: dict[str, int] = {}
        self._ranks = settings.rank_pattern or {}
        self._alphas = settings.alpha_pattern or {}
        self._rank_keys = Patterns(self._ranks, limits, f"{where}#/rank_pattern")
        self._alpha_keys = Patterns(self._alphas, limits, f"{where}#/alpha_pattern")

    def rank(self, name: str) -> int:
        if name not in self._found:
            key = self._rank_keys.first(name)
            self._found[name] = self._settings.r if key is None else self._ranks[key]
        return self._found[name]

    def scale(self, name: str) -> float:
        """s of the module, from its own rank and alpha."""
        key = self._alpha_keys.first(name)
        alpha = self._settings.lora_alpha if key is None else self._alphas[key]
        return self._settings.scale(self.rank(name), alpha)
