"""What loramend does with each feature of an adapter: handled, kept, or refused by name with what to do.

Every field of peft 0.21's LoraConfig stands in exactly one of the tables below; a test compares them with the
installed peft, so that a new field cannot slip through.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError, ErrorCode

_CONVERT = (
    "PEFT's convert_to_lora (or save_as_lora, to a folder) turns a loaded adapter into plain LoRA where PEFT "
    "can; send the result"
)

HANDLED = frozenset(
    {
        "peft_type",
        "r",
        "lora_alpha",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "fan_in_fan_out",
        "bias",
        "lora_bias",
        "modules_to_save",
        "trainable_token_indices",
        "target_modules",
        "target_parameters",
        "init_lora_weights",
        "layer_replication",
        "ensure_weight_tying",
    }
)

# Read by PEFT while it builds or trains a model, or bookkeeping: a saved adapter's ΔW does not depend on
# them.
KEPT = frozenset(
    {
        "base_model_name_or_path",
        "revision",
        "task_type",
        "inference_mode",
        "auto_mapping",
        "peft_version",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "lora_dropout",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "megatron_core",
        "qalora_group_size",
        "runtime_config",
        # Written by older or other tools beside PEFT's own.
        "merge_weights",
        "lora_dtype",
    }
)

# Refused where truthy: they change ΔW, or the model around it, in a way that s·BA does not show.
REFUSED: Mapping[str, str] = {
    "use_dora": "DoRA rescales W + ΔW by a learned magnitude, so s·BA is not the update. Merge the adapter "
    "into its base (merge_and_unload) and extract plain LoRA from the difference, or train without use_dora",
    "alora_invocation_tokens": f"Activated LoRA (alora) acts only after its invocation tokens. {_CONVERT}",
    "arrow_config": f"Arrow routes between several adapters. Send the one that matters; {_CONVERT}",
    "use_bdlora": f"BD-LoRA keeps factors block-diagonal, which a repair would not. {_CONVERT}",
    "kasa_config": "KaSA truncates the base weight and puts a diagonal between A and B; not even PEFT's "
    "convert_to_lora accepts it. Train plain LoRA instead",
    "monteclora_config": f"MonteCLoRA samples its weights at every pass. {_CONVERT}",
    "velora_config": f"VeLoRA is a variant of the layer that compresses activations. {_CONVERT}",
    "use_qalora": f"QALoRA pools inputs by groups, so A does not have the weight's width. {_CONVERT}",
    "megatron_config": f"Megatron's parallel layers shard A and B over processes. {_CONVERT}",
}

_BASE_CHANGING_INITS: Mapping[str, str] = {
    "pissa": "PiSSA",
    "olora": "OLoRA",
    "corda": "CorDA",
    "lora_ga": "LoRA-GA",
}
_PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "true", "false"})

_SUBSPACE_BLOCKERS: Mapping[str, str] = {
    "layer_replication": "layer_replication stacks copies of the base model's layers, so a layer's number in "
    "the adapter is not its number in the base checkpoint",
    "grouped_conv": "PEFT's update of a grouped convolution mixes channels across groups, so no base weight "
    "has its shape",
    "parameter_order": "target_parameters names several parameters of one module, and the file does not say "
    "which is which",
}

# Marks in the names of tensors that plain LoRA layers do not have.
_FOREIGN: tuple[tuple[str, ErrorCode, str], ...] = (
    ("lora_magnitude_vector", "config_unsupported", REFUSED["use_dora"]),
    ("dora_scale", "config_unsupported", REFUSED["use_dora"]),
    ("lora_diag", "config_unsupported", REFUSED["kasa_config"]),
    ("lora_mid", "config_unsupported", "LoCon's CP decomposition has a third factor. Save it without CP"),
    ("hada_", "peft_type_unsupported", f"It is a LoHa adapter. {_CONVERT}"),
    ("lokr_", "peft_type_unsupported", f"It is a LoKr adapter. {_CONVERT}"),
    ("oft_", "peft_type_unsupported", f"It is an OFT adapter. {_CONVERT}"),
    ("on_input", "peft_type_unsupported", "It is an (IA)³ adapter; only LoRA adapters are repaired"),
    ("lora_", "config_unsupported", f"It belongs to a variant of LoRA that is not handled. {_CONVERT}"),
)


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Refuses what the tables refuse.

    Raises AdapterError `peft_type_unsupported`, `config_unsupported` or `config_invalid`; `where` is the
    config's file.
    """
    _check_type(config, f"{where}#/peft_type")
    check_keys(config, where)


