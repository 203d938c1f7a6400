"""Simulation: the real machines on a virtual network, clock, disk and store."""
