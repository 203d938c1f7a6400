"""Figures of three real broker processes on this machine, and what limits them."""
