"""Fixtures and settings shared by all tests."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.fixtures.broker", "tests.fixtures.hub", "tests.fixtures.objectstore"]

# Machines are shared: a slow example is no failure. Fewer examples keep the fast tier fast.
settings.register_profile("loramend", deadline=None, max_examples=50)
settings.load_profile("loramend")

# A shell has what it starts in the background ignore Ctrl-C, and children inherit that; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests that take long come first, so that none is left over for one process at the end."""
    long: set[Path] = {i.path for i in items if i.get_closest_marker("e2e") or i.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)
