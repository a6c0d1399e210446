"""Values as categorical distributions over bins ("Stop Regressing", Farebrother et al., arXiv 2403.03950).

A target becomes probabilities, the loss is their cross-entropy with softmax(logits), and Q = Σ_i p_i c_i.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def hl_gauss(
    targets: Float[Tensor, "*member batch"], edges: Float[Tensor, "*#member #batch edge"], sigma: float | Tensor
) -> Float[Tensor, "*member batch bin"]:
    """Return a Gaussian over bins: p_i ∝ Φ((e_{i+1} − y) / σ) − Φ((e_i − y) / σ), Σ p_i = 1.

    Their section 3.1 and the listing in appendix A. `sigma` has the unit of the targets; it is a number, or broadcasts
    against [..., batch, edge]. A target between the first and the last edge has finite probabilities.
    """
    cumulative = torch.erf((edges - targets.unsqueeze(-1)) / (math.sqrt(2.0) * sigma))
    return cumulative.diff(dim=-1) / (cumulative[..., -1:] - cumulative[..., :1])


def two_hot(
    targets: Float[Tensor, "*member batch"], centres: Float[Tensor, "*#member #batch bin"]
) -> Float[Tensor, "*member batch bin"]:
    """Return p_i = max(0, 1 − |y − c_i| / w), w the distance of two centres: y is the mean of its neighbours.

    Their section 3.1; targets lie between the first and the last centre.
    """
    width = centres[..., 1:2] - centres[..., :1]
    return (1.0 - (targets.unsqueeze(-1) - centres).abs() / width).clamp(min=0.0)


def cross_entropy(
    logits: Float[Tensor, "*member batch bin"], probabilities: Float[Tensor, "*#member batch bin"]
) -> Float[Tensor, "*member batch"]:
    """Return −Σ_i p_i log softmax(z)_i (their eq. 5)."""
    return -(probabilities * logits.log_softmax(-1)).sum(-1)


def expectation(
    logits: Float[Tensor, "*member batch bin"], centres: Float[Tensor, "*#member #batch bin"]
) -> Float[Tensor, "*member batch"]:
    """Return Q = Σ_i softmax(z)_i c_i."""
    return (logits.softmax(-1) * centres).sum(-1)


def expectation_slope(
    logits: Float[Tensor, "*member batch bin"], centres: Float[Tensor, "*#member #batch bin"]
) -> Float[Tensor, "*member batch bin"]:
    """Return ∂Q/∂z_i = p_i (c_i − Q)."""
    return logits.softmax(-1) * (centres - expectation(logits, centres).unsqueeze(-1))


def outside(
    targets: Float[Tensor, "*member batch"], low: float | Tensor, high: float | Tensor
) -> Float[Tensor, "*member batch"]:
    """Return 1 where a target lies beyond [low, high], 0 elsewhere."""
    return ((targets < low) | (targets > high)).to(targets.dtype)
