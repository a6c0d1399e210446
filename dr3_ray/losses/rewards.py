"""Rewards as critics learn them: shifted, scaled and cut."""

from jaxtyping import Float
from torch import Tensor


def transformed(
    rewards: Float[Tensor, "*member batch"], shift: Tensor, scale: Tensor, limit: Tensor
) -> Float[Tensor, "*member batch"]:
    """Return scale · (r + shift), cut to [−limit, limit]; all of them broadcast, as [member, 1] do.

    IQL (Kostrikov et al., arXiv 2110.06169) subtracts 1 in AntMaze, and elsewhere takes 1000 over the range of the
    episodes' returns for the scale; DQN (Mnih et al. 2015) cuts to ±1.
    """
    return (scale * (rewards + shift)).clamp(min=-limit, max=limit)
