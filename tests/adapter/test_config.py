import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramend.adapter.config import LoraSettings, RankTable, parse_config, parse_settings, read_config
from loramend.adapter.limits import Limits
from loramend.contracts.errors import AdapterError


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "c:1"),
        ('{"r": 8,\n "a": }', "c:2"),
        ("[1]", "c"),
        ('{"r": 1, "r": 2}', "c"),
        ('{"lora_alpha": NaN}', "c"),
        ('{"base_model_name_or_path": "\\ud800"}', "c"),
        ('{"rank_pattern": {"\\udfff": 4}}', "c"),
        ('{"lora_alpha": Infinity}', "c"),
        ('{"a": ' + "[" * 100_000, "c"),
        ('{"a": ' + "9" * 10_000 + "}", "c"),
    ],
)
def test_json_that_is_no_config(text: str, where: str) -> None:
    with pytest.raises(AdapterError) as caught:
        parse_config(text, "c")
    assert caught.value.code == "config_invalid"
    assert caught.value.where == where


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text('{"r": 4, "novel": [1]}')
    assert read_config(path, Limits()) == {"r": 4, "novel": [1]}
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(AdapterError, match="UTF-8") as caught:
        read_config(path, Limits())
    assert caught.value.code == "config_invalid"
    path.write_text(json.dumps({"a": "x" * 100}))
    with pytest.raises(AdapterError) as caught:
        read_config(path, Limits(max_config_bytes=50))
    assert caught.value.code == "limit_exceeded"


@given(text=st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_arbitrary_text(text: str) -> None:
    with contextlib.suppress(AdapterError):
        assert isinstance(parse_config(text, "c"), dict)


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"r": 0}, "/r"),
        ({"r": "8"}, "/r"),
        ({"r": 8.5}, "/r"),
        ({"r": True}, "/r"),
        ({"lora_alpha": "16"}, "/lora_alpha"),
        ({"lora_alpha": 1e300}, "/lora_alpha"),
        ({"lora_alpha": None}, "/lora_alpha"),
        ({"use_rslora": 1}, "/use_rslora"),
        ({"rank_pattern": []}, "/rank_pattern"),
        ({"rank_pattern": {"q": 0}}, "/rank_pattern/q"),
        ({"alpha_pattern": {"q": "x"}}, "/alpha_pattern/q"),
        ({"target_parameters": "x"}, "/target_parameters"),
        ({"lora_bias": "no"}, "/lora_bias"),
    ],
)
def test_wrong_types_are_named(config: dict[str, object], pointer: str) -> None:
    with pytest.raises(AdapterError) as caught:
        parse_settings(config, "adapter_config.json")
    assert caught.value.code == "config_invalid"
    assert caught.value.where == f"adapter_config.json#{pointer}"


def test_defaults_are_pefts() -> None:
    settings = parse_settings({"rank_pattern": None, "novel": 3}, "c")
    assert (settings.r, settings.lora_alpha, settings.use_rslora) == (8, 8, False)


def test_scales() -> None:
    plain = LoraSettings(r=4, lora_alpha=6, rank_pattern={"q": 9}, alpha_pattern={"v": 3})
    table = RankTable(plain, Limits(), "c")
    assert [table.scale(name) for name in ("a.q", "a.v", "a.k")] == [6 / 9, 3 / 4, 6 / 4]
    stabilised = RankTable(plain.model_copy(update={"use_rslora": True}), Limits(), "c")
    assert [stabilised.scale(name) for name in ("a.q", "a.v")] == [6 / 3, 3 / 2]
