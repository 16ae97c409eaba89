"""The overhead benchmark runs at a small size, through the library's own training."""

import re
from pathlib import Path

import pytest

from benchmarks.rora_overhead import PARTS, main
from tests.text_models import bert_folder


@pytest.mark.e2e
def test_times_every_part_in_every_repeat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = bert_folder(tmp_path)
    main(["--model", str(model), "--repeats", "2", "--steps", "6", "--batch", "4", "--words", "8"])
    told = capsys.readouterr().out
    for name in ("peft", *PARTS):
        row = re.search(rf"^{name} +(\S+) +(\S+) +(\S+) to (\S+) ", told, re.MULTILINE)
        assert row, name
        milliseconds, ratio, low, high = map(float, row.groups())
        assert milliseconds > 0
        assert low <= ratio <= high
    assert re.search(r"^both/peft: \d+\.\d\d \(limit 1\.1\)$", told, re.MULTILINE)
