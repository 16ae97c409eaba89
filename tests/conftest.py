"""Fixtures and settings shared by all tests."""

import signal

from hypothesis import settings

pytest_plugins = ["tests.fixtures.broker", "tests.fixtures.hub", "tests.fixtures.objectstore"]

# Machines are shared: a slow example is no failure. Fewer examples keep the fast tier fast.
settings.register_profile("loramend", deadline=None, max_examples=50)
settings.load_profile("loramend")

# A shell has what it starts in the background ignore Ctrl-C, and children inherit that; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
