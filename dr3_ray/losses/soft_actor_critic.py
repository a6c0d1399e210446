"""Soft actor-critic (Haarnoja et al., arXiv 1812.05905)."""

from jaxtyping import Float
from torch import Tensor

from dr3_ray.losses.td import mean_over_batch


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


def policy_losses(
    log_probs: Float[Tensor, "*member batch"],
    q: Float[Tensor, "*member batch"],
    log_temperature: Float[Tensor, "*member 1"],
    target_entropy: float | Tensor,
) -> dict[str, Tensor]:
    """Return the mean losses `actor` and `temperature`, each [K], of actions a ~ π and their Q(s, a)."""
    return {
        "actor": mean_over_batch(actor_loss(log_probs, q, log_temperature.exp())),
        "temperature": mean_over_batch(temperature_loss(log_temperature, log_probs, target_entropy)),
    }
