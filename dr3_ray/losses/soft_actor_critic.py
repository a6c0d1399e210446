"""Soft actor-critic (Haarnoja et al., arXiv 1812.05905)."""

from jaxtyping import Float
from torch import Tensor


def actor_loss(
    log_probs: Float[Tensor, "*member batch"], q: Float[Tensor, "*member batch"], temperature: Tensor
) -> Float[Tensor, "*member batch"]:
    """Return α log π(a|s) − Q(s, a), a ~ π (eq. 7); α without gradient."""
    return temperature.detach() * log_probs - q


def temperature_loss(
    log_temperature: Tensor, log_probs: Float[Tensor, "*member batch"], target_entropy: float | Tensor
) -> Float[Tensor, "*member batch"]:
    """Return −log α · (log π(a|s) + H̄), log π without gradient.

    The paper's eq. 18 has α in the place of log α; the authors' code, rlkit and CORL take log α, and so do we.
    """
    return -log_temperature * (log_probs + target_entropy).detach()
