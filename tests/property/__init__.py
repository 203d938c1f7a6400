"""Hypothesis against oracles in plain Python."""
