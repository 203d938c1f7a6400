"""The shell around the core: one broker process, its loop, disk, clock and metrics."""
