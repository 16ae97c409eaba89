"""The committed plotting library is what its recipe makes, and can stand in a page."""

import pytest

from scripts.plotting_library import BUNDLE, bundle


@pytest.mark.slow
def test_the_committed_library_is_the_one_that_its_recipe_makes() -> None:
    assert BUNDLE.read_text(encoding="utf-8") == bundle(), "make plots"


def test_it_carries_its_licences() -> None:
    head = BUNDLE.read_text(encoding="utf-8")[:8000]
    for line in ("University of Washington Interactive Data Lab", "Mike Bostock", "(MIT)"):
        assert line in head
