"""Every failure is one line, an exit code, and no traceback."""

import pytest
import typer

from loramend.cli.errors import CommandError, fails_in_one_line, one_line, printable
from loramend.contracts.errors import AdapterError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            AdapterError("tensor_unpaired", "B has no partner.", where="a.safetensors#q"),
            "loramend: tensor_unpaired: B has no partner. [a.safetensors#q]",
        ),
        (CommandError("output_exists", "not empty"), "loramend: output_exists: not empty"),
        (KeyboardInterrupt(), "loramend: interrupted: stopped before it was done; nothing was written"),
        (MemoryError(), "loramend: out_of_memory: this machine has too little memory for it"),
        (
            OSError(28, "No space left on device", "/out"),
            "loramend: storage_unavailable: No space left on device: /out",
        ),
        (ValueError("odd"), "loramend: internal_error: ValueError: odd (loramend --debug … shows where)"),
    ],
)
def test_the_line(error: BaseException, line: str) -> None:
    assert one_line(error) == line


def test_names_out_of_untrusted_files_can_neither_break_the_line_nor_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed") == "a\\x1b[2Jb c\\u202ed"
    line = one_line(AdapterError("tensor_not_finite", "NaN", where="x\n\x1b]0;title\x07"))
    assert "\n" not in line
    assert line.isprintable()


def test_it_goes_to_stderr_with_exit_code_one(capsys: pytest.CaptureFixture[str]) -> None:
    @fails_in_one_line
    def command() -> None:
        raise AdapterError("adapter_not_found", "None there.")

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "loramend: adapter_not_found: None there.\n")


def test_debug_shows_the_error_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    @fails_in_one_line
    def command() -> None:
        raise ValueError("odd")

    monkeypatch.setenv("LORAMEND_DEBUG", "1")
    with pytest.raises(ValueError, match="odd"):
        command()


@pytest.mark.parametrize("error", [typer.Exit(3), typer.BadParameter("wrong")])
def test_usage_errors_and_exits_pass_through(error: Exception) -> None:
    @fails_in_one_line
    def command() -> None:
        raise error

    with pytest.raises(type(error)):
        command()
