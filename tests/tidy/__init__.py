"""Tests of the tree itself: sizes, names, links, packaging, metrics."""
