"""Webhooks go to the internet over https, and where the settings say."""

import pytest

from loramend.contracts.errors import RequestError
from service.jobs.targets import check_target


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/", "https://localhost/", "https://LOCALHOST./x", "https://a.localhost", "https://127.0.0.1/",
        "https://127.1", "https://2130706433", "https://0x7f000001:8443/", "https://0177.0.0.1", "https://0/",
        "https://10.1.2.3/", "https://169.254.169.254/latest/meta-data", "https://[::1]/", "https://[fd00::1]:443/",
        "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::a9fe:a9fe]/", "https://127.0.0.1./", "http://1.1.1.1/",
    ],
)  # fmt: skip
def test_private_targets_are_refused_without_a_look_up(url: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_target(url, (), where="/webhook/url")
    assert refused.value.code == "webhook_not_allowed"
    assert refused.value.where == "/webhook/url"
    assert "LORAMEND_WEBHOOK_PRIVATE_HOSTS" in refused.value.detail


@pytest.mark.parametrize(
    "url",
    ["https://example.org", "https://1.1.1.1:8443/x?y=z", "https://[2606:4700::1111]/", "http://inside/",
     "https://127.0.0.1:9/"],
)  # fmt: skip
def test_others_may_be_named(url: str) -> None:
    check_target(url, ("inside", "127.0.0.1"))
