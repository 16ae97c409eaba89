"""Settings from the environment."""

import os
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import ValidationError

from service.jobs.records import new_job_id
from service.jobs.settings import JobsSettings
from service.settings import ServiceSettings
from worker.settings import WorkerSettings


@pytest.mark.parametrize("settings", [JobsSettings, ServiceSettings, WorkerSettings])
@pytest.mark.parametrize("text", [f"/a{os.pathsep}/b", '["/a", "/b"]'])
def test_model_roots(settings: type[JobsSettings], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAMEND_MODEL_ROOTS", text)
    assert settings().model_roots == (Path("/a"), Path("/b"))


@pytest.mark.parametrize("text", ["a.internal, B.", '["a.internal", "b"]'])
def test_hosts_that_a_hub_may_lead_to(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAMEND_HUB_PRIVATE_HOSTS", text)
    assert WorkerSettings().hub_private_hosts == ("a.internal", "b")


@pytest.mark.parametrize("settings", [ServiceSettings, WorkerSettings])
def test_hosts_that_webhooks_may_go_to(settings: type[JobsSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAMEND_WEBHOOK_PRIVATE_HOSTS", "Ci.Internal., 127.0.0.1")
    assert settings().webhook_private_hosts == ("ci.internal", "127.0.0.1")
    monkeypatch.setenv("LORAMEND_WEBHOOK_PRIVATE_HOSTS", "")
    assert settings().webhook_private_hosts == ()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    key = Fernet.generate_key().decode()
    monkeypatch.setenv("LORAMEND_BROKER_URL", "redis://:hush@host/0")
    monkeypatch.setenv("LORAMEND_STORAGE_OPTIONS", '{"secret": "hush"}')
    monkeypatch.setenv("LORAMEND_SECRET_KEY", key)
    settings = JobsSettings()
    assert settings.storage_options == {"secret": "hush"}
    assert "hush" not in repr(settings)
    assert key not in repr(settings)


def test_a_key_that_encrypts_nothing_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAMEND_SECRET_KEY", "hush")
    with pytest.raises(ValidationError, match="Fernet key") as refused:
        JobsSettings()
    assert "hush" not in str(refused.value)


def test_job_ids_sort_by_time_and_are_uuids_of_version_7() -> None:
    ids = [new_job_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert [one[:12] for one in ids] == sorted(one[:12] for one in ids)
    assert all(len(one) == 32 and one[12] == "7" and one[16] in "89ab" for one in ids)
