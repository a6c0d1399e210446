"""Temporal-difference learning: targets and errors."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


def bellman_target(
    rewards: Float[Tensor, "*member batch"],
    terminateds: Float[Tensor, "*member batch"],
    next_values: Float[Tensor, "*member batch"],
    gamma: float | Tensor,
) -> Float[Tensor, "*member batch"]:
    """Return y = r + γ (1 − terminated) V(s'), without gradient: Sutton & Barto (2018), eq. 6.1.

    A truncated episode bootstraps, a terminated one does not.
    """
    return (rewards + gamma * (1.0 - terminateds) * next_values).detach()


def n_step_return(
    rewards: Float[Tensor, "*member batch step"], gamma: float | Tensor
) -> Float[Tensor, "*member batch"]:
    """Return Σ_i γ^i r_{t+i}, without correction for the policy: Sutton & Barto (2018), eq. 7.1, without its last term.

    `gamma` is a number or broadcasts against [..., batch].
    """
    powers = torch.arange(rewards.shape[-1], dtype=rewards.dtype, device=rewards.device)
    discounts = (gamma.unsqueeze(-1) if isinstance(gamma, Tensor) else gamma) ** powers
    return (discounts * rewards).sum(-1)


def value_of(
    q_values: Float[Tensor, "*member batch action"], actions: Int[Tensor, "*#member batch"]
) -> Float[Tensor, "*member batch"]:
    """Return Q(s, a) from the values of all actions at s; leading dimensions of `actions` broadcast."""
    indices = actions.expand(q_values.shape[:-1]).unsqueeze(-1)
    return q_values.gather(-1, indices).squeeze(-1)


def expected_value(
    q_values: Float[Tensor, "*member batch action"], probabilities: Float[Tensor, "*member batch action"]
) -> Float[Tensor, "*member batch"]:
    """Return V(s) = Σ_a π(a|s) Q(s, a), as in expected SARSA (Sutton & Barto 2018, eq. 6.9)."""
    return (probabilities * q_values).sum(-1)


def squared_error(
    values: Float[Tensor, "*member batch"], targets: Float[Tensor, "*#member batch"]
) -> Float[Tensor, "*member batch"]:
    """Return (Q − y)², without the factor ½, as CQL's authors and CORL have it."""
    return (values - targets).square()


def huber(
    values: Float[Tensor, "*member batch"], targets: Float[Tensor, "*#member batch"]
) -> Float[Tensor, "*member batch"]:
    """Return ½e² for |e| ≤ 1, |e| − ½ beyond, with e = Q − y: the loss of DQN (Mnih et al. 2015, Methods)."""
    return functional.smooth_l1_loss(values, targets.expand_as(values), reduction="none")


def mean_over_batch(rows: Float[Tensor, "*member batch"]) -> Float[Tensor, "*member"]:
    """Return the mean over the batch, never over members."""
    return rows.mean(-1)


def masked_mean(
    rows: Float[Tensor, "*member batch"],
    mask: Float[Tensor, "*#member batch"] | Bool[Tensor, "*#member batch"] | None,
) -> Float[Tensor, "*member"]:
    """Return Σ m x / Σ m over the batch; 0 where the mask is empty. Without a mask, the mean."""
    if mask is None:
        return mean_over_batch(rows)
    weights = mask.to(rows.dtype).expand_as(rows)
    return (weights * rows).sum(-1) / weights.sum(-1).clamp(min=1.0)
