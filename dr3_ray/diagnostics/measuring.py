"""Numbers of a probe from the features, values and actions of one critic at its rows."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dr3_ray.diagnostics.implicit import last_layer_terms
from dr3_ray.diagnostics.rank import singular_values
from dr3_ray.diagnostics.registry import OF_FEATURES, OF_PAIRS

DRAWS = 10  # random actions a row
Features = Float[Tensor, "critic batch feature"]


class Pairs(NamedTuple):
    """Features at (s', a') for one choice of a', and in which rows it stands in a backup."""

    next_phi: Tensor  # [C, B, F]
    in_backup: Tensor  # [B]
    discounts: Tensor  # [B], γ, or γⁿ after n steps; not read behind a terminal step
    share: Tensor  # [B] or [C, B], as in `last_layer_terms`
    outputs: int = 1
    bias: float = 1.0
    own_share: Tensor | float = 1.0


def of_features(phi: Features) -> dict[str, float]:
    """Return ranks, and dead and dormant units, averaged over the critics."""
    numbers: dict[str, float] = {}
    for diagnostic in OF_FEATURES:
        numbers |= {name: values.item() for name, values in diagnostic(phi.unsqueeze(0)).items()}
    return numbers


def of_pairs(phi: Features, pairs: Pairs, terminateds: Float[Tensor, "batch"]) -> dict[str, float]:
    """Return dot product, cosine, norms, SEEM's eigenvalue and the terms of R_TD for one choice of a'."""
    trained = torch.maximum(pairs.in_backup, terminateds)
    rows = [weights.unsqueeze(0) for weights in (pairs.in_backup, trained, pairs.discounts * pairs.in_backup)]
    numbers: dict[str, float] = {}
    for diagnostic in OF_PAIRS:
        values = diagnostic(phi.unsqueeze(0), pairs.next_phi.unsqueeze(0), *rows)
        numbers |= {name: value.item() for name, value in values.items()}
    terms = last_layer_terms(phi, pairs.next_phi, pairs.in_backup, trained, *pairs[2:])
    return numbers | {name: value.mean().item() for name, value in terms.items()}


def spectrum_of(phi: Features) -> list[float]:
    """Return the singular values over √rows, the largest first, averaged over the critics."""
    values: list[float] = (singular_values(phi) / math.sqrt(phi.shape[1])).mean(0).tolist()
    return values


def of_values(
    q_data: Float[Tensor, "batch"], q_random: Float[Tensor, "batch draw"], q_policy: Float[Tensor, "batch"] | None
) -> dict[str, float]:
    """Return mean Q of the data's, the policy's and random actions, and in which share of draws the last is above.

    Equal values count half.
    """
    above = (q_random > q_data.unsqueeze(-1)).double() + (q_random == q_data.unsqueeze(-1)).double() / 2
    numbers = {"q_data": q_data.mean().item(), "q_std": q_data.std(correction=0).item()}
    numbers |= {} if q_policy is None else {"q_policy": q_policy.mean().item()}
    return numbers | {"q_random": q_random.mean().item(), "random_above": above.mean().item()}


def of_returns(
    q_data: Float[Tensor, "batch"], returns: Float[Tensor, "batch"], counts: Bool[Tensor, "batch"]
) -> dict[str, float]:
    """Return by how much Q is above the Monte-Carlo returns in the mean over the rows that count; nothing for none."""
    if not counts.any():
        return {}
    known = returns[counts]
    return {
        "overestimation": (q_data[counts] - known).mean().item(),
        "return_std": known.std(correction=0).item(),
        "return_rows": float(counts.sum().item()),
    }


def policy_distance(
    actions: Float[Tensor, "batch dim"] | Int[Tensor, "batch"], data: Float[Tensor, "batch dim"] | Int[Tensor, "batch"]
) -> float:
    """Return how far the policy is from the data.

    Of choices: the share of rows in which it takes another one. Of vectors: the root of the mean squared difference of
    a component, in the units of the data's actions, [−1, 1] in data sets.
    """
    if data.is_floating_point():
        return (actions - data).square().mean().sqrt().item()
    return (actions != data).double().mean().item()
