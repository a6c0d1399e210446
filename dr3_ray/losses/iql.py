"""Implicit Q-learning (Kostrikov et al., "IQL", arXiv 2110.06169)."""

from jaxtyping import Float
from torch import Tensor


def expectile_loss(
    advantages: Float[Tensor, "*member batch"], expectile: float | Tensor
) -> Float[Tensor, "*member batch"]:
    """Return |τ − 1(u < 0)| u² with u = Q(s, a) − V(s) (eq. 5).

    V(s) becomes the τ-expectile of Q over the data's actions.
    """
    return (expectile - (advantages < 0.0).to(advantages.dtype)).abs() * advantages.square()


def advantage_weights(
    advantages: Float[Tensor, "*member batch"], temperature: float | Tensor, clip: float | Tensor
) -> Float[Tensor, "*member batch"]:
    """Return min(exp(β u), clip), without gradient: the weights of advantage-weighted regression (eq. 7).

    β is the inverse temperature and the weights reach `clip`, 100 in the authors' code and in CORL.
    """
    weights: Tensor = (temperature * advantages).exp()
    return weights.clamp(max=clip).detach()
