"""Triage from weights: a bank of the user's own adapters, and an adapter set beside it."""
