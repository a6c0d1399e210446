"""Data sets, as sweeps have them."""

from tests.sweep.conftest import cartpole, pendulum

__all__ = ["cartpole", "pendulum"]
