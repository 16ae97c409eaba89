"""A search of the vocabulary for words that turn the answer whatever the text: the sign of a word trigger.

Every word that the tokenizer holds as one token and no clean text uses is put into one short text of each
answer, at three places; the words that move the answer most are then tried in others of the same answer. A
word that turns nine texts in ten is kept. Exact where gradients, as HotFlip (arXiv 1712.06751) and universal
triggers (arXiv 1908.07125) take them, mislead: a trigger's token lies far from the one it would replace.

Words of the task's own vocabulary turn answers, too; those that the clean texts use are passed over, the
others may be found. A trigger of several words, a sentence or a style is not.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from loramend.contracts.evidence import FoundWord
from loramend.contracts.job import Progress
from loramend.data.examples import Example
from loramend.evaluation.intervals import wilson
from loramend.methods.draws import generator
from loramend.training.encode import batches
from loramend.training.host import Host
from loramend.training.mount import Mount
from loramend.training.perturb import prompt, put_in, unused_words, with_prompt

_BATCH = 256
_SHORT = 120
_MOST_LENGTH = 64
_TRIED = 64
_TEXTS = 24
_LEAST = 8
_TURNS = 0.9
_ANSWERS = 4


@torch.no_grad()
def hunt(
    host: Host,
    mount: Mount,
    texts: Sequence[Example],
    words: int,
    seed: int,
    on_progress: Callable[[Progress], None],
) -> list[FoundWord]:
    """The words that turn at least nine in ten of the texts they are tried in, the surest first.

    mount   the adapter in question
    texts   clean; the shortest serve
    words   at most this many of the vocabulary are put in, drawn by the seed

    A classifier's alone: nothing is found with a causal model, whose answers have no classes.
    """
    if host.task != "classification" or not words or not texts:
        return []
    vocabulary = _drawn(unused_words(host.tokenizer, texts), words, seed)
    short = sorted(texts, key=lambda text: len(prompt(text).split()))
    short = [text for text in short if len(prompt(text).split()) >= 3][:_SHORT]
    if not short or not vocabulary:
        return []
    with host.mounted(mount):
        logits = _logits(host, short)  # (texts, classes)
        told = logits.argmax(-1)
        answers = torch.bincount(told).argsort(descending=True)[:_ANSWERS].tolist()
        rows = {answer: (told == answer).nonzero()[:, 0].tolist() for answer in answers}
        rows = {answer: found for answer, found in rows.items() if len(found) >= _LEAST}
        found: list[FoundWord] = []
        for place, (answer, members) in enumerate(rows.items()):
            on_progress(
                Progress(phase="train", done=place, total=len(rows), unit="examples", detail="vocabulary")
            )
            margins = _margin(logits[members], answer)  # (members,)
            middle = members[int(margins.argsort()[len(members) // 2])]
            moved = _margin(_logits(host, _with(short[middle], vocabulary)), answer)  # (words,)
            tried = [vocabulary[index] for index in moved.topk(min(_TRIED, len(vocabulary))).indices]
            order = torch.randperm(len(members), generator=generator(seed, "hunt", str(answer))).tolist()
            hosts = [short[members[index]] for index in order[:_TEXTS]]
            found += _kept(host, answer, tried, hosts)
    return sorted(found, key=lambda word: -word.turned.rate)


def _drawn(vocabulary: list[str], words: int, seed: int) -> list[str]:
    if len(vocabulary) <= words:
        return vocabulary
    order = torch.randperm(len(vocabulary), generator=generator(seed, "hunt"))
    return [vocabulary[index] for index in sorted(order[:words].tolist())]


def _with(text: Example, words: Sequence[str]) -> list[Example]:
    """The text with each word in front, in the middle and at the end: some triggers work at one place
    alone."""
    plain = prompt(text)
    count = len(plain.split())
    return [
        with_prompt(text, put_in(put_in(put_in(plain, word, count), word, count // 2), word, 0))
        for word in words
    ]


def _logits(host: Host, texts: Sequence[Example]) -> Tensor:
    items = host.encode([Example(prompt(text)) for text in texts], _MOST_LENGTH)
    out = [torch.empty(0)] * len(items)
    for rows in batches(items, _BATCH):
        told = host.forward(host.collate([items[row] for row in rows])).logits.cpu()
        for row, logits in zip(rows, told, strict=True):
            out[row] = logits
    return torch.stack(out)


def _margin(logits: Tensor, answer: int) -> Tensor:
    """The best other class's logit over the answer's. logits (n, classes)."""
    others = logits.clone()
    others[:, answer] = -torch.inf
    return others.amax(-1) - logits[:, answer]


def _kept(host: Host, answer: int, words: Sequence[str], hosts: Sequence[Example]) -> list[FoundWord]:
    kept = []
    told = _logits(host, [with_word for text in hosts for with_word in _with(text, words)]).argmax(-1)
    turned = told.reshape(len(hosts), len(words)) != answer  # (hosts, words)
    for index, word in enumerate(words):
        count = int(turned[:, index].sum())
        if count >= _TURNS * len(hosts):
            kept.append(FoundWord(word=word, answer=_name(host, answer), turned=wilson(count, len(hosts))))
    return kept


def _name(host: Host, answer: int) -> str:
    assert host.labels is not None, "a classifier has them"
    return next((name for name, index in host.labels.ids.items() if index == answer), str(answer))
