"""CQL (Kumar et al., arXiv 2006.04779): the term that lowers Q where the data have no actions, and max-backups."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dr3_ray.losses.bc import discrete_nll


def discrete_gap(
    q_values: Float[Tensor, "*member batch action"], actions: Int[Tensor, "*#member batch"]
) -> Float[Tensor, "*member batch"]:
    """Return log Σ_a exp Q(s, a) − Q(s, a_data): behaviour cloning's loss of the policy softmax(Q(s, ·))."""
    return discrete_nll(q_values, actions)


def continuous_gap(
    sampled_q: Float[Tensor, "*member batch sample"],
    sampled_log_density: Float[Tensor, "*#member batch sample"],
    data_q: Float[Tensor, "*member batch"],
    temperature: float | Tensor,
) -> Float[Tensor, "*member batch"]:
    """Return T log Σ_n exp((Q(s, a_n) − log μ(a_n)) / T) − Q(s, a_data): importance-weighted, a_n ~ μ.

    The densities are detached, and the sum is not divided by the number of samples, as in the authors' code; both
    leave the gradient in Q as in the paper. `temperature` is a number or broadcasts against [..., batch, 1].
    """
    weighted = (sampled_q - sampled_log_density.detach()) / temperature
    scale = temperature.squeeze(-1) if isinstance(temperature, Tensor) else temperature
    return scale * torch.logsumexp(weighted, dim=-1) - data_q


def uniform_log_density(action_dim: int) -> float:
    """Return log μ of the uniform distribution on [−1, 1]^A: A log ½."""
    return action_dim * math.log(0.5)


def rho_gap(
    sampled_q: Float[Tensor, "*member batch sample"],
    data_q: Float[Tensor, "*member batch"],
    temperature: float | Tensor,
) -> Float[Tensor, "*member batch"]:
    """Return Σ_n w_n Q(s, a_n) − Q(s, a_data), w = softmax(Q / T), a_n ~ ρ: CQL(ρ) of the paper's appendix A.

    w is the maximiser of the inner problem and stands without gradient, so that ∇ = Σ w ∇Q (Danskin's theorem).
    """
    weights = torch.softmax(sampled_q.detach() / temperature, dim=-1)
    return (weights * sampled_q).sum(-1) - data_q


def calibrated(
    sampled_q: Float[Tensor, "*member batch sample"], returns: Float[Tensor, "*#member batch"]
) -> Float[Tensor, "*member batch sample"]:
    """Return max(Q(s, a_n), G) of the policy's actions, G the return from s on: Cal-QL (arXiv 2303.05479, eq. 5.1).

    Where Q lies below the return of the data it has no gradient, and is not lowered further.
    """
    return torch.maximum(sampled_q, returns.unsqueeze(-1))


def max_then_min(
    q: Float[Tensor, "*member critic batch sample"],
) -> tuple[Float[Tensor, "*member batch"], Int[Tensor, "*member batch"]]:
    """Return min_c max_n Q_c(s', a_n), and its n: the authors' order of max-backup."""
    best, index = q.max(-1)
    values, critic = best.min(-2)
    return values, index.gather(-2, critic.unsqueeze(-2)).squeeze(-2)


def min_then_max(
    q: Float[Tensor, "*member critic batch sample"],
) -> tuple[Float[Tensor, "*member batch"], Int[Tensor, "*member batch"]]:
    """Return max_n min_c Q_c(s', a_n), and its n: the order of JaxCQL, CORL and d3rlpy."""
    values, index = q.amin(-3).max(-1)
    return values, index
