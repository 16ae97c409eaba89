"""peft, with nothing but the endpoint set, loads what is served as it loads it from disk."""

from pathlib import Path

import pytest

from tests.models import build_trio
from tests.service.api.answers import run_client
from tests.service.api.conftest import Running
from tests.service.api.finished import repaired


@pytest.mark.e2e
def test_peft_loads_the_adapter_by_its_id(running: Running, tmp_path: Path) -> None:
    trio = build_trio(tmp_path)
    files = {path.name: path.read_bytes() for path in trio.adapter.iterdir()}
    repo = f"repaired/{repaired(running.services, files).id}"
    base, adapter = str(trio.base), str(trio.adapter)
    code = f"""
        import json, torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        def load(source):
            return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), source)
        served, local = load({repo!r}), load({adapter!r})
        ids = torch.tensor([[1, 5, 9]])
        same = torch.equal(served(ids).logits, local(ids).logits)
        with served.disable_adapter():
            plain = served(ids).logits
        acts = not torch.equal(served(ids).logits, plain)
        longer = served.generate(input_ids=ids, max_new_tokens=3).shape[1] > 3
        print(json.dumps([same, acts, longer]))
    """
    assert run_client(running.url, code, tmp_path / "hf") == [True, True, True]
