"""Ranks of features: effective (Kumar et al., arXiv 2010.14498) and stable (Rudelson & Vershynin, math/0503442)."""

import torch
from jaxtyping import Float
from torch import Tensor


def singular_values(phi: Float[Tensor, "*member row feature"]) -> Float[Tensor, "*member feature"]:
    """Return the singular values of the feature matrix in float64, the largest first; NaN if an entry is not finite.

    Of fewer rows than features, the last ones are 0.
    """
    # σ² are the eigenvalues of φᵀφ: a feature × feature problem; float64 keeps the small ones
    gram = phi.double().mT @ phi.double()
    finite = gram.isfinite().all(-1).all(-1)
    safe = torch.where(finite[..., None, None], gram, torch.zeros_like(gram))
    sigma = torch.linalg.eigvalsh(safe).clamp(min=0.0).sqrt().flip(-1)
    return torch.where(finite.unsqueeze(-1), sigma, torch.nan)


def effective_rank(phi: Float[Tensor, "*member row feature"], delta: float = 0.01) -> Float[Tensor, "*member"]:
    """Return srank_δ = min{k : Σ_{i≤k} σ_i / Σ σ_i ≥ 1 − δ}, σ the singular values of the feature matrix, not squared.

    Use at least 2,048 rows. A feature matrix of zeros has rank 0, one with a non-finite entry has rank NaN.
    """
    sigma = singular_values(phi)
    share = sigma.cumsum(-1) / sigma.sum(-1, keepdim=True)
    rank = torch.where(sigma.sum(-1) > 0, (share < 1.0 - delta).sum(-1) + 1, 0).to(phi.dtype)
    return torch.where(sigma.isfinite().all(-1), rank, torch.nan)


def stable_rank(phi: Float[Tensor, "*member row feature"]) -> Float[Tensor, "*member"]:
    """Return ‖Φ‖²_F / ‖Φ‖²₂ = Σ σ_i² / σ_1² of the feature matrix: no threshold, and at most its rank.

    A feature matrix of zeros has rank 0, one with a non-finite entry has rank NaN.
    """
    squares = singular_values(phi).square()
    rank = squares.sum(-1) / squares[..., 0]
    return torch.where(squares[..., 0] == 0, torch.zeros_like(rank), rank).to(phi.dtype)


def feature_rank(
    phi: Float[Tensor, "member critic batch feature"],
    next_phi: Float[Tensor, "member critic batch feature"],
    mask: Float[Tensor, "member batch"],
) -> dict[str, Float[Tensor, "member"]]:
    """Return the effective rank of φ(s, a) over all rows, averaged over the critics."""
    return {"effective_rank": effective_rank(phi).mean(-1)}


def ranks(phi: Float[Tensor, "member critic batch feature"]) -> dict[str, Float[Tensor, "member"]]:
    """Return effective and stable rank of φ(s, a) over all rows, averaged over the critics."""
    return {"effective_rank": effective_rank(phi).mean(-1), "stable_rank": stable_rank(phi).mean(-1)}
