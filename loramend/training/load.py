"""A base model and its tokenizer from a local folder: no network, no code from the folder, no pickle."""

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from loramend.adapter.quote import quote
from loramend.contracts.errors import ReferenceModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Task = Literal["classification", "causal"]
Dtype = Literal["float32", "bfloat16", "float16"]

DTYPES: Mapping[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# A class count that no dimension of a real model has: parameters of this height are the head's.
_PROBE_LABELS = 7919
_SHOWN = 5
_SAFE = {"local_files_only": True, "trust_remote_code": False}


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without its warnings, load report and progress bar."""
    from transformers import utils

    logging: Any = utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def load_model(
    folder: Path, task: Task, tensors: Mapping[str, Tensor], dtype: Dtype
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """The model for the task, on the CPU, in eval mode and frozen, and its tokenizer with a padding token.

    tensors  those that the adapter brings, by parameter name: the number of classes comes from the head among
             them, and what they replace need not be in the folder

    Raises ReferenceModelError `reference_invalid` where the folder cannot be loaded, or lacks weights that
    the adapter does not bring.
    """
    if (folder / "adapter_config.json").exists():
        raise _invalid("This is an adapter's folder: give the base model's.", folder)
    if not (folder / "config.json").is_file():
        raise _invalid(
            "Steps that run the model need its folder with config.json and tokenizer, not its weights alone.",
            folder,
        )
    with quiet(), _reported(folder, "the model"):
        config = _config(folder, task, tensors)
        model, missing = _weights(folder, task, config, dtype)
    lacking = sorted(missing - tensors.keys())
    if lacking:
        raise _invalid(
            f"It has no weights for {', '.join(map(quote, lacking[:_SHOWN]))}, and the adapter brings none. "
            "Give the model the adapter was trained on, whole.",
            folder,
        )
    model.train(False).requires_grad_(False)
    with quiet(), _reported(folder, "its tokenizer"):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, **_SAFE)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a folder without one
        raise _invalid(
            "It holds no tokenizer: save the model's beside it (tokenizer.save_pretrained).", folder
        )
    _set_padding(model, tokenizer, folder)
    _cap_length(model, tokenizer)
    return model, tokenizer


@contextmanager
def _reported(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError, SafetensorError) as error:
        told = quote(str(error).strip().split("\n")[0])
        raise _invalid(
            f"transformers cannot load {what}: {told}. Give a whole folder as save_pretrained writes it, "
            "with safetensors weights and tokenizer files.",
            folder,
        ) from None


def _invalid(detail: str, folder: Path) -> ReferenceModelError:
    return ReferenceModelError("reference_invalid", detail, where=f"base/{quote(folder.name)}")


def _config(folder: Path, task: Task, tensors: Mapping[str, Tensor]) -> "PreTrainedConfig":
    config = _read_config(folder)
    if getattr(config, "quantization_config", None) is not None:
        raise _invalid("The base model is quantised. Give the unquantised model.", folder)
    if task == "classification":
        classes = _classes(folder, tensors)
        if classes is not None and classes != config.num_labels:
            config.num_labels = classes
    return config


def _read_config(folder: Path, **changes: object) -> "PreTrainedConfig":
    from transformers import AutoConfig

    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, **_SAFE, **changes)
    # A config.json may name kernels on the Hub here, which are code.
    config._attn_implementation = None
    config._experts_implementation = None
    return config


def _classes(folder: Path, tensors: Mapping[str, Tensor]) -> int | None:
    """How many classes the head among `tensors` has; None where it is not there."""
    from transformers import AutoModelForSequenceClassification

    auto: Any = AutoModelForSequenceClassification
    config = _read_config(folder, num_labels=_PROBE_LABELS)
    with torch.device("meta"):
        probe: nn.Module = auto.from_config(config, trust_remote_code=False)
    heads = (name for name, weight in probe.named_parameters() if weight.shape[0] == _PROBE_LABELS)
    return next((tensors[name].shape[0] for name in heads if name in tensors), None)


def _weights(
    folder: Path, task: Task, config: "PreTrainedConfig", dtype: Dtype
) -> tuple["PreTrainedModel", Collection[str]]:
    """The model, and the names of the parameters that the folder has no weights for."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    auto: Any = AutoModelForSequenceClassification if task == "classification" else AutoModelForCausalLM
    # Parameters without weights in the folder are drawn at random; the caller's generator is left alone.
    with torch.random.fork_rng(devices=[]):
        model, info = auto.from_pretrained(
            folder,
            config=config,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **_SAFE,
        )
    mismatched = {name for name, *_ in info["mismatched_keys"]}
    return model, {*info["missing_keys"], *mismatched}


def _set_padding(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise _invalid("Its tokenizer has neither a padding nor an end token: set pad_token.", folder)
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        model.config.pad_token_id = tokenizer.pad_token_id


def _cap_length(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Keep the tokenizer's longest text within the positions the model has."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return
    for name, module in model.named_modules():
        # RoBERTa's kind count positions from behind the padding index.
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            positions -= 0 if module.padding_idx is None else module.padding_idx + 1
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
