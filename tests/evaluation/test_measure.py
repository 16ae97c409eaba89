"""Answers in batches are what PEFT's model answers to each text alone."""

from typing import Any

import torch
from peft import PeftModel
from transformers import AutoTokenizer

from loramend.data.examples import Example, Message
from loramend.evaluation.measure import answers
from loramend.training.host import open_host
from loramend.training.mount import adapter_mount
from tests.evaluation.models import Toy, classified, completed
from tests.text_models import load_base, toy_examples


def test_classes_are_pefts(bert: Toy) -> None:
    examples = classified(toy_examples(150, seed=3)).examples
    host = open_host(bert.base, bert.adapter)
    counted: list[int] = []
    with host.mounted(adapter_mount(bert.adapter)):
        given = answers(host, examples, max_new_tokens=1, on_answers=counted.append)
    model = PeftModel.from_pretrained(load_base(bert.base), bert.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(bert.base)
    with torch.no_grad():
        expected = [
            int(model(**tokenizer(example.text, return_tensors="pt")).logits.argmax()) for example in examples
        ]
    assert given == expected
    assert sum(counted) == 150
    assert len(counted) > 1


def test_texts_are_pefts(llama: Toy) -> None:
    examples = completed(toy_examples(80, seed=3)).examples
    host = open_host(llama.base, llama.adapter)
    with host.mounted(adapter_mount(llama.adapter)):
        given = answers(host, examples, max_new_tokens=5, on_answers=lambda _: None)
    model: Any = PeftModel.from_pretrained(load_base(llama.base), llama.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(llama.base)
    expected = []
    for example in examples:
        ids = tokenizer(example.text, return_tensors="pt")
        arguments = {**ids, "max_new_tokens": 5, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
        out = model.generate(**arguments)
        new = out[0, ids["input_ids"].shape[1] :]
        expected.append(tokenizer.decode(new, skip_special_tokens=True))
    assert given == expected
    assert len(set(given)) > 1


def test_long_prompts_leave_room_for_the_answer(llama: Toy) -> None:
    host = open_host(llama.base, llama.adapter)
    long = Example("film " * 500, completion="yes")
    chat = Example("", completion="yes", messages=(Message("user", "film " * 500),))
    given = answers(host, [long, chat], max_new_tokens=32, on_answers=lambda _: None)
    assert all(isinstance(text, str) for text in given)
