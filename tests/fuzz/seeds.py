"""Where a fuzzer starts: the hostile corpus, sorted by the reader it is for, and files of text."""

from tests.hostile.case import CONFIG, WEIGHTS, Case, good_config, good_weights
from tests.hostile.corpus import corpus

_MAX_SEED = 64 * 1024

_TEXT = (
    b'{"text": "good", "label": 1}\n{"text": "bad", "label": 0}\n',
    b'{"prompt": "a", "completion": "b"}\n',
    b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
    b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "\\ud83d\\ude00"}',
    b'{"text": "a", "label": "x", "label": "y"}\n',
    b'{"text": "\\ud800"}\n',
    b'{"text": "a", "label": NaN}\n{"text": 1e999}\n',
    b'{"text": ' + b"[" * 2000,
    b'{"label": ' + b"9" * 5000 + b"}",
    b'[{"text": "a"}]',
    b'{"text": "a\\u0000"}\n\0',
)


def seeds() -> dict[str, list[bytes]]:
    """By target. Large cases are left out: a fuzzer changes few bytes of one."""
    found: dict[str, list[bytes]] = {
        "archive": [],
        "header": [good_weights()],
        "config": [good_config()],
        "data": list(_TEXT),
    }
    for case in corpus():
        for target, content in _contents(case):
            if len(content) <= _MAX_SEED:
                found[target].append(content)
    return {target: list(dict.fromkeys(contents)) for target, contents in found.items()}


def _contents(case: Case) -> list[tuple[str, bytes]]:
    targets = {"upload": "archive", WEIGHTS: "header", CONFIG: "config"}
    return [
        (targets[name], content)
        for name, content in case.files.items()
        if name in targets and isinstance(content, bytes)
    ]
