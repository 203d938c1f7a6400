"""What oncelog costs and how fast it is; `python -m benchmarks` runs all of it."""
