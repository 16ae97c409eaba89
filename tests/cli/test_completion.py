"""Shell completion, as a shell asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

SCRIPT = Path(sys.executable).with_name("loramend")


def offered(line: str) -> list[str]:
    """What bash is told to offer at the end of the line."""
    words = line.split(" ")
    env = {"_LORAMEND_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [SCRIPT], env=os.environ | env, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.split()


def test_commands_options_and_steps_are_offered() -> None:
    assert {"submit", "status", "serve"} <= set(offered("loramend s"))
    assert "--model-root" in offered("loramend serve --mo")
    assert offered("loramend repair x --step resc") == ["rescale"]
    assert offered("loramend list --status que") == ["queued"]


def test_each_shells_script_is_shown() -> None:
    for shell in ("bash", "zsh", "fish"):
        env = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        done = subprocess.run(
            [SCRIPT, "--show-completion", shell],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "_LORAMEND_COMPLETE" in done.stdout
