"""Costs of single parts, each on its own."""
