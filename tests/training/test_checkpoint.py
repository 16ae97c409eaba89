"""Checkpoints hold what was put in, and nothing else is taken for one."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loramend.contracts.evidence import LossPoint
from loramend.training.checkpoint import FolderCheckpoints, Journal, State, load_state, save_state

KEY, OTHER = "a" * 64, "b" * 64


def state() -> State:
    torch.manual_seed(0)
    journal = Journal(
        step=7,
        curve=[LossPoint(step=5, loss=0.5, terms={"task": 0.5}, samples_per_second=9.0)],
        since={"loss": 0.25},
        since_steps=2,
        resumed_at=[3],
    )
    parameters = {"layer.0.A": torch.randn(4, 8), "head.weight": torch.randn(3)}
    moments = {name: {"step": torch.tensor(7.0), "exp_avg": p * 2} for name, p in parameters.items()}
    return State(parameters, moments, journal)


def test_round_trip(tmp_path: Path) -> None:
    kept, saved = FolderCheckpoints(tmp_path / "new"), state()
    assert load_state(kept, KEY, saved.parameters) is None
    save_state(kept, KEY, saved)
    found = load_state(kept, KEY, saved.parameters)
    assert found is not None
    assert found.journal == saved.journal
    for name, parameter in saved.parameters.items():
        assert found.parameters[name].equal(parameter)
        assert found.moments[name].keys() == {"step", "exp_avg"}
        assert found.moments[name]["exp_avg"].equal(2 * parameter)


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    kept, saved = FolderCheckpoints(tmp_path), state()
    save_state(kept, KEY, saved)
    saved.journal.step = 8
    save_state(kept, KEY, saved)
    found = load_state(kept, KEY, saved.parameters)
    assert found is not None
    assert found.journal.step == 8
    assert [path.name for path in tmp_path.iterdir()] == [f"{KEY}.safetensors"]


def test_another_runs_is_ignored(tmp_path: Path) -> None:
    kept, saved = FolderCheckpoints(tmp_path), state()
    save_state(kept, KEY, saved)
    (tmp_path / f"{KEY}.safetensors").rename(tmp_path / f"{OTHER}.safetensors")
    assert load_state(kept, OTHER, saved.parameters) is None


@pytest.mark.parametrize("like", [{"layer.0.A": torch.zeros(4, 8)}, {"layer.0.A": torch.zeros(4, 9)}])
def test_one_of_other_parameters_is_ignored(like: dict[str, torch.Tensor], tmp_path: Path) -> None:
    kept = FolderCheckpoints(tmp_path)
    save_state(kept, KEY, state())
    assert load_state(kept, KEY, like) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), cut=st.booleans())
def test_a_damaged_one_is_ignored_or_unharmed(place: int, cut: bool, tmp_path: Path) -> None:
    kept, saved = FolderCheckpoints(tmp_path), state()
    save_state(kept, KEY, saved)
    path = tmp_path / f"{KEY}.safetensors"
    data = bytearray(path.read_bytes())
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= 0x15
    path.write_bytes(bytes(data))
    found = load_state(kept, KEY, saved.parameters)
    if found is not None:
        assert all(found.parameters[name].equal(p) for name, p in saved.parameters.items())
