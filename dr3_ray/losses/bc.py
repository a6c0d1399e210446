"""Behaviour cloning: maximum likelihood of the data's actions."""

from jaxtyping import Float, Int
from torch import Tensor

from dr3_ray.losses.td import value_of


def discrete_nll(
    logits: Float[Tensor, "*member batch action"], actions: Int[Tensor, "*#member batch"]
) -> Float[Tensor, "*member batch"]:
    """Return −log π(a|s) = −(z_a − log Σ exp z)."""
    return -value_of(logits.log_softmax(-1), actions)


def squared_distance(
    actions: Float[Tensor, "*member batch dim"], data_actions: Float[Tensor, "*#member batch dim"]
) -> Float[Tensor, "*member batch"]:
    """Return ‖a − a_data‖²: a sum over the components of an action, not their mean."""
    return (actions - data_actions).square().sum(-1)
