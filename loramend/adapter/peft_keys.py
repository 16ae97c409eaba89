"""PEFT's keys: `base_model.model.<module>.lora_A.weight` and what else a saved LoRA adapter holds."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from loramend.adapter.capability import check_tied_embeddings, foreign_tensor, is_foreign
from loramend.adapter.config import CONFIG_FILE, LoraSettings, RankTable, parse_settings
from loramend.adapter.header import Header, TensorInfo
from loramend.adapter.layout import Layout, ModuleLayout
from loramend.adapter.limits import Limits
from loramend.adapter.quote import quote
from loramend.adapter.shapes import (
    Pair,
    check_dtypes,
    check_factors,
    check_names,
    check_rank,
    conv_groups,
    mismatch,
)
from loramend.adapter.targets import Targets, in_definition_order
from loramend.contracts.errors import AdapterError

PREFIX = "base_model.model."

_BASE_LAYER = "base_layer"


class _Key(NamedTuple):
    """A LoRA tensor's name, taken apart. adapter: the adapter's name, which PEFT takes out when it saves."""

    stem: str
    side: Literal["A", "B"]
    embedding: bool
    bias: bool
    adapter: str | None

    @property
    def written(self) -> str:
        if self.embedding:
            return f"{self.stem}.lora_embedding_{self.side}"
        return f"{self.stem}.lora_{self.side}.{'bias' if self.bias else 'weight'}"


def peft_layout(header: Header, config: Mapping[str, Any], limits: Limits, file: str) -> Layout:
    """The layout of a PEFT file; `config` has passed capability.check_config.

    Raises AdapterError `config_invalid`, `config_unsupported`, `format_unsupported`, `limit_exceeded`,
    `tensor_unpaired`, `tensor_shape_mismatch` or `tensor_dtype_unsupported`.
    """
    settings = parse_settings(dict(config), CONFIG_FILE)
    table = RankTable(settings, limits, CONFIG_FILE)
    pairs, passthrough, stored = _sort_tensors(header, settings, file)
    if not pairs:
        raise AdapterError(
            "adapter_not_found", "The file holds no LoRA matrices (lora_A, lora_B).", where=file
        )
    factors = {key for pair in pairs.values() for key in (pair.a_key, pair.b_key, pair.bias_key) if key}
    tensors = {written: header.tensors[stored.get(written, written)] for written in (*factors, *passthrough)}
    check_dtypes(tensors, factors, file)
    reader = _Reader(settings, table, limits, file, tensors, {stem for stem, _ in pairs})
    modules = tuple(reader.module(stem, pair) for (stem, _), pair in pairs.items())
    check_names(modules, limits, file)
    check_tied_embeddings(config, any(module.kind == "embedding" for module in modules), CONFIG_FILE)
    biases = [module.bias_key for module in modules if module.bias_key is not None]
    features = _features(config, modules, reader.unknown_order, bool(stored))
    return Layout("peft", file, modules, (*biases, *passthrough), features, stored)


def _parse(name: str) -> _Key | None:
    """None for a tensor of no LoRA layer."""
    parts = name.split(".")
    for length, adapter_at in ((2, None), (3, -2)):
        if len(parts) > length and parts[-length] in ("lora_A", "lora_B") and parts[-1] in ("weight", "bias"):
            adapter = None if adapter_at is None else parts[adapter_at]
            side: Literal["A", "B"] = "A" if parts[-length] == "lora_A" else "B"
            return _Key(".".join(parts[:-length]), side, False, parts[-1] == "bias", adapter)
    for length in (1, 2):
        if len(parts) > length and parts[-length] in ("lora_embedding_A", "lora_embedding_B"):
            adapter = None if length == 1 else parts[-1]
            side = "A" if parts[-length].endswith("A") else "B"
            return _Key(".".join(parts[:-length]), side, True, False, adapter)
    return None


def _sort_tensors(
    header: Header, settings: LoraSettings, file: str
) -> tuple[dict[tuple[str, bool], Pair], list[str], dict[str, str]]:
    """(LoRA layers by stem and whether of an embedding, other tensors, key as written -> key as found)."""
    pairs: dict[tuple[str, bool], Pair] = defaultdict(Pair)
    passthrough: list[str] = []
    stored: dict[str, str] = {}
    adapters: set[str | None] = set()
    for name in header.tensors:
        key = _parse(name)
        if key is None:
            if is_foreign(name):
                raise foreign_tensor(name, f"{file}#{name}")
            passthrough.append(name)
            continue
        adapters.add(key.adapter)
        if len(adapters) > 1:
            raise AdapterError(
                "format_unsupported",
                "The file holds more than one adapter. Save each alone with "
                "save_pretrained(folder, selected_adapters=[name]).",
                where=f"{file}#{name}",
            )
        if key.bias and (key.side == "A" or not settings.lora_bias):
            raise AdapterError(
                "config_invalid",
                "The file holds a bias of a LoRA matrix, which only lora_bias has, for B, and PEFT would "
                "ignore it. Set lora_bias, or remove the tensor.",
                where=f"{file}#{name}",
            )
        if key.written != name:
            stored[key.written] = name
        pair = pairs[key.stem, key.embedding]
        if key.bias:
            pair.bias_key = key.written
        elif key.side == "A":
            pair.a_key = key.written
        else:
            pair.b_key = key.written
    return dict(pairs), passthrough, stored


class _Reader:
    """Makes module layouts; what one module is may depend on which others there are."""

    def __init__(
        self,
        settings: LoraSettings,
        table: RankTable,
        limits: Limits,
        file: str,
        tensors: Mapping[str, TensorInfo],
        stems: set[str],
    ) -> None:
        self._fan_in_fan_out = settings.fan_in_fan_out
        self._targets = Targets(settings)
        self._table = table
        self._limits = limits
        self._file = file
        self._tensors = tensors
        self._paths = {stem.removeprefix(PREFIX) for stem in stems}
        self._depths: dict[str, int] = defaultdict(int)  # wrapped module -> how many layers wrap it
        for path in self._paths:
            self._depths[_unwrapped(path)] += 1
        self.unknown_order = False

    def module(self, stem: str, pair: Pair) -> ModuleLayout:
        a_key, b_key = pair.complete(*self._wanted(stem, pair), self._file)
        a, b = self._tensors[a_key], self._tensors[b_key]
        check_factors(a_key, a, b_key, b, self._file)
        path = stem.removeprefix(PREFIX)
        if a_key.endswith("lora_embedding_A"):
            found = self._matrix(path, a_key, b_key, "embedding")
        elif len(a.shape) > 2:
            found = self._conv(path, a_key, b_key)
        else:
            found = self._parameter(path, a_key, b_key) or self._matrix(path, a_key, b_key, "linear")
        check_rank(found.rank, a_key, self._limits, self._file)
        if pair.bias_key is not None:
            bias = self._tensors[pair.bias_key]
            if bias.shape != b.shape[:1]:
                raise mismatch(pair.bias_key, bias, f"B's bias must have shape {[b.shape[0]]}", self._file)
            return replace(found, bias_key=pair.bias_key)
        return found

    @staticmethod
    def _wanted(stem: str, pair: Pair) -> tuple[str, str]:
        have = pair.a_key or pair.b_key or ""
        middle, end = ("embedding_", "") if "lora_embedding_" in have else ("", ".weight")
        return f"{stem}.lora_{middle}A{end}", f"{stem}.lora_{middle}B{end}"

    def _matrix(
        self, path: str, a_key: str, b_key: str, kind: Literal["linear", "embedding"]
    ) -> ModuleLayout:
        """A (r, in), B (out, r); for an embedding, in is the number of embeddings and out their dimension."""
        name = _unwrapped(path)
        lookup, weight = name, f"{name}.weight"
        # In nn.MultiheadAttention the module's own factors are in_proj's, and out_proj takes its rank and
        # alpha.
        if f"{path}.{_BASE_LAYER}.out_proj" in self._paths:
            weight = f"{name}.in_proj_weight"
        elif f".{_BASE_LAYER}." in path:
            lookup = path.split(f".{_BASE_LAYER}.")[0]
        rank = self._table.rank(lookup)
        a, b = self._tensors[a_key], self._tensors[b_key]
        self._check_matrix(a_key, a, b_key, b, rank)
        return ModuleLayout(
            name,
            kind,
            a_key,
            b_key,
            a.shape,
            b.shape,
            rank,
            weight,
            self._table.scale(lookup),
            transposed=kind == "embedding" or self._fan_in_fan_out,
            rank_names=(lookup,),
        )

    def _conv(self, path: str, a_key: str, b_key: str) -> ModuleLayout:
        name = _unwrapped(path)
        rank = self._table.rank(name)
        a, b = self._tensors[a_key], self._tensors[b_key]
        if a.shape[0] != rank:
            raise self._wrong_rank(a_key, a, 0, rank)
        groups = conv_groups(a, b, a_key, b_key, self._file)
        return ModuleLayout(
            name,
            "conv",
            a_key,
            b_key,
            a.shape,
            b.shape,
            rank,
            f"{name}.weight",
            self._table.scale(name),
            split="none" if groups == 1 else "groups",
            count=groups,
            rank_names=(name,),
        )

    def _parameter(self, path: str, a_key: str, b_key: str) -> ModuleLayout | None:
        """A parameter targeted by name (target_parameters): A (r·E, in), B (out, r·E) for E experts.

        None where the layer is an ordinary one.
        """
        module = _unwrapped(path)
        wrapped = self._depths[module]
        names, named = self._targets.parameters(module)
        a, b = self._tensors[a_key], self._tensors[b_key]
        if wrapped == 1 and not named:
            ordinary = self._targets.has(module) and a.shape[0] == self._table.rank(module)
            if ordinary or not names:
                return None
        level = wrapped - 1 - (len(path) - len(module)) // len(f".{_BASE_LAYER}")
        ordered = in_definition_order(names, wrapped)
        if ordered is None:
            self.unknown_order = True
            name = f"{module}.parameter_{level}"
            lookups = tuple(f"{module}.{candidate}" for candidate in names) or (name,)
        else:
            # PEFT wraps the parameter that the module defines first, then that layer for the next one.
            name = f"{module}.{ordered[level]}"
            lookups = (name,)
        rank, scale = self._common_rank(lookups)
        if a.shape[0] % rank:
            raise self._wrong_rank(a_key, a, 0, rank, "a multiple of ")
        experts = a.shape[0] // rank
        self._check_matrix(a_key, a, b_key, b, rank * experts)
        return ModuleLayout(
            name,
            "parameter",
            a_key,
            b_key,
            a.shape,
            b.shape,
            rank,
            name,
            scale,
            split="none" if experts == 1 else "experts",
            count=experts,
            rank_names=lookups,
        )

    def _common_rank(self, lookups: tuple[str, ...]) -> tuple[int, float]:
        """Rank and scale of a parameter that goes by one of these names."""
        found = {(self._table.rank(name), self._table.scale(name)) for name in lookups}
        if len(found) > 1:
            raise AdapterError(
                "config_unsupported",
                f"Which of {', '.join(map(quote, lookups))} a LoRA layer belongs to is not saved, and "
                "rank_pattern or alpha_pattern tell them apart. Target them in separate adapters.",
                where=f"{CONFIG_FILE}#/target_parameters",
            )
        return found.pop()

    def _check_matrix(self, a_key: str, a: TensorInfo, b_key: str, b: TensorInfo, rank: int) -> None:
        for key, info, axis in ((a_key, a, 0), (b_key, b, 1)):
            if len(info.shape) != 2:
                raise mismatch(key, info, "it must have two dimensions", self._file)
            if info.shape[axis] != rank:
                raise self._wrong_rank(key, info, axis, rank)

    def _wrong_rank(self, key: str, info: TensorInfo, axis: int, rank: int, of: str = "") -> AdapterError:
        return mismatch(
            key,
            info,
            f"its size {info.shape[axis]} along dimension {axis} is not {of}the rank {rank} that "
            f"{CONFIG_FILE} gives (r and rank_pattern)",
            self._file,
        )


def _unwrapped(path: str) -> str:
    """The module's path in the base model, without the layers PEFT wraps around it."""
    return ".".join(part for part in path.split(".") if part != _BASE_LAYER)


def _features(
    config: Mapping[str, Any], modules: tuple[ModuleLayout, ...], unknown_order: bool, named: bool
) -> tuple[str, ...]:
    present = {
        "rslora": bool(config.get("use_rslora")),
        "rank_pattern": bool(config.get("rank_pattern")),
        "alpha_pattern": bool(config.get("alpha_pattern")),
        "lora_bias": bool(config.get("lora_bias")),
        "fan_in_fan_out": bool(config.get("fan_in_fan_out")),
        "embedding": any(module.kind == "embedding" for module in modules),
        "conv": any(module.kind == "conv" for module in modules),
        "grouped_conv": any(module.split == "groups" for module in modules),
        "target_parameters": any(module.kind == "parameter" for module in modules),
        "parameter_order": unknown_order,
        "multihead_attention": any(module.weight.endswith(".in_proj_weight") for module in modules),
        "modules_to_save": bool(config.get("modules_to_save")),
        "bias": config.get("bias", "none") != "none",
        "trainable_tokens": config.get("trainable_token_indices") is not None,
        "layer_replication": bool(config.get("layer_replication")),
        "adapter_name_in_keys": named,
    }
    return tuple(name for name, is_there in present.items() if is_there)
