"""Behaviour cloning: maximum likelihood of the data's actions."""

from jaxtyping import Float, Int
from torch import Tensor

from dr3_ray.losses.td import value_of


def discrete_nll(
    logits: Float[Tensor, "*member batch action"], actions: Int[Tensor, "*member batch"]
) -> Float[Tensor, "*member batch"]:
    """−log π(a|s) = −(z_a − log Σ exp z)."""
    return logits.logsumexp(-1) - value_of(logits, actions)
