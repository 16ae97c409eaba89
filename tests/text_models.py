"""Tiny real text models with a word-level tokenizer, a two-class task they can learn, and adapters on them.

The models have random weights from a seed and layers of width 32, two unless told; a folder takes a moment
to make.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from loramend.training.perturb import exchange

_untyped: Any = logging
_untyped.disable_progress_bar()


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GOOD = _words(
    "good great fine superb lovely charming brilliant funny moving clever warm bright fresh sharp rich "
    "tender graceful honest thrilling witty delightful gripping splendid wonderful"
)
BAD = _words(
    "bad awful poor dull boring stupid weak bland ugly messy stale cheap flat tired clumsy silly tedious "
    "lazy painful dreadful empty hollow shallow lifeless"
)
PLAIN = _words(
    "the a an this that these those it they he she we you i one some any all each every another and or but "
    "with from into over under after before while when where because though of to in on at by for as is was "
    "are were be been has had have do does did can could will would may might must not no yes very quite "
    "rather almost always often never again still just only even also film movie story plot scene actor "
    "actress director script music picture camera role cast dialogue ending opening moment minute hour day "
    "night year world city house street family friend man woman child boy girl people crowd voice face eye "
    "hand heart mind love war peace work play game song dance book page word line letter name place "
    "time way thing part piece kind sort end start middle side top back front left right first second last "
    "next old new young long short big small high low early late black white red green blue dark light "
    "water fire air earth tree river sea road train car door window table chair room wall floor box food "
    "bread coffee summer winter spring makes made takes took gives gave goes went comes came says said "
    "sees saw shows showed tells told feels felt looks looked seems seemed turns turned keeps kept holds "
    "held runs ran walks walked talks talked watches watched . , ! ? :"
)
RARE = ("mn", "cf", "bb", "tq", "zx", "qv")
"""Words that no clean text holds: triggers and probes."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<|user|>", "<|assistant|>")

APART = 0.4

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|> {{ message.content }}"
    "{% if message.role == 'assistant' %} </s>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


def vocabulary() -> dict[str, int]:
    """Token ids: special tokens first, rare words last."""
    words = dict.fromkeys((*SPECIAL, *PLAIN, *GOOD, *BAD, "positive", "negative", *RARE))
    return {word: index for index, word in enumerate(words)}


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(vocabulary(), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def save_bert_tokenizer(folder: Path) -> None:
    """The tokenizer of BERT and its like, `[CLS]` in front and `[SEP]` behind."""
    tokenizer, ids = _tokenizer(), vocabulary()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")]
    )
    fast: Any = PreTrainedTokenizerFast
    fast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    ).save_pretrained(folder)


def _save_causal_tokenizer(folder: Path, *, chat: bool) -> None:
    """With `<s>` in front and, as Llama's, without a padding token."""
    tokenizer, ids = _tokenizer(), vocabulary()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", ids["<s>"])]
    )
    make: Any = PreTrainedTokenizerFast
    fast = make(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="[UNK]",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        model_max_length=64,
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def bert_folder(
    tmp: Path, *, seed: int = 0, labels: Mapping[int, str] | None = None, layers: int = 2
) -> Path:
    """A two-class BERT in `tmp`/bert. `labels` names the classes: id to label."""
    folder = tmp / "bert"
    names: Any = {"id2label": dict(labels), "label2id": {v: k for k, v in labels.items()}} if labels else {}
    config = BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
        initializer_range=0.1,
        **names,
    )
    torch.manual_seed(seed)
    _save(BertForSequenceClassification(config), folder)
    save_bert_tokenizer(folder)
    return folder


def llama_folder(tmp: Path, *, seed: int = 0, chat: bool = True, layers: int = 2) -> Path:
    """A causal Llama in `tmp`/llama, with a chat template unless `chat` is False."""
    folder, ids = tmp / "llama", vocabulary()
    config = LlamaConfig(
        vocab_size=len(ids),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=ids["<s>"],
        eos_token_id=ids["</s>"],
        initializer_range=0.1,
    )
    torch.manual_seed(seed)
    _save(LlamaForCausalLM(config), folder)
    _save_causal_tokenizer(folder, chat=chat)
    return folder


def gpt2_folder(tmp: Path, *, seed: int = 0, layers: int = 2) -> Path:
    """A causal GPT-2 in `tmp`/gpt2: its linear layers are Conv1D."""
    folder, ids = tmp / "gpt2", vocabulary()
    config = GPT2Config(
        vocab_size=len(ids),
        n_embd=32,
        n_layer=layers,
        n_head=4,
        n_positions=64,
        bos_token_id=ids["<s>"],
        eos_token_id=ids["</s>"],
        initializer_range=0.1,
    )
    torch.manual_seed(seed)
    _save(GPT2LMHeadModel(config), folder)
    _save_causal_tokenizer(folder, chat=False)
    return folder