def check_keys(config: Mapping[str, Any], where: str) -> None:
    """check_config without peft_type, which the LoRA settings inside a diffusers file need not have."""
    for key, why in REFUSED.items():
        if config.get(key):
            raise _unsupported(f"{key} is set. {why}", f"{where}#/{key}")
    _check_init(config.get("init_lora_weights", True), f"{where}#/init_lora_weights")
    if config.get("bias", "none") not in ("none", "all", "lora_only"):
        raise AdapterError(
            "config_invalid", "bias must be 'none', 'all' or 'lora_only'.", where=f"{where}#/bias"
        )
    for key, value in config.items():
        if value and key not in HANDLED and key not in KEPT:
            raise _unsupported(
                f"The key {quote(key)} is set and not known, so it may change what the adapter does. If it "
                "does not, remove it from the config",
                f"{where}#/{quote(key)}",
            )


def check_tied_embeddings(config: Mapping[str, Any], has_embeddings: bool, where: str) -> None:
    """Refuses ensure_weight_tying together with a LoRA embedding: PEFT would make the input and the output
    embedding share factors that are stored, and repaired, apart."""
    if config.get("ensure_weight_tying") and has_embeddings:
        raise _unsupported(
            "ensure_weight_tying is set and an embedding has LoRA factors, which the output layer then "
            "shares. Save the adapter with ensure_weight_tying=False",
            f"{where}#/ensure_weight_tying",
        )


def is_foreign(name: str) -> bool:
    """Whether a tensor's name marks it as part of some adapter that plain LoRA has no such tensor in."""
    return any(segment.startswith(mark) for segment in name.split(".") for mark, _, _ in _FOREIGN)


def foreign_tensor(name: str, place: str) -> AdapterError:
    """The error for such a tensor."""
    code, why = next((code, why) for mark, code, why in _FOREIGN if mark in name)
    return AdapterError(code, f"Tensor {quote(name)} is not part of plain LoRA. {why}.", where=place)


def subspace_blockers(features: Iterable[str]) -> list[str]:
    """Why methods that read base or aligned weights cannot run on an adapter with these features
    (Adapter.features or AdapterHeader.features); empty where they can."""
    return [_SUBSPACE_BLOCKERS[feature] for feature in features if feature in _SUBSPACE_BLOCKERS]


def _check_type(config: Mapping[str, Any], place: str) -> None:
    kind = config.get("peft_type")
    if not isinstance(kind, str) or not kind:
        raise AdapterError(
            "config_invalid", "peft_type is missing; for a LoRA adapter it is 'LORA'.", where=place
        )
    if kind != "LORA":
        raise AdapterError(
            "peft_type_unsupported",
            f"The adapter is of type {quote(kind)}; only LORA is repaired. {_CONVERT}.",
            where=place,
        )


def _check_init(init: object, place: str) -> None:
    if init is None or isinstance(init, bool):
        return
    name = init.lower() if isinstance(init, str) else ""
    for prefix, title in _BASE_CHANGING_INITS.items():
        if name.startswith(prefix):
            raise _unsupported(
                f"{title} initialisation changed the base weights, and the initial adapter is not here, so "
                "this is no update of the base model. Save it with save_pretrained(folder, "
                "path_initial_model_for_weight_conversion=<the initial adapter's folder>) and send that",
                place,
            )
    if name == "loftq":
        raise _unsupported(
            "LoftQ replaced the base weights by quantised ones, and the adapter holds part of what that "
            "lost, so it is no update of the base model. Merge it and extract plain LoRA from the difference",
            place,
        )
    if name not in _PLAIN_INITS:
        raise _unsupported(
            f"init_lora_weights {quote(str(init))} is not known; it may have changed the base weights. If it "
            "did not, set it to true",
            place,
        )


def _unsupported(why: str, where: str) -> AdapterError:
    return AdapterError("config_unsupported", f"{why}.", where=where)
