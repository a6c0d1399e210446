"""Ensembles whose critics differ (An et al., "EDAC", arXiv 2110.01548)."""

from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

TINY = 1e-10  # beside a norm, as in the authors' code


def likeness(slopes: Float[Tensor, "*member critic batch dim"]) -> Float[Tensor, "*member batch"]:
    """Return Σ_{i≠j} cos(∇_a Q_i, ∇_a Q_j) / (C − 1) at each row (eq. 5): C where all critics agree on a direction."""
    units = slopes / (vector_norm(slopes, dim=-1, keepdim=True) + TINY)
    all_pairs, own_pairs = units.sum(-3).square().sum(-1), units.square().sum((-3, -1))
    mean: Tensor = (all_pairs - own_pairs) / (slopes.shape[-3] - 1)
    return mean
