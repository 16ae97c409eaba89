"""A short, deterministic replay of the fuzzer: every seed, and seeds with some bytes changed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS, run

SEEDS = seeds()

# What readers stumble over: lengths, signs, ends of strings and brackets.
TOKENS = [b"\0", b"\xff", b"\x80", b'"', b"{", b"]", b"-1", b"1e999", b"NaN", b"9" * 30, b"\\ud800", b"\n"]


@st.composite
def mutated(draw: st.DrawFn, start: list[bytes]) -> bytes:
    """A seed in which some spans are cut, copied, overwritten or replaced by a token."""
    content = bytearray(draw(st.sampled_from(start)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        end = min(len(content), at + draw(st.sampled_from([0, 1, 2, 8, 100])))
        content[at:end] = draw(
            st.sampled_from(TOKENS) | st.binary(max_size=8) | st.just(bytes(content[at:end]) * 2)
        )
    return bytes(content)


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed(name: str) -> None:
    for content in SEEDS[name]:
        run(TARGETS[name], content)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_seeds(name: str) -> None:
    @given(content=mutated(SEEDS[name]))
    @settings(max_examples=150, derandomize=True, database=None)
    def check(content: bytes) -> None:
        run(TARGETS[name], content)

    check()
