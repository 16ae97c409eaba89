"""Hub IDs on the command line, with nothing set but the Hub's own variables."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.hub.local import LocalHub

pytestmark = pytest.mark.e2e

SCRIPT = """
    import json, sys
    from pathlib import Path
    from loramend.cli.source import find_adapter, find_model
    from loramend.contracts.errors import LoramendError

    def tell(found):
        files = {path.name: path.read_text() for path in found.folder.iterdir()}
        return {"name": found.name, "source": found.source, "files": files}

    adapter, scratch = sys.argv[1], Path(sys.argv[2])
    told = [tell(find_adapter(adapter, scratch))]
    try:
        told.append(tell(find_model("alice/model", "base", ["w"])))
    except LoramendError as error:
        told.append(error.code)
    json.dump(told, sys.stdout)
"""


def run(hub: LocalHub, adapter: str, home: Path, scratch: Path, **variables: str) -> list[Any]:
    scratch.mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), **variables}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), adapter, str(scratch)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    told: list[Any] = json.loads(result.stdout)
    return told


def test_adapters_and_models_by_hub_id(hub: LocalHub, tmp_path: Path) -> None:
    files = {"adapter_config.json": "{}", "adapter_model.safetensors": "x"}
    old = hub.put("alice/lora", {name: text.encode() for name, text in files.items()})
    new = hub.put("alice/lora", {"adapter_config.json": b"{ }"})
    commit = hub.put("alice/model", {"model.safetensors": b"y"}, private=True)
    home = tmp_path / "home"
    adapter, model = run(hub, "alice/lora", home, tmp_path / "a")
    assert adapter["name"] == f"alice/lora@{new}"
    assert adapter["source"] == {"hub_id": "alice/lora", "revision": new}
    assert model == "hub_not_found"
    home.mkdir(exist_ok=True)
    (home / "token").write_text(hub.accounts.add_token("alice", "read"))
    adapter, model = run(hub, f"alice/lora@{old}", home, tmp_path / "b")
    assert adapter["files"] == files
    assert model["name"] == f"alice/model@{commit}"
    assert model["files"] == {"model.safetensors": "y"}
