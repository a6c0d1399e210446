"""Quantile regression of returns (Dabney et al., "QR-DQN", arXiv 1710.10044)."""

import torch
from jaxtyping import Float
from torch import Tensor


def quantile_target(
    rewards: Float[Tensor, "*member batch"],
    terminateds: Float[Tensor, "*member batch"],
    next_quantiles: Float[Tensor, "*member batch target"],
    gamma: float | Tensor,
) -> Float[Tensor, "*member batch target"]:
    """Return y_j = r + γ (1 − terminated) θ_j(s', a'), without gradient: the samples of the paper's algorithm 1."""
    return (rewards.unsqueeze(-1) + (gamma * (1.0 - terminateds)).unsqueeze(-1) * next_quantiles).detach()


def quantile_huber(
    quantiles: Float[Tensor, "*member batch quantile"],
    targets: Float[Tensor, "*member batch target"],
    kappa: float | Tensor,
) -> Float[Tensor, "*member batch"]:
    """Return Σ_i mean_j |τ̂_i − 1[u_ij < 0]| L_κ(u_ij), u_ij = y_j − θ_i, τ̂_i = (i − ½) / N (eqs. 9 and 10).

    L_κ(u) = ½u² for |u| ≤ κ, κ(|u| − ½κ) beyond. The sum over quantiles and the mean over targets are those of the
    paper, Dopamine and d3rlpy; L_κ is not divided by κ, as in Dopamine's QR-DQN (its IQN does). `kappa` is a number or
    broadcasts against [..., batch, quantile, target].
    """
    n = quantiles.shape[-1]
    midpoints = (torch.arange(n, dtype=quantiles.dtype, device=quantiles.device) + 0.5) / n
    errors = targets.unsqueeze(-2) - quantiles.unsqueeze(-1)
    sizes = errors.abs()
    huber = torch.where(sizes <= kappa, 0.5 * errors.square(), kappa * (sizes - 0.5 * kappa))
    weights = (midpoints.unsqueeze(-1) - (errors.detach() < 0.0).to(errors.dtype)).abs()
    return (weights * huber).mean(-1).sum(-1)
