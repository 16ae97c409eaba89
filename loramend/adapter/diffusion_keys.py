"""The keys of image models' adapters, which come without a config: kohya's and diffusers'.

kohya      `lora_unet_<module, dots as underscores>.lora_down.weight`, `.lora_up.weight`, `.alpha`
diffusers  `<component>.<module>.lora_A.weight` and `.lora_B.weight`, or the older `.lora.down.weight`,
           `_lora.down.weight`, …; settings, if any, in the file's metadata under `lora_adapter_metadata`

s = alpha/r with the module's alpha, 1 where it has none.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from loramend.adapter.capability import check_keys, foreign_tensor, is_foreign
from loramend.adapter.config import RankTable, parse_config, parse_settings
from loramend.adapter.header import Header, TensorInfo
from loramend.adapter.layout import Format, Layout, ModuleLayout
from loramend.adapter.limits import Limits
from loramend.adapter.quote import quote
from loramend.adapter.shapes import (
    CARRIED_DTYPES,
    Pair,
    check_dtypes,
    check_factors,
    check_names,
    check_rank,
    conv_groups,
    mismatch,
)
from loramend.contracts.errors import AdapterError

METADATA_KEY = "lora_adapter_metadata"

_ALPHA = ".alpha"


class Style(NamedTuple):
    """How one tool ends the names of A and B; `join` stands for the end that a module's own path takes on."""

    a_end: str
    b_end: str
    format: Format
    join: str = ""


STYLES = (
    Style(".lora_down.weight", ".lora_up.weight", "kohya"),
    Style(".lora_A.weight", ".lora_B.weight", "diffusers"),
    Style(".lora.down.weight", ".lora.up.weight", "diffusers"),
    Style(".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight", "diffusers"),
    Style("_lora.down.weight", "_lora.up.weight", "diffusers", ".processor."),
)


def diffusion_layout(header: Header, limits: Limits, file: str) -> Layout:
    """The layout of a kohya or diffusers file.

    Raises AdapterError `adapter_not_found`, `config_invalid`, `config_unsupported`, `format_unsupported`,
    `peft_type_unsupported`, `limit_exceeded`, `tensor_unpaired`, `tensor_shape_mismatch` or
    `tensor_dtype_unsupported`.
    """
    pairs, styles, passthrough = _sort_tensors(header, file)
    if not pairs:
        raise AdapterError("adapter_not_found", "The file holds no LoRA matrices.", where=file)
    formats = {style.format for style in styles.values()}
    if len(formats) > 1:
        raise AdapterError(
            "format_unsupported", "The file mixes kohya and diffusers keys. Save it in one style.", where=file
        )
    form = formats.pop()
    settings = read_metadata(header.metadata, limits, file) if form == "diffusers" else {}
    tables = _tables(settings, {component(stem) for stem in pairs}, limits, f"{file}#{METADATA_KEY}")
    factors = {key for pair in pairs.values() for key in (pair.a_key, pair.b_key, pair.bias_key) if key}
    alphas = {pair.alpha_key for pair in pairs.values() if pair.alpha_key}
    check_dtypes({key: header.tensors[key] for key in (*factors, *passthrough)}, factors, file)
    for alpha in alphas:
        _check_alpha(alpha, header.tensors[alpha], file)
    modules = tuple(
        _module(stem, pair, styles[stem], header, tables, limits, file) for stem, pair in pairs.items()
    )
    check_names(modules, limits, file)
    if form == "diffusers":
        _check_same_rank(modules, bool(settings), file)
    biases = [module.bias_key for module in modules if module.bias_key is not None]
    present = {
        "kohya_keys": form == "kohya",
        "diffusers_keys": form == "diffusers",
        "rslora": any(entry.get("use_rslora") for entry in settings.values()),
        "lora_bias": bool(biases),
        "conv": any(module.kind == "conv" for module in modules),
        "grouped_conv": any(module.split == "groups" for module in modules),
    }
    features = tuple(name for name, is_there in present.items() if is_there)
    return Layout(form, file, modules, (*biases, *passthrough), features)


def component(name: str) -> str:
    """The part of a diffusers pipeline a key belongs to: `unet`, `transformer`, `text_encoder`, …"""
    return name.partition(".")[0]


def read_metadata(metadata: Mapping[str, str], limits: Limits, file: str) -> dict[str, dict[str, Any]]:
    """The LoRA settings in a diffusers file's metadata, by component; under "" those of a one-model file."""
    if METADATA_KEY not in metadata:
        return {}
    place = f"{file}#{METADATA_KEY}"
    text = metadata[METADATA_KEY]
    if len(text) > limits.max_config_bytes:
        raise AdapterError(
            "limit_exceeded", f"The settings hold over {limits.max_config_bytes} characters.", where=place
        )
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for key, value in parse_config(text, place).items():
        owner, _, name = key.rpartition(".")
        found[owner][name] = value
    for entry in found.values():
        check_keys(entry, place)
    return dict(found)


