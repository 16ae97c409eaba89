"""Answers that an adapter gives to prompts which came without one, for its student to learn from.

Source      sequence-level distillation, arXiv 1606.07947, with greedy answers in place of beam search. The
            student learns the teacher's distribution at their tokens, not that the answers are right.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from loramend.contracts.job import Progress
from loramend.data.examples import Example
from loramend.training.encode import encode_prompts
from loramend.training.generate import continuations, in_batches
from loramend.training.host import Host
from loramend.training.mount import Mount


def with_drafts(
    host: Host,
    mount: Mount,
    texts: Sequence[Example],
    *,
    tokens: int,
    max_length: int,
    on_progress: Callable[[Progress], None],
) -> list[Example]:
    """The texts in their order, a causal model's prompts without an answer with the one that `mount` gives
    them. Others, and all of a classifier's, stay as they are.

    tokens       where an answer is cut off; 0 drafts none
    max_length   tokens of a prompt; its beginning is cut off
    on_progress  called before each batch; an exception it raises passes through
    """
    out = list(texts)
    asked = [place for place, text in enumerate(texts) if text.asks] if host.task == "causal" else []
    if not asked or not tokens:
        return out
    items = encode_prompts(host.tokenizer, [texts[place] for place in asked], max_length)
    done = 0
    with host.mounted(mount):
        for rows in in_batches(items):
            on_progress(
                Progress(
                    phase="train", done=done, total=len(asked), unit="examples", detail="answers to prompts"
                )
            )
            new = continuations(host, [items[row] for row in rows], tokens)
            for row, ids in zip(rows, new, strict=True):
                answer = _continuation(host, items[row].ids, ids)
                out[asked[row]] = replace(texts[asked[row]], completion=answer, drafted=True)
            done += len(rows)
    return out


def _continuation(host: Host, prompt: Sequence[int], new: Sequence[int]) -> str:
    """The new tokens as text that follows the prompt's: some tokenizers drop a blank that a text begins with,
    so that they cannot be decoded by themselves."""

    def decoded(ids: Sequence[int]) -> str:
        text = host.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    before, whole = decoded(prompt), decoded([*prompt, *new])
    return whole[len(before) :] if whole.startswith(before) else decoded(new)
