"""Coverage-guided fuzzing of one reader: `python -m tests.fuzz archive [folder] [libFuzzer options]`.

Needs the extra `fuzz` (atheris). The folder keeps the inputs that reached new code, and starts as the seeds;
an input that lets another exception than ours escape is written beside it and ends the run.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["loramend", "zipfile", "tarfile", "gzip", "json"]):
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS, run


def main(name: str, options: list[str]) -> None:
    folder = Path(options.pop(0) if options and not options[0].startswith("-") else tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    for index, content in enumerate(seeds()[name]):
        (folder / f"seed-{index}").write_bytes(content)
    target = TARGETS[name]
    atheris.Setup([sys.argv[0], str(folder), *options], lambda content: run(target, content))
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz ({'|'.join(TARGETS)}) [folder] [-max_total_time=60 ...]")
    main(sys.argv[1], sys.argv[2:])
