"""Algorithms: a dataclass of options and a pure objective each."""
