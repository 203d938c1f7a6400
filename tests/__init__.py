"""Tests, fastest kind first: unit, property, model, sim, integration; tidy for the tree."""
