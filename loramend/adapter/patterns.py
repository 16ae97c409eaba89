"""rank_pattern and alpha_pattern: users' regular expressions, matched as PEFT matches them, within limits.

PEFT takes the first key for which `re.match(rf"(.*\\.)?({key})$", name)` holds (get_pattern_key in
peft.utils.other).
"""

import math
import re
import time
import warnings
from collections.abc import Iterable

import regex

from loramend.adapter.limits import Limits
from loramend.adapter.quote import quote
from loramend.contracts.errors import AdapterError

_SPECIAL = frozenset(".^$*+?{}[]|()")
_BRANCHES = re.compile(r"[*+?{|]")
_COUNTS = re.compile(r"\{([0-9]{1,20})")
_SPACE = re.compile(r"\s")
_MAX_EXPANDED = 20_000


class Patterns:
    """Keys in file order; `where` is the pattern's place in the config.

    Raises AdapterError `limit_exceeded` for a key that is too long, repeats too much or takes too long,
    `config_invalid` for one that is no regular expression.
    """

    def __init__(self, keys: Iterable[str], limits: Limits, where: str) -> None:
        self._where = where
        self._seconds = limits.pattern_seconds
        self._left = limits.pattern_seconds
        self._exact: dict[str, int] = {}
        self._keys = list(keys)
        self._rest: list[tuple[int, re.Pattern[str] | regex.Pattern[str]]] = []
        if len(self._keys) > limits.max_patterns:
            raise self._too_much(f"has {len(self._keys)} keys; at most {limits.max_patterns} are taken")
        started = time.monotonic()
        for index, key in enumerate(self._keys):
            if len(key) > limits.max_pattern_length:
                raise self._too_much(f"has a key of more than {limits.max_pattern_length} characters")
            name = _anchored_literal(key)
            if name is not None:
                self._exact.setdefault(name, index)
            else:
                self._rest.append((index, self._compile(key)))
                self._left = self._seconds - (time.monotonic() - started)
                if self._left <= 0:
                    raise self._too_slow()

    def first(self, name: str) -> str | None:
        """The first key that matches the module's name."""
        exact = self._exact.get(name)
        started = time.monotonic()
        try:
            for index, pattern in self._rest:
                if exact is not None and index > exact:
                    break
                left = self._left - (time.monotonic() - started)
                if left <= 0:
                    raise TimeoutError
                if isinstance(pattern, re.Pattern):
                    found = pattern.match(name) is not None
                else:
                    found = pattern.match(name, timeout=left) is not None
                if found:
                    return self._keys[index]
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            self._left -= time.monotonic() - started
        return None if exact is None else self._keys[exact]

    def _compile(self, key: str) -> "re.Pattern[str] | regex.Pattern[str]":
        # `regex` writes counted repetitions out: (?:(?:a{1000}){1000}){1000} would take all memory there is.
        counts = [int(count) for count in _COUNTS.findall(_SPACE.sub("", key))]
        if len(key) * math.prod(max(1, count) for count in counts) > _MAX_EXPANDED:
            raise self._too_much(f"{quote(key)} repeats too much; write its keys as plain module names")
        expression = rf"(.*\.)?({key})$"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compiled = re.compile(expression)
                # Repetition and alternation can take exponential time: `regex` has a time limit. All else is
                # left to `re`, as in PEFT.
                return regex.compile(expression) if _BRANCHES.search(key) else compiled
        except (re.error, regex.error, RecursionError, OverflowError) as error:
            raise AdapterError(
                "config_invalid",
                f"The key {quote(key)} is not a regular expression: {quote(str(error))}.",
                where=self._where,
            ) from None

    def _too_slow(self) -> AdapterError:
        return self._too_much(
            f"takes longer than {self._seconds} s to match; write its keys as plain module names"
        )

    def _too_much(self, what: str) -> AdapterError:
        return AdapterError("limit_exceeded", f"The pattern {what}.", where=self._where)


def exact_key(name: str) -> str:
    """A key that matches this module's name and no other."""
    return f"^{re.escape(name)}"


def _anchored_literal(key: str) -> str | None:
    """The one name that `^` and escaped text match; None for any other expression."""
    if not key.startswith("^"):
        return None
    plain: list[str] = []
    characters = iter(key[1:])
    for character in characters:
        if character == "\\":
            character = next(characters, "")
            if not character or character.isalnum() or character == "_":
                return None
        elif character in _SPECIAL:
            return None
        plain.append(character)
    return "".join(plain)
