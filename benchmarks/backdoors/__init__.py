"""Backdoored adapters and base models, repaired with every method and measured."""
