"""TD3 (Fujimoto et al., arXiv 1802.09477) and what TD3+BC (Fujimoto & Gu, arXiv 2106.06860) adds to it."""

import torch
from jaxtyping import Float
from torch import Tensor


def smoothed_actions(
    actions: Float[Tensor, "*member batch dim"],
    noise: Float[Tensor, "*member batch dim"],
    scale: float | Tensor,
    clip: float | Tensor,
) -> Float[Tensor, "*member batch dim"]:
    """Return clip(π̄(s') + clip(σ ε, −c, c), −1, 1), ε ~ N(0, 1): target policy smoothing (TD3, eq. 14)."""
    limit = torch.as_tensor(clip, dtype=noise.dtype)
    return (actions + (scale * noise).clamp(-limit, limit)).clamp(-1.0, 1.0)


def q_scale(q: Float[Tensor, "*member batch"]) -> Float[Tensor, "*member 1"]:
    """Return 1 / mean |Q| over the batch, without gradient: the normalisation in TD3+BC's λ (eq. 5)."""
    return q.detach().abs().mean(-1, keepdim=True).reciprocal()
