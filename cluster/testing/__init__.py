"""A real cluster of broker processes on this machine, started, broken and ended at will."""
