import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from loramend.adapter.limits import Limits
from loramend.adapter.patterns import Patterns, exact_key
from loramend.contracts.errors import AdapterError

NAMES = st.lists(
    st.sampled_from(["model", "layers", "0", "1", "10", "q_proj", "k-proj", "a+b"]), min_size=1, max_size=5
)
PIECES = st.sampled_from(
    [
        "model",
        "layers",
        r"\.",
        ".",
        "0",
        "1",
        "q_proj",
        "k-proj",
        r"a\+b",
        "^",
        ".*",
        "[01]",
        "(q|k)_proj",
        r"\d+",
        "|",
    ]
)
KEYS = st.lists(st.lists(PIECES, min_size=1, max_size=5).map("".join), max_size=5, unique=True)


def is_expression(key: str) -> bool:
    try:
        re.compile(rf"(.*\.)?({key})$")
    except re.error:
        return False
    return True


@given(keys=KEYS, parts=NAMES)
def test_takes_the_key_that_peft_takes(keys: list[str], parts: list[str]) -> None:
    keys = [key for key in keys if is_expression(key)]
    name = ".".join(parts)
    assert Patterns(keys, Limits(), "here").first(name) == (
        found if (found := get_pattern_key(keys, name)) in keys else None
    )


@given(names=st.lists(NAMES.map(".".join), min_size=1, max_size=6, unique=True))
def test_an_exact_key_matches_its_name_alone(names: list[str]) -> None:
    keys = [exact_key(name) for name in names]
    patterns = Patterns(keys, Limits(), "here")
    for name, key in zip(names, keys, strict=True):
        assert patterns.first(name) == key == get_pattern_key(keys, name)
        assert patterns.first(f"x.{name}") is None


@pytest.mark.parametrize("key", ["(", "a)", "*", "[", r"(?P<a>", r"\\\\("])
def test_no_expression_is_refused(key: str) -> None:
    with pytest.raises(AdapterError) as caught:
        Patterns([key], Limits(), "config#/rank_pattern")
    assert caught.value.code == "config_invalid"
    assert caught.value.where == "config#/rank_pattern"


@pytest.mark.parametrize("key", ["(a|aa)+$x", "((((a{1,99}){1,99}){1,99}){1,99})b", "(a|a)" * 90 + "x"])
def test_an_expression_that_takes_forever_is_stopped(key: str) -> None:
    patterns = Patterns([key], Limits(pattern_seconds=0.2), "config#/rank_pattern")
    started = time.monotonic()
    names = ["a" * 200 + "!" + str(index) for index in range(1000)]
    with pytest.raises(AdapterError) as caught:
        list(map(patterns.first, names))
    assert time.monotonic() - started < 3
    assert caught.value.code == "limit_exceeded"


def test_caps() -> None:
    with pytest.raises(AdapterError) as caught:
        Patterns(["a" * 513], Limits(), "x")
    assert caught.value.code == "limit_exceeded"
    with pytest.raises(AdapterError) as caught:
        Patterns(["a", "b"], Limits(max_patterns=1), "x")
    assert caught.value.code == "limit_exceeded"


def test_thousands_of_exact_keys_are_quick() -> None:
    names = [f"model.layers.{index}.self_attn.q_proj" for index in range(5000)]
    patterns = Patterns([exact_key(name) for name in names], Limits(), "x")
    started = time.monotonic()
    assert all(patterns.first(name) == exact_key(name) for name in names)
    assert time.monotonic() - started < 1
