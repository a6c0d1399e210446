"""SEEM, the eigenvalue that says whether TD excites itself (Yue et al., arXiv 2310.04411), of the last layer alone.

Their A = γ K((s', a'), (s, a)) − K((s, a), (s, a)), K the inner products of gradients. With gradients of the last layer
alone, without its bias, A = (γΦ' − Φ) Φᵀ. Its eigenvalues other than 0 are those of Φᵀ (γΦ' − Φ), which is feature ×
feature. Above 0, a step of TD moves Q(s, a) away from its target along some direction. DR3 shrinks the trace of Φ'Φᵀ.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dr3_ray.diagnostics.implicit import semi_gradient_jacobian

EXACT = 128  # features up to which all eigenvalues are found; of 256 it took 50 ms a critic, of 512 half a second
STEPS = 48  # of Arnoldi's iteration for more: 5 ms, and within 10⁻⁴ of the norm of the kernel on trained critics


def seem_eigenvalue(
    phi: Float[Tensor, "*member batch feature"],
    next_phi: Float[Tensor, "*member batch feature"],
    discounts: Float[Tensor, "*#member batch"],
    weights: Float[Tensor, "*#member batch"],
) -> Float[Tensor, "*member"]:
    """Return the largest real part of the eigenvalues of Σ_i w_i φ_i (γ_i φ'_i − φ_i)ᵀ; NaN if an entry is not finite.

    With w = 1 the matrix is Φᵀ (γΦ' − Φ), with w = 1 / N its mean over rows. γ_i is 0 behind a terminal step.
    """
    matrix = -semi_gradient_jacobian(phi, next_phi, discounts, weights).double()
    finite = matrix.isfinite().all(-1).all(-1)
    safe = torch.where(finite[..., None, None], matrix, torch.zeros_like(matrix))
    small = safe if safe.shape[-1] <= EXACT else arnoldi(safe, STEPS)
    largest = torch.linalg.eigvals(small).real.amax(-1) + 0.0  # no −0
    return torch.where(finite, largest, torch.nan).to(phi.dtype)


def arnoldi(matrix: Float[Tensor, "*member row row"], steps: int) -> Float[Tensor, "*member step step"]:
    """Return a smaller matrix whose outermost eigenvalues are nearly those of the given one (Arnoldi 1951).

    It is QᵀAQ on the space of x, Ax, …, A^(steps − 1) x, from an x that is always the same. Where that space has fewer
    dimensions, the rest of the diagonal is −‖A‖, which no eigenvalue is below.
    """
    source = torch.Generator().manual_seed(0)
    first = torch.randn(matrix.shape[-1], 1, dtype=matrix.dtype, generator=source).to(matrix.device)
    basis = (first / first.norm()).expand(*matrix.shape[:-1], 1)
    size = torch.linalg.matrix_norm(matrix)
    eigenvalue: Tensor = -size[..., None, None] * torch.eye(steps, dtype=matrix.dtype, device=matrix.device)
    goes_on = torch.ones_like(size, dtype=torch.bool).unsqueeze(-1)
    for step in range(steps):
        vector = matrix @ basis[..., -1:]
        parts = basis.mT @ vector
        vector = vector - basis @ parts
        more = basis.mT @ vector  # once more, or rounding would let the basis lean
        vector = vector - basis @ more
        eigenvalue[..., : step + 1, step] = torch.where(
            goes_on, (parts + more).squeeze(-1), eigenvalue[..., : step + 1, step]
        )
        length = vector.norm(dim=-2)
        goes_on = goes_on & (length > 1e-12 * size.unsqueeze(-1))
        length = torch.where(goes_on, length, torch.ones_like(length))
        if step + 1 < steps:
            eigenvalue[..., step + 1, step] = (length * goes_on).squeeze(-1)
            basis = torch.cat([basis, vector * (goes_on / length).unsqueeze(-1)], dim=-1)
    return eigenvalue


def kernel_norm(
    phi: Float[Tensor, "*member batch feature"],
    next_phi: Float[Tensor, "*member batch feature"],
    discounts: Float[Tensor, "*#member batch"],
    weights: Float[Tensor, "*#member batch"],
) -> Float[Tensor, "*member"]:
    """Return ‖√W (ΓΦ' − Φ) Φᵀ √W‖_F, by which SEEM's eigenvalue is divided to have no scale.

    It is √tr(ΦᵀWΦ · ΔᵀWΔ) with Δ = ΓΦ' − Φ: no row × row matrix is made.
    """
    root = weights.sqrt().unsqueeze(-1)
    here = root * phi
    ahead = root * discounts.unsqueeze(-1) * next_phi - here
    squared = ((here.mT @ here).double() * (ahead.mT @ ahead).double()).sum((-1, -2))
    return squared.clamp(min=0.0).sqrt().to(phi.dtype)


def self_excitation(
    phi: Float[Tensor, "member critic batch feature"],
    next_phi: Float[Tensor, "member critic batch feature"],
    in_backup: Float[Tensor, "member batch"],
    trained: Float[Tensor, "member batch"],
    discounts: Float[Tensor, "member batch"],
) -> dict[str, Float[Tensor, "member"]]:
    """Return SEEM's eigenvalue, of the mean over the rows that are trained on, as it is and by the norm of its kernel.

    Of several critics the largest of each. Rows behind a terminal step are trained on, with a discount of 0.
    """
    weights = (trained / trained.sum(-1, keepdim=True).clamp(min=1.0)).unsqueeze(1)
    largest = seem_eigenvalue(phi, next_phi, discounts.unsqueeze(1), weights)
    norm = kernel_norm(phi, next_phi, discounts.unsqueeze(1), weights)
    share = torch.where(norm > 0, largest / norm, torch.zeros_like(norm))
    share = torch.where(largest.isnan(), largest, share)
    return {"seem_eigenvalue": largest.amax(-1), "seem_normalized": share.amax(-1)}
