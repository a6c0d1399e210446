"""Random ensemble mixtures (Agarwal et al., "REM", arXiv 1907.04543, section 4)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Law = Literal["uniform", "dirichlet", "one_hot"]


def mixture(uniform: Float[Tensor, "*member head"], law: Law) -> Float[Tensor, "*member head"]:
    """Return weights α ≥ 0 with Σ_h α_h = 1, from u in [0, 1).

    `uniform`: u_h / Σ u, the paper's and the authors' code. `dirichlet`: −log(1 − u_h) normalised, every point of the
    simplex alike. `one_hot`: all on the head of the largest u, a bootstrapped head.
    """
    if law == "one_hot":
        return torch.zeros_like(uniform).scatter(-1, uniform.argmax(-1, keepdim=True), 1.0)
    weights = uniform if law == "uniform" else -torch.log1p(-uniform)
    return weights / weights.sum(-1, keepdim=True)


def mix(
    heads: Float[Tensor, "*member batch action head"], weights: Float[Tensor, "*member head"]
) -> Float[Tensor, "*member batch action"]:
    """Return Σ_h α_h Q_h(s, a)."""
    return (heads * weights.unsqueeze(-2).unsqueeze(-2)).sum(-1)