def _sort_tensors(header: Header, file: str) -> tuple[dict[str, Pair], dict[str, Style], list[str]]:
    pairs: dict[str, Pair] = defaultdict(Pair)
    styles: dict[str, Style] = {}
    rest: list[str] = []
    for name in header.tensors:
        for style in STYLES:
            if name.endswith((style.a_end, style.b_end)):
                stem = name.removesuffix(style.a_end).removesuffix(style.b_end)
                if styles.setdefault(stem, style) != style:
                    raise AdapterError(
                        "format_unsupported",
                        f"{quote(stem)} has LoRA matrices twice.",
                        where=f"{file}#{name}",
                    )
                if name.endswith(style.a_end):
                    pairs[stem].a_key = name
                else:
                    pairs[stem].b_key = name
                break
        else:
            rest.append(name)
    passthrough: list[str] = []
    for name in rest:
        stem = name.removesuffix(_ALPHA)
        bias_stem = name.removesuffix(".lora_B.bias")
        if stem != name and stem in pairs:
            pairs[stem].alpha_key = name
        elif bias_stem != name and bias_stem in pairs:
            pairs[bias_stem].bias_key = name
        elif is_foreign(name.partition(".")[2]):
            raise foreign_tensor(name, f"{file}#{name}")
        else:
            passthrough.append(name)
    return dict(pairs), styles, passthrough


def _module(
    stem: str,
    pair: Pair,
    style: Style,
    header: Header,
    tables: Mapping[str, RankTable],
    limits: Limits,
    file: str,
) -> ModuleLayout:
    a_key, b_key = pair.complete(stem + style.a_end, stem + style.b_end, file)
    a, b = header.tensors[a_key], header.tensors[b_key]
    check_factors(a_key, a, b_key, b, file)
    rank = a.shape[0]
    check_rank(rank, a_key, limits, file)
    groups = 1
    if len(a.shape) > 2:
        groups = conv_groups(a, b, a_key, b_key, file)
    elif len(b.shape) != 2 or b.shape[1] != rank:
        raise mismatch(b_key, b, f"beside A {list(a.shape)} it must be (out, {rank})", file)
    if pair.bias_key is not None and header.tensors[pair.bias_key].shape != b.shape[:1]:
        raise mismatch(pair.bias_key, header.tensors[pair.bias_key], f"it must be {[b.shape[0]]}", file)
    kohya = style.format == "kohya"
    path = stem if kohya else _base_path(stem, style)
    return ModuleLayout(
        stem,
        "conv" if len(a.shape) > 2 else "linear",
        a_key,
        b_key,
        a.shape,
        b.shape,
        rank,
        f"{path}.weight",
        None if pair.alpha_key else _scale(stem, rank, tables, file),
        split="none" if groups == 1 else "groups",
        count=groups,
        alpha_key=pair.alpha_key,
        bias_key=pair.bias_key,
        # diffusers rebuilds one rank a component from the most frequent one, so its modules keep to one.
        rank_names=(stem if kohya else component(stem),),
    )


def _base_path(stem: str, style: Style) -> str:
    """The module's path in its component: older diffusers files name attention processors instead."""
    path = stem.partition(".")[2] or stem
    if style.join:
        path = path.replace(style.join, ".")
        path = f"{path}.0" if path.endswith(".to_out") else path
    return path


def _tables(
    settings: Mapping[str, dict[str, Any]], components: set[str], limits: Limits, place: str
) -> dict[str, RankTable]:
    """Ranks and alphas by component, one table for all its modules; they share the patterns' time."""
    owners = settings.keys() & (components | {""})
    share = replace(limits, pattern_seconds=limits.pattern_seconds / max(1, len(owners)))
    return {owner: RankTable(parse_settings(settings[owner], place), share, place) for owner in owners}


def _scale(stem: str, rank: int, tables: Mapping[str, RankTable], file: str) -> float:
    """s of a module without an alpha tensor."""
    owner = component(stem) if component(stem) in tables else ""
    if owner not in tables:
        return 1.0
    table = tables[owner]
    name = stem.removeprefix(f"{owner}.") if owner else stem
    if table.rank(name) != rank:
        raise AdapterError(
            "tensor_shape_mismatch",
            f"{quote(stem)} has rank {rank} in its tensors and {table.rank(name)} in the file's settings.",
            where=f"{file}#{stem}",
        )
    return table.scale(name)


def _check_alpha(key: str, info: TensorInfo, file: str) -> None:
    if info.shape not in ((), (1,)):
        raise mismatch(key, info, "an alpha is one number", file)
    if info.dtype not in CARRIED_DTYPES or info.dtype.startswith(("F8", "BOOL")):
        raise AdapterError(
            "tensor_dtype_unsupported",
            f"{quote(key)} is stored as {info.dtype}; store it as F32.",
            where=f"{file}#{key}",
        )


def _check_same_rank(modules: tuple[ModuleLayout, ...], has_settings: bool, file: str) -> None:
    """Without alphas or settings, loaders agree on s = 1 only where a component's modules share a rank."""
    ranks: dict[str, int] = {}
    for module in modules:
        if module.alpha_key is None and not has_settings:
            first = ranks.setdefault(component(module.name), module.rank)
            if first != module.rank:
                raise AdapterError(
                    "config_unsupported",
                    f"Ranks {first} and {module.rank} occur in one component, without alphas, and loaders "
                    "disagree on what scale that means. Save the file with alpha tensors or with "
                    "lora_adapter_metadata.",
                    where=f"{file}#{module.a_key}",
                )
