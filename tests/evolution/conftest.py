"""Data sets and a Ray, as sweeps have them."""

from tests.sweep.conftest import cartpole, cluster

__all__ = ["cartpole", "cluster"]
