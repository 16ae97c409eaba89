"""How a Hub's failures are told, without any Hub."""

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from loramend.cli.hub.client import Hub
from loramend.cli.hub.environment import environment
from loramend.contracts.errors import JobError, LoramendError, RequestError


def hub(tmp_path: Path, *, token: str | None = None, attempts: int = 4) -> Hub:
    return Hub(cache_dir=tmp_path, endpoint="http://hub.test", token=token, pause=0, attempts=attempts)


def test_only_the_public_hub_speaks_xet() -> None:
    assert "HF_HUB_DISABLE_XET" not in environment("https://huggingface.co")
    for endpoint in (
        "http://127.0.0.1:8000",
        "https://huggingface.co.evil.test",
        "https://hub.example/huggingface.co",
    ):
        assert environment(endpoint)["HF_HUB_DISABLE_XET"] == "1"


def test_what_passes_is_tried_again_and_what_does_not_is_not(tmp_path: Path) -> None:
    tries: list[HfApi] = []

    def fail(error: Exception) -> Callable[[HfApi], object]:
        def work(api: HfApi) -> object:
            tries.append(api)
            raise error

        return work

    wrapped = LocalEntryNotFoundError("not here")
    wrapped.__cause__ = httpx2.ReadTimeout("slow")
    for error, expected in ((httpx2.ConnectError("no"), 3), (wrapped, 3), (ValueError("not JSON"), 1)):
        tries.clear()
        with pytest.raises(JobError) as caught:
            hub(tmp_path, attempts=3).call("a/b", fail(error))
        assert caught.value.code == "hub_unavailable"
        assert len(tries) == expected
    with pytest.raises(RequestError) as refused:
        hub(tmp_path).call("a/b", fail(HFValidationError("bad")))
    assert refused.value.code == "hub_not_found"
    with pytest.raises(OSError, match="No space"):
        hub(tmp_path).call("a/b", fail(OSError(28, "No space left on device")))


def test_our_own_errors_pass_through(tmp_path: Path) -> None:
    def cancel(api: HfApi) -> None:
        raise JobError("canceled", "Stopped.")

    with pytest.raises(LoramendError) as caught:
        hub(tmp_path).call("a/b", cancel)
    assert caught.value.code == "canceled"


@pytest.mark.parametrize("token", ["hf_secret\n", "hf_secret x", "hf_sécret", "hf_\x00"])
def test_a_token_that_no_header_can_hold_is_refused_untold(tmp_path: Path, token: str) -> None:
    with pytest.raises(RequestError) as caught:
        hub(tmp_path, token=token)
    assert caught.value.code == "hub_forbidden"
    assert token not in str(caught.value)


def test_the_token_is_not_shown(tmp_path: Path) -> None:
    assert "hf_secret" not in repr(hub(tmp_path, token="hf_secret"))


def test_a_token_on_the_machine_is_not_used_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub(tmp_path).api().token is False
