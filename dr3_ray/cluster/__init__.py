"""Sweeps on more than one machine: waiting for them, checking what they share, and bringing results home."""
