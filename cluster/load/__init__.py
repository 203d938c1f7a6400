"""Workloads, faults and the checker that proves a run: lost, duplicated, reordered."""
