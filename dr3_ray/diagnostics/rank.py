"""Effective rank of features (Kumar et al., arXiv 2010.14498)."""

import torch
from jaxtyping import Float
from torch import Tensor


def effective_rank(phi: Float[Tensor, "*member row feature"], delta: float = 0.01) -> Float[Tensor, "*member"]:
    """Return srank_δ = min{k : Σ_{i≤k} σ_i / Σ σ_i ≥ 1 − δ}, σ the singular values of the feature matrix, not squared.

    Use at least 2,048 rows. A feature matrix of zeros has rank 0, one with a non-finite entry has rank NaN.
    """
    # σ² are the eigenvalues of φᵀφ: a feature × feature problem; float64 keeps the small ones
    gram = phi.double().mT @ phi.double()
    finite = gram.isfinite().all(-1).all(-1)
    safe = torch.where(finite[..., None, None], gram, torch.zeros_like(gram))
    sigma = torch.linalg.eigvalsh(safe).clamp(min=0.0).sqrt().flip(-1)
    share = sigma.cumsum(-1) / sigma.sum(-1, keepdim=True)
    rank = torch.where(sigma.sum(-1) > 0, (share < 1.0 - delta).sum(-1) + 1, 0).to(phi.dtype)
    return torch.where(finite, rank, torch.nan)


def feature_rank(
    phi: Float[Tensor, "member critic batch feature"],
    next_phi: Float[Tensor, "member critic batch feature"],
    mask: Float[Tensor, "member batch"],
) -> dict[str, Float[Tensor, "member"]]:
    """Return the effective rank of φ(s, a) over all rows, averaged over the critics."""
    return {"effective_rank": effective_rank(phi).mean(-1)}