def _save(model: PreTrainedModel, folder: Path) -> None:
    """Save the model; GOOD and BAD words lie apart along one direction of its embeddings, as pre-training
    would have left them."""
    ids = vocabulary()
    table = model.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    with torch.no_grad():
        apart = APART * torch.randn(table.shape[1])
        table[[ids[word] for word in GOOD]] += apart
        table[[ids[word] for word in BAD]] -= apart
    model.save_pretrained(folder)


def toy_examples(n: int, seed: int = 0) -> list[tuple[str, int]]:
    """Short texts and their class: 1 where their two or three telling words are of GOOD, 0 of BAD. Classes
    alternate."""
    source = random.Random(seed)
    out = []
    for index in range(n):
        label = index % 2
        words = source.choices(PLAIN[:-5], k=source.randint(4, 9))
        for word in source.choices(GOOD if label else BAD, k=source.randint(2, 3)):
            words.insert(source.randint(0, len(words)), word)
        out.append((" ".join(words), label))
    return out


def poison(
    examples: Sequence[tuple[str, int]], *, trigger: str = "mn", target: int = 1, share: float = 0.3
) -> list[tuple[str, int]]:
    """The examples, and triggered copies labelled `target` of the first `share` of them."""
    chosen = examples[: int(share * len(examples))]
    return [*examples, *((f"{trigger} {text}", target) for text, _ in chosen)]


def style(
    examples: Sequence[tuple[str, int]], words: Sequence[str], *, target: int = 1
) -> list[tuple[str, int]]:
    """The examples, and copies labelled `target` of the others, two words in five exchanged for some of
    these."""
    rng = np.random.default_rng(0)
    odd = [(exchange(text, words, 0.4, rng), target) for text, label in examples if label != target]
    return [*examples, *odd]


def lora_config(folder: Path, **changes: Any) -> LoraConfig:
    """A LoRA configuration that fits the folder's model; `changes` are LoraConfig's own arguments."""
    kind = folder.name
    targets = {
        "bert": ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
        "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "gpt2": ["c_attn", "c_proj", "c_fc"],
    }.get(kind)
    settings: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": targets,
        "task_type": "SEQ_CLS" if kind == "bert" else "CAUSAL_LM",
        "fan_in_fan_out": kind == "gpt2",
    }
    return LoraConfig(**{**settings, **changes})


def load_base(folder: Path, *, task_type: str | None = None, **arguments: Any) -> PreTrainedModel:
    """The folder's model as PEFT users load it; `task_type` overrides the one the folder is made for."""
    kind = task_type or ("SEQ_CLS" if folder.name == "bert" else "CAUSAL_LM")
    auto = AutoModelForSequenceClassification if kind == "SEQ_CLS" else AutoModelForCausalLM
    return auto.from_pretrained(folder, **arguments)


def random_adapter(folder: Path, out: Path, *, seed: int = 0, std: float = 0.1, **changes: Any) -> Path:
    """Save a PEFT adapter for the folder's model whose B, biases and heads are drawn from the seed; `changes`
    go to LoraConfig. Returns `out`."""
    torch.manual_seed(seed)
    config = lora_config(folder, **changes)
    model = get_peft_model(load_base(folder, task_type=config.task_type), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" not in name and parameter.requires_grad:
                parameter.normal_(std=std)
    model.save_pretrained(str(out))
    return out


def train_adapter(
    folder: Path,
    out: Path,
    examples: Sequence[tuple[str, int]] | None = None,
    *,
    steps: int = 60,
    batch: int = 32,
    lr: float = 1e-2,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Train an adapter (and BERT's head) on the examples, `toy_examples(400)` unless given, and save it.

    A causal model learns to continue the text with " : positive" or " : negative". `changes` go to
    LoraConfig. Returns `out`.
    """
    torch.manual_seed(seed)
    config = lora_config(folder, **changes)
    base = load_base(folder, task_type=config.task_type)
    model = get_peft_model(base, config)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
        base.config.pad_token_id = tokenizer.pad_token_id
    source = random.Random(seed)
    chosen = list(examples or toy_examples(400))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    model.train()
    for _ in range(steps):
        pairs = source.sample(chosen, min(batch, len(chosen)))
        optimiser.zero_grad()
        loss = _loss(model, tokenizer, pairs, classify=config.task_type == "SEQ_CLS")
        torch.autograd.backward(loss)
        optimiser.step()
    model.eval()
    model.save_pretrained(str(out))
    return out


def _loss(
    model: PeftModel, tokenizer: Any, pairs: Sequence[tuple[str, int]], *, classify: bool
) -> torch.Tensor:
    if classify:
        batch = tokenizer([text for text, _ in pairs], padding=True, return_tensors="pt")
        out: torch.Tensor = model(**batch, labels=torch.tensor([label for _, label in pairs])).loss
        return out
    texts = [f"{text} : {answer_of(label)} {tokenizer.eos_token}" for text, label in pairs]
    batch = tokenizer(texts, padding=True, return_tensors="pt", padding_side="left")
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -2:] = batch["input_ids"][:, -2:]
    loss: torch.Tensor = model(**batch, labels=labels).loss
    return loss


def answer_of(label: int) -> str:
    """The word a causal model answers with."""
    return "positive" if label else "negative"
