"""Fixtures and settings shared by all tests."""

from hypothesis import settings

pytest_plugins = ["tests.fixtures.broker", "tests.fixtures.hub", "tests.fixtures.objectstore"]

# Machines are shared: a slow example is no failure. Fewer examples keep the fast tier fast.
settings.register_profile("loramend", deadline=None, max_examples=50)
settings.load_profile("loramend")
