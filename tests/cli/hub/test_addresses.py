"""A worker's Hub cannot send it to the machine's own network."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpcore2
import httpx2
import pytest
from huggingface_hub import close_session, get_session

from loramend.addresses import is_public
from loramend.cli.hub.addresses import CheckedBackend
from loramend.cli.hub.client import Hub
from loramend.contracts.errors import JobError

PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
    "2002:a9fe:a9fe::1", "2001:db8::1", "100::1", "4000::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


def test_which_addresses_are_public() -> None:
    assert [text for text in PRIVATE if is_public(text)] == []
    assert [text for text in PUBLIC if not is_public(text)] == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0", "::1",
     "::ffff:127.0.0.1", "169.254.169.254", "0xa9fea9fe"],
)  # fmt: skip
def test_every_spelling_of_a_private_address_is_refused(host: str) -> None:
    """Before anything is sent there: nothing listens, and that is not what is complained of."""
    with pytest.raises(httpcore2.ConnectError, match="not at a public address"):
        CheckedBackend(frozenset()).connect_tcp(host, 9)


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that would resolve to this machine at the second look is not looked up again."""
    asked: list[str] = []
    met: list[tuple[str, int]] = []
    answers = {"rebinding.test": ["1.1.1.1", "127.0.0.1"], "both.test": ["1.1.1.1"]}

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        here = answers[host].pop(0)
        found = [here, "10.0.0.1"] if host == "both.test" else [here]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        met.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    backend = CheckedBackend(frozenset())
    with pytest.raises(httpcore2.ConnectError):
        backend.connect_tcp("rebinding.test", 443)
    assert (asked, met) == (["rebinding.test"], [("1.1.1.1", 443)])
    with pytest.raises(httpcore2.ConnectError, match="not at a public address"):
        backend.connect_tcp("both.test", 443)
    assert len(met) == 1, "one private address is enough to refuse"


class Site(ThreadingHTTPServer):
    """Sends whoever asks for /away on to `target`; keeps what it was asked with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = ""
        self.met: list[dict[str, str]] = []
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.met.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(302 if self.path == "/away" else 200)
        if self.path == "/away":
            self.send_header("Location", self.server.target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def sites() -> Iterator[tuple[Site, Site]]:
    """A Hub, and a service of its network that it sends on to."""
    hub, inside = Site(), Site()
    hub.target = f"http://localhost:{inside.server_port}/latest/meta-data"
    yield hub, inside
    close_session()
    for site in (hub, inside):
        site.shutdown()
        site.server_close()


def ask(hub: Site, folder: Path, trusted: frozenset[str] | None) -> int:
    url = f"http://127.0.0.1:{hub.server_port}"
    own = Hub(cache_dir=folder, endpoint=url, token="hf_x", attempts=1, trusted=trusted)
    headers = {"Authorization": "Bearer hf_x"}
    return own.call("a/b", lambda _: get_session().get(f"{url}/away", headers=headers).status_code)


def test_a_redirect_to_a_private_address_is_not_followed(sites: tuple[Site, Site], tmp_path: Path) -> None:
    hub, inside = sites
    with pytest.raises(JobError) as refused:
        ask(hub, tmp_path, frozenset({"127.0.0.1"}))
    assert refused.value.code == "hub_unavailable"
    assert (len(hub.met), inside.met) == (1, [])


@pytest.mark.parametrize("trusted", [frozenset({"127.0.0.1", "localhost"}), None])
def test_one_to_a_host_of_the_settings_is_without_the_token(
    sites: tuple[Site, Site], tmp_path: Path, trusted: frozenset[str] | None
) -> None:
    hub, inside = sites
    assert ask(hub, tmp_path, trusted) == httpx2.codes.OK
    assert "authorization" in hub.met[0]
    assert "authorization" not in inside.met[0]
