"""The run directory on disk: the format that sweeps write, and that reports and clusters read."""
