from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import Tensor

from loramend.adapter.model import Update
from loramend.contracts.errors import ReferenceModelError
from loramend.reference.checkpoint import Checkpoint, Stored
from loramend.reference.models import References
from loramend.reference.open import open_references
from tests.reference.checkpoints import normal, save_sharded, save_single, settle, update_of

SHAPES = {"layers.0.q.weight": (40, 30), "layers.0.v.weight": (20, 30), "layers.1.q.weight": (40, 30)}


def weights(
    *, seed: int, dtype: torch.dtype = torch.float32, of: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Random weights, or those of `of` plus a displacement of decaying spectrum."""
    tensors = {}
    for number, (name, (rows, columns)) in enumerate(SHAPES.items()):
        tensor = normal(rows, columns, seed=seed + number)
        if of is not None:
            decay = 0.7 ** torch.arange(columns)
            tensor = of[name].float() + tensor @ torch.linalg.qr(normal(columns, columns))[0] * decay
        tensors[name] = tensor.to(dtype)
    return tensors


UPDATES = [update_of(name, shape) for name, shape in SHAPES.items()]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A single-file base and a sharded aligned model, in float32 and bfloat16."""
    base = weights(seed=0)
    aligned = weights(seed=10, of=base, dtype=torch.bfloat16)
    names = sorted(aligned, reverse=True)
    save_single(tmp_path / "base", base)
    save_sharded(
        tmp_path / "aligned", [{name: aligned[name] for name in part} for part in (names[:1], names[1:])]
    )
    settle()
    return tmp_path / "base", tmp_path / "aligned"


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(Checkpoint, "read", refuse)


def exact(tensors: tuple[Mapping[str, Tensor], Mapping[str, Tensor]], name: str) -> Tensor:
    return tensors[1][name].double() - tensors[0][name].double()


@pytest.mark.parametrize("base_dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("aligned_dtype", [torch.float64, torch.bfloat16])
def test_weights_and_displacements_agree_with_float64(
    tmp_path: Path, base_dtype: torch.dtype, aligned_dtype: torch.dtype
) -> None:
    base = weights(seed=0, dtype=base_dtype)
    aligned = weights(seed=10, of=base, dtype=aligned_dtype)
    paths = save_single(tmp_path / "base", base), save_single(tmp_path / "aligned", aligned)
    with open_references(*paths) as references:
        assert references.has_base
        assert references.has_aligned
        references.check(UPDATES)
        for update in references.in_order(UPDATES):
            D = exact((base, aligned), update.weight)
            assert references.base(update).dtype == torch.float32
            torch.testing.assert_close(references.base(update), base[update.weight].float(), rtol=0, atol=0)
            torch.testing.assert_close(references.displacement(update).double(), D, rtol=0, atol=1e-6)
            found = references.displacement_subspace(update, k=5)
            U, S, Vh = torch.linalg.svd(D, full_matrices=False)
            torch.testing.assert_close(found.S.double(), S[:5], rtol=1e-5, atol=1e-6)
            for side, other in ((found.U, U), (found.V, Vh.mT)):
                cosines = torch.linalg.svdvals(side.double().mT @ other[:, :5])
                assert float(cosines[-1]) == pytest.approx(1, abs=1e-5)
            assert found.norm == pytest.approx(float(D.norm()), rel=1e-5)
            spectrum = references.base_spectrum(update, 3)
            expected = torch.linalg.svdvals(base[update.weight].double())
            torch.testing.assert_close(spectrum.S.double(), expected[:3], rtol=1e-5, atol=0)


def test_a_matrix_given_out_is_the_callers_own(pair: tuple[Path, Path]) -> None:
    with open_references(*pair) as references:
        before = references.base(UPDATES[0]).clone()
        references.base(UPDATES[0]).zero_()
        assert torch.equal(references.base(UPDATES[0]), before)


def test_k_is_chosen_by_energy_or_asked_for(pair: tuple[Path, Path]) -> None:
    with open_references(*pair) as references:
        update = UPDATES[0]
        everything = references.displacement_subspace(update, k=30)
        assert everything.energy == pytest.approx(1, abs=1e-6)
        for energy in (0.3, 0.9, 0.99):
            found = references.displacement_subspace(update, energy=energy)
            assert found.energy >= energy
            assert references.displacement_subspace(update, k=found.k - 1).energy < energy
            assert torch.equal(found.U, everything.U[:, : found.k])
        assert references.displacement_subspace(update, energy=1.0, max_k=2).k == 2
        assert references.displacement_subspace(update, k=7, max_k=2).k == 7
        assert references.displacement_subspace(update, k=500).k == 30


def test_order_follows_the_files(tmp_path: Path) -> None:
    tensors = weights(seed=0)
    last, first, middle = SHAPES
    base = save_sharded(tmp_path, [{first: tensors[first], middle: tensors[middle]}, {last: tensors[last]}])
    with open_references(base, None) as references:
        assert {update.weight for update in references.in_order(UPDATES)} == set(SHAPES)
        assert references.in_order(UPDATES)[-1].weight == last
        read = [reader.weight for reader in references.in_order(reversed(UPDATES))]
        assert read == [update.weight for update in references.in_order(UPDATES)]
    with open_references(None, None) as references:
        assert references.in_order(UPDATES) == UPDATES


def test_a_model_that_was_not_given_is_asked_for(pair: tuple[Path, Path]) -> None:
    def asked(references: References, call: str) -> str | None:
        with pytest.raises(ReferenceModelError) as caught:
            getattr(references, call)(UPDATES[0])
        assert caught.value.code == "reference_required"
        return caught.value.where

    with open_references(None, None) as references:
        references.check(UPDATES)
        assert references.read() == []
        assert asked(references, "base") == "/base"
        assert asked(references, "displacement") == "/base"
    with open_references(pair[0], None) as references:
        assert asked(references, "displacement") == "/aligned"
        assert asked(references, "displacement_subspace") == "/aligned"
    with open_references(None, pair[1]) as references:
        assert asked(references, "base") == "/base"


def test_two_models_of_different_shapes(pair: tuple[Path, Path], tmp_path: Path) -> None:
    wider = save_single(tmp_path / "wider", {name: normal(2 * o, i) for name, (o, i) in SHAPES.items()})
    with open_references(pair[0], wider) as references, pytest.raises(ReferenceModelError) as caught:
        references.check(UPDATES)
    assert caught.value.code == "reference_mismatch"
    assert "[80, 30]" in caught.value.detail
    assert "[40, 30]" in caught.value.detail
    assert "aligned" in caught.value.detail


def work(references: References) -> None:
    for update in references.in_order(UPDATES):
        references.base_spectrum(update, 4)
        references.displacement_subspace(update)


@pytest.mark.parametrize("linked", [False, True])
def test_the_same_files_are_found_identical_by_their_headers(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    aligned = pair[0]
    if linked:  # as snapshots in the Hub's cache share blobs
        aligned = tmp_path / "linked"
        aligned.mkdir()
        (aligned / "model.safetensors").symlink_to(pair[0] / "model.safetensors")
    forbid_reading(monkeypatch)
    with open_references(pair[0], aligned) as references, pytest.raises(ReferenceModelError) as caught:
        references.check(UPDATES)
    assert (caught.value.code, caught.value.where) == ("reference_identical", "/aligned")


def test_equal_copies_are_found_identical_at_the_last_module_then_at_once(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = save_single(tmp_path / "copy", weights(seed=0))
    settle()
    cache = tmp_path / "cache"
    with open_references(pair[0], copy, cache_dir=cache) as references:
        references.check(UPDATES)
        order = references.in_order(UPDATES)
        for update in order[:-1]:
            found = references.displacement_subspace(update)
            assert (found.k, found.norm, found.energy) == (0, 0.0, 1.0)
            assert found.U.shape == (update.shape[0], 0)
        with pytest.raises(ReferenceModelError) as caught:
            references.displacement_subspace(order[-1])
        assert caught.value.code == "reference_identical"
    with (
        open_references(pair[0], copy, cache_dir=cache) as references,
        pytest.raises(ReferenceModelError) as caught,
    ):
        references.check(UPDATES)
    assert caught.value.code == "reference_identical"


def test_equal_numbers_in_other_dtypes_are_identical_too(pair: tuple[Path, Path], tmp_path: Path) -> None:
    wide = save_single(tmp_path / "wide", {name: tensor.double() for name, tensor in weights(seed=0).items()})
    with open_references(pair[0], wide) as references:
        references.check(UPDATES)
        order = references.in_order(UPDATES)
        assert not references.displacement(order[0]).any()
        references.displacement_subspace(order[1])
        with pytest.raises(ReferenceModelError, match="the same weights"):
            references.displacement(order[2])


def test_one_module_without_displacement_is_no_error(tmp_path: Path) -> None:
    base = weights(seed=0)
    aligned = weights(seed=9, of=base)
    still = UPDATES[0]
    aligned[still.weight] = base[still.weight]
    paths = save_single(tmp_path / "base", base), save_single(tmp_path / "aligned", aligned)
    with open_references(*paths) as references:
        references.check(UPDATES)
        for update in references.in_order(UPDATES):
            assert (references.displacement_subspace(update, k=4).k == 0) == (update is still)


@pytest.mark.parametrize("role", ["base", "aligned"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e300])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, role: str, value: float) -> None:
    tensors = {"base": weights(seed=0, dtype=torch.float64), "aligned": weights(seed=5, dtype=torch.float64)}
    name = UPDATES[1].weight
    tensors[role][name][3, 4] = value
    paths = [save_single(tmp_path / each, tensors[each]) for each in ("base", "aligned")]
    with open_references(*paths) as references, pytest.raises(ReferenceModelError) as caught:
        references.displacement_subspace(UPDATES[1])
    assert caught.value.code == "reference_invalid"
    assert caught.value.where == f"{role}/model.safetensors#{name}"
    if role == "base":
        with open_references(*paths) as references, pytest.raises(ReferenceModelError) as caught:
            references.base_spectrum(UPDATES[1], 2)
        assert caught.value.code == "reference_invalid"


def test_a_second_run_reads_no_weight(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    open_both = partial(open_references, *pair, base_name="org/base@abc", aligned_name="org/aligned@def")
    with open_both(cache_dir=cache) as references:
        references.check(UPDATES)
        work(references)
        work(references)
        cold = references.read()
        subspaces = [references.displacement_subspace(update) for update in UPDATES]
    assert [entry.cached_subspaces for entry in cold] == [0, 0]
    assert [(entry.role, entry.name, entry.tensors) for entry in cold] == [
        ("base", "org/base@abc", 3),
        ("aligned", "org/aligned@def", 3),
    ]
    numbers = sum(o * i for o, i in SHAPES.values())
    assert [entry.bytes for entry in cold] == [4 * numbers, 2 * numbers]

    forbid_reading(monkeypatch)
    with open_both(cache_dir=cache) as references:
        references.check(UPDATES)
        work(references)
        warm = references.read()
        again = [references.displacement_subspace(update) for update in UPDATES]
        fewer = references.displacement_subspace(UPDATES[0], k=2)
    assert all(torch.equal(x.U, y.U) and x.norm == y.norm for x, y in zip(subspaces, again, strict=True))
    assert torch.equal(fewer.V, subspaces[0].V[:, :2])
    assert [entry.model_copy(update={"cached_subspaces": 0}) for entry in warm] == cold
    assert [entry.cached_subspaces for entry in warm] == [3, 3]


def test_the_cache_survives_a_move_but_not_a_change(pair: tuple[Path, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with open_references(*pair, cache_dir=cache) as references:
        work(references)
        cold = references.read()
    moved = tmp_path / "moved"
    pair[1].rename(moved)
    with open_references(pair[0], moved, cache_dir=cache) as references:
        work(references)
        assert [entry.cached_subspaces for entry in references.read()] == [3, 3]
        assert [entry.sha256 for entry in references.read()] == [entry.sha256 for entry in cold]

    other = weights(seed=77)
    save_single(pair[0], other)
    with open_references(pair[0], moved, cache_dir=cache) as references:
        work(references)
        changed = references.read()
        found = references.displacement_subspace(UPDATES[0], k=1)
        D = references.displacement(UPDATES[0])
    assert [entry.cached_subspaces for entry in changed] == [0, 0]
    assert changed[0].sha256 != cold[0].sha256
    assert changed[1].sha256 == cold[1].sha256
    torch.testing.assert_close(found.S, torch.linalg.svdvals(D)[:1])


def test_base_and_aligned_swapped_are_another_displacement(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with open_references(*pair, cache_dir=tmp_path / "cache") as references:
        forward = references.displacement_subspace(UPDATES[0], k=1)
    with open_references(pair[1], pair[0], cache_dir=tmp_path / "cache") as references:
        work(references)
        assert references.read()[0].cached_subspaces == 0
        backward = references.displacement_subspace(UPDATES[0], k=1)
    product = (forward.U.mT @ backward.U) * (forward.V.mT @ backward.V)
    assert float(product) == pytest.approx(-1, abs=1e-3)


def test_the_digest_does_not_depend_on_sharding(tmp_path: Path) -> None:
    tensors = weights(seed=0)
    single = save_single(tmp_path / "single", tensors)
    sharded = save_sharded(tmp_path / "sharded", [{name: tensors[name]} for name in tensors])
    digests = set()
    for model in (single, sharded):
        with open_references(model, None) as references:
            for update in references.in_order(UPDATES):
                references.base(update)
            digests.add(references.read()[0].sha256)
    assert len(digests) == 1


def test_a_weight_needed_twice_in_a_row_is_read_once(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = Checkpoint.read

    def counting(self: Checkpoint, stored: Stored, buffer: Tensor | None = None) -> tuple[Tensor, str]:
        read.append(f"{self.role} {stored.name}")
        return original(self, stored, buffer)

    monkeypatch.setattr(Checkpoint, "read", counting)
    with open_references(*pair) as references:
        work(references)
    assert sorted(read) == sorted(f"{role} {name}" for role in ("base", "aligned") for name in SHAPES)


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_temporary_cache_goes_with_its_references(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    references = open_references(*pair)
    work(references)
    assert list(scratch.iterdir())
    if how == "close":
        references.close()
        references.close()
    del references
    assert not list(scratch.iterdir())
    with pytest.raises(ReferenceModelError):
        open_references(tmp_path / "absent", None)
    assert not list(scratch.iterdir())


def test_transposed_and_fused_weights_displace_as_dense_ones(tmp_path: Path) -> None:
    updates: list[tuple[Update, int | None]] = [
        (update_of("conv1d.weight", (12, 9), transposed=True), None),
        (update_of("experts", (6, 5), kind="parameter", expert=1), 1),
    ]
    base = {"conv1d.weight": normal(9, 12), "experts": normal(3, 5, 6)}
    aligned = {"conv1d.weight": normal(9, 12, seed=1), "experts": normal(3, 5, 6, seed=1)}
    paths = save_single(tmp_path / "base", base), save_single(tmp_path / "aligned", aligned)
    with open_references(*paths) as references:
        for update, expert in updates:
            D = aligned[update.weight] - base[update.weight]
            expected = (D if expert is None else D[expert]).mT
            assert torch.equal(references.displacement(update), expected)
            found = references.displacement_subspace(update, k=20)
            torch.testing.assert_close((found.U * found.S) @ found.V.mT, expected, rtol=0, atol=1e-5)
        assert [entry.bytes for entry in references.read()] == [4 * (9 * 12 + 5 * 6)] * 2
