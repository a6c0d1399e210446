"""Conservative Q-learning (Kumar et al., "CQL", arXiv 2006.04779), the CQL(H) form of its eq. 4."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dr3_ray.losses.td import value_of


def discrete_gap(
    q_values: Float[Tensor, "*member batch action"], actions: Int[Tensor, "*#member batch"]
) -> Float[Tensor, "*member batch"]:
    """log Σ_a exp Q(s, a) − Q(s, a_data)."""
    return q_values.logsumexp(-1) - value_of(q_values, actions)


def continuous_gap(
    sampled_q: Float[Tensor, "*member batch sample"],
    sampled_log_density: Float[Tensor, "*#member batch sample"],
    data_q: Float[Tensor, "*member batch"],
    temperature: float | Tensor,
) -> Float[Tensor, "*member batch"]:
    """T log Σ_n exp((Q(s, a_n) − log μ(a_n)) / T) − Q(s, a_data): importance-weighted, a_n ~ μ.

    The densities are detached, and the sum is not divided by the number of samples, as in the authors' code; both
    leave the gradient in Q as in the paper. `temperature` is a number or broadcasts against [..., batch, 1].
    """
    weighted = (sampled_q - sampled_log_density.detach()) / temperature
    scale = temperature.squeeze(-1) if isinstance(temperature, Tensor) else temperature
    return scale * torch.logsumexp(weighted, dim=-1) - data_q


def uniform_log_density(action_dim: int) -> float:
    """log μ of the uniform distribution on [−1, 1]^A: A log ½."""
    return action_dim * math.log(0.5)
