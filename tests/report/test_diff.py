"""A comparison's numbers against dense arithmetic, and its page."""

import re
from dataclasses import replace

import pytest
import torch

from loramend.adapter.model import Update
from loramend.contracts.diff import AdapterDiff
from loramend.report.diff import diff
from loramend.report.diff_html import diff_html
from loramend.report.heat import heat_map
from loramend.report.inline import SCRIPTS
from tests.report.test_html import MARKUP, OWN_SCRIPTS, Page
from tests.support_references import DenseReferences
from tests.support_updates import LargestTensor, dense, make_adapter, make_update, make_weights

NAMES = [f"model.layers.{layer}.{kind}" for layer in range(2) for kind in ("q_proj", "v_proj")]


def pairs() -> tuple[list[Update], list[Update]]:
    """Four modules; B has other ranks, and its second module is A's in other factors."""
    first = [make_update(name, seed=seed) for seed, name in enumerate(NAMES)]
    second = [make_update(name, rank=3, seed=seed + 10, size=0.5) for seed, name in enumerate(NAMES)]
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q
    second[1] = first[1].with_factors(first[1].B @ turn, turn.mT @ first[1].A, first[1].scale)
    return first, second


def compared(base: bool = False) -> AdapterDiff:
    first, second = pairs()
    references = DenseReferences(make_weights(first)) if base else None
    return diff(make_adapter(first), make_adapter(second), references)


def space(M: torch.Tensor, rank: int) -> torch.Tensor:
    """The projector on the leading left singular vectors."""
    U = torch.linalg.svd(M).U[:, :rank]
    return U @ U.mT


def test_every_number_is_the_dense_one() -> None:
    first, second = pairs()
    found = compared(base=True)
    weights = make_weights(first)
    for a, b, module in zip(first, second, found.modules, strict=True):
        A, B = dense(a), dense(b)
        assert (module.name, module.a.rank, module.b.rank) == (a.name, a.rank, b.rank)
        expected = {
            "norm_ratio": B.norm() / A.norm(),
            "distance": (B - A).norm() / A.norm(),
            "cosine": (A * B).sum() / (A.norm() * B.norm()),
            "left_overlap": torch.trace(space(A, a.rank) @ space(B, b.rank)) / min(a.rank, b.rank),
            "right_overlap": torch.trace(space(A.mT, a.rank) @ space(B.mT, b.rank)) / min(a.rank, b.rank),
        }
        told = {name: getattr(module, name) for name in expected}
        assert told == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-6)
        assert module.b.spectrum.norm == pytest.approx(float(B.norm()))
        assert module.b.base is not None
        top = float(torch.linalg.matrix_norm(weights[b.weight].double(), 2))
        assert module.b.base.strength_scaled == pytest.approx(top / float(torch.linalg.matrix_norm(B, 2)))
    A, B = (torch.cat([dense(each).flatten() for each in side]) for side in (first, second))
    assert found.totals.norm_a == pytest.approx(float(A.norm()))
    assert found.totals.distance == pytest.approx(float((B - A).norm() / A.norm()))
    assert found.totals.cosine == pytest.approx(float(A @ B / (A.norm() * B.norm())))


def test_no_matrix_of_an_update_is_formed() -> None:
    updates = [make_update(NAMES[0], shape=(500, 400), seed=seed) for seed in range(2)]
    with LargestTensor() as largest:
        diff(make_adapter(updates[:1]), make_adapter(updates[1:]))
    assert largest.elements <= 500 * 8


def test_what_is_the_same_is_called_the_same() -> None:
    first, _ = pairs()
    found = diff(make_adapter(first), make_adapter(first))
    assert found.totals.identical == found.totals.common == 4
    assert found.totals.distance == 0
    assert "the same, to the last bit" in " ".join(found.summary)
    assert compared().totals.identical == 0


def test_what_cannot_be_compared_is_listed() -> None:
    first, second = pairs()
    wide = make_update(NAMES[2], shape=(30, 18))
    found = diff(make_adapter(first[:3]), make_adapter([*second[1:2], wide, second[3]]))
    assert (found.only_a, found.only_b, found.other_shape) == (NAMES[:1], NAMES[3:], NAMES[2:3])
    assert [module.name for module in found.modules] == NAMES[1:2]
    nothing = diff(make_adapter(first[:1]), make_adapter(second[3:]))
    assert (nothing.totals.common, nothing.totals.distance, nothing.totals.cosine) == (0, None, None)
    assert "Nothing can be compared" in " ".join(nothing.summary)
    Page(diff_html(nothing))


def test_a_zero_update_has_no_direction() -> None:
    update = make_update(NAMES[0])
    zero = replace(update, B=torch.zeros_like(update.B))
    found = diff(make_adapter([zero]), make_adapter([update]))
    [module] = found.modules
    assert (module.distance, module.cosine, module.left_overlap) == (None, None, None)
    assert AdapterDiff.model_validate_json(found.model_dump_json()) == found
    Page(diff_html(found))


def test_the_page_shows_both_and_fetches_nothing() -> None:
    html = diff_html(compared(base=True))
    page = Page(html)
    assert [sentence for sentence in compared().summary if sentence not in page.text] == []
    assert [name for name in NAMES if name not in page.text] == []
    assert "strength" in page.text
    labels = page.values("svg", "aria-label")
    assert labels[0].startswith("distance, of A's norm: 2 layers by 2 kinds of module")
    assert labels[1].startswith(f"{NAMES[0]}: Singular values of A: 4, from ")
    assert "; of B: 3, from " in labels[1]
    assert page.tags.count("table") == page.tags.count("caption") == 4
    assert page.values("svg", "role") == ["img"] * page.tags.count("svg")
    fetching = {"src", "xlink:href", "style", "data", "action"}
    assert [each for each in page.attributes if each[1] in fetching] == []
    assert {"link", "iframe", "object", "base"}.isdisjoint(page.tags)
    assert page.tags.count("script") == OWN_SCRIPTS
    for script in SCRIPTS.values():
        html = html.replace(f"<script>{script}</script>", "")
    assert not re.search(r"url\(|@import|://", html)
    found = compared(base=True)
    assert diff_html(AdapterDiff.model_validate_json(found.model_dump_json())) == diff_html(found)


def test_nothing_an_adapter_says_is_markup() -> None:
    update = replace(make_update(NAMES[0]), name=f"layers.0.{MARKUP}")
    other = replace(make_update(NAMES[0]), name=f"layers.1.{MARKUP}")
    alone = make_update(MARKUP)
    config = {"base_model_name_or_path": MARKUP}
    adapter = replace(make_adapter([update, other, alone]), name=MARKUP, config=config)
    page = Page(diff_html(diff(adapter, replace(make_adapter([update, other]), name=MARKUP))))
    assert "img" not in page.tags
    assert page.tags.count("script") == OWN_SCRIPTS
    assert page.text.count(MARKUP) >= 6


def test_the_map_has_a_cell_a_module_by_its_layer() -> None:
    found = heat_map(dict(zip(NAMES, (1.0, 0.5, -1.0, None), strict=True)))
    assert found is not None
    assert found.layers == ["model.layers.0", "model.layers.1"]
    assert found.kinds == ["q_proj", "v_proj"]
    assert found.shades == ["M0 1h1v1h-1z", "", "", "M1 0h1v1h-1z", "", "", "M0 0h1v1h-1z"]
    assert heat_map({"classifier": 1.0, "layers.0.q": 1.0}) is None
