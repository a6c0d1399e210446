"""What a policy is worth by the weights of the episodes of another one: importance sampling and doubly robust.

Episodes are padded to one length T with log ratios, rewards and temporal differences of 0, as in a state that nothing
leaves. ρ_t = π(a_t|s_t) / μ(a_t|s_t) with the behaviour μ, and w_t = ρ_0 ⋯ ρ_t. Both estimators divide w_t by its sum
over episodes (weighted: a little bias for much less variance), and are as long as T: what follows a truncated
episode is left out by importance sampling, and taken from V by the doubly robust one.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

RESAMPLES = 200  # of episodes, for the standard error


class Valued(NamedTuple):
    """An estimate for each policy, [*policy], and how far it can be trusted."""

    value: Tensor
    error: Tensor
    """Its standard error, by resampling whole episodes; NaN of a single one."""
    effective: Tensor
    """How many episodes the weights of the last step amount to, (Σw)² / Σw²: 1 is a single one."""


def weighted_importance_sampling(
    log_ratios: Float[Tensor, "*policy episode step"],
    rewards: Float[Tensor, "episode step"],
    gamma: float,
    seed: int = 0,
) -> Valued:
    """Return Σ_t γᵗ Σ_e w̄_{e,t} r_{e,t}: per decision, weighted (Precup, Sutton and Singh 2000, section 4).

    w̄_{e,t} = w_{e,t} / Σ_e w_{e,t}. An episode that is over keeps its weight, with rewards of 0.
    """
    return _weighted(log_ratios, rewards.expand(log_ratios.shape), torch.zeros_like(log_ratios[..., 0]), gamma, seed)


def weighted_doubly_robust(
    log_ratios: Float[Tensor, "*policy episode step"],
    differences: Float[Tensor, "*policy episode step"],
    start_values: Float[Tensor, "*policy episode"],
    gamma: float,
    seed: int = 0,
) -> Valued:
    """Return the mean of V(s_0) plus Σ_t γᵗ Σ_e w̄_{e,t} δ_{e,t} (Thomas and Brunskill, arXiv 1604.00923, WDR).

    δ_t = r_t + γ V(s_{t+1}) − Q(s_t, a_t), without V behind a terminal step: their sum, whose terms with V are moved by
    one step. With many episodes it is right where Q is, whatever the weights are, and where these are, whatever Q is.
    """
    return _weighted(log_ratios, differences, start_values, gamma, seed)


def doubly_robust(
    log_ratios: Float[Tensor, "*policy episode step"],
    differences: Float[Tensor, "*policy episode step"],
    start_values: Float[Tensor, "*policy episode"],
    gamma: float,
) -> Valued:
    """Return the mean over episodes of V(s_0) + Σ_t γᵗ w_t δ_t (Jiang and Li, arXiv 1511.03722, equation 10).

    Unbiased where μ is known, with the standard error of a mean; its weights may be astronomical.
    """
    weights = log_ratios.cumsum(-1).exp()
    values = start_values + (_discounts(log_ratios, gamma) * weights * differences).sum(-1)
    last = weights[..., -1]
    effective = last.sum(-1).square() / last.square().sum(-1)
    return Valued(values.mean(-1), values.std(-1) / values.shape[-1] ** 0.5, effective)


def _weighted(log_ratios: Tensor, values: Tensor, starts: Tensor, gamma: float, seed: int) -> Valued:
    """Return the mean of `starts` [*policy, episode] plus the weighted sum of `values`, with resampled episodes."""
    logs = log_ratios.cumsum(-1)
    # equal factors of all weights of a step cancel: the largest is 1, and nothing overflows
    weights = (logs - logs.amax(-2, keepdim=True)).exp()
    n, discounts = logs.shape[-2], _discounts(log_ratios, gamma)
    source = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (RESAMPLES, n), generator=source)
    often = torch.zeros(RESAMPLES, n, dtype=logs.dtype).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=logs.dtype))
    often = torch.cat([torch.ones(1, n, dtype=logs.dtype), often]).to(logs.device)  # the first row: all of them, once

    total = often @ weights  # [*policy, resample, step]
    mean = (often @ (weights * values)) / total
    # a resample without the episodes that have all weight knows nothing of that step
    mean = torch.where(total > 0, mean, torch.zeros_like(mean))
    value = (starts.unsqueeze(-2) @ often.T).squeeze(-2) / n + (discounts * mean).sum(-1)
    last = weights[..., -1]
    error = value[..., 1:].std(-1) if n > 1 else torch.full_like(value[..., 0], torch.nan)
    return Valued(value[..., 0], error, last.sum(-1).square() / last.square().sum(-1))


def _discounts(log_ratios: Tensor, gamma: float) -> Tensor:
    return gamma ** torch.arange(log_ratios.shape[-1], dtype=log_ratios.dtype, device=log_ratios.device)
