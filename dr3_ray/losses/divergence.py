"""How far a policy is from the behaviour, from samples at each state, as in BRAC (Wu et al., arXiv 1911.11361).

Equations of its section 4 and of the authors' code: primal estimates, without a learned critic of the divergence.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, float | Tensor], Tensor]


def kl_estimate(
    log_probs: Float[Tensor, "*member batch sample"], behaviour_log_probs: Float[Tensor, "*member batch sample"]
) -> Float[Tensor, "*member batch"]:
    """Return KL(π ‖ b) ≈ mean_n log π(a_n|s) − log b(a_n|s), a_n ~ π."""
    return (log_probs - behaviour_log_probs).mean(-1)


def laplacian_kernel(
    x: Float[Tensor, "*batch n dim"], y: Float[Tensor, "*batch m dim"], sigma: float | Tensor
) -> Float[Tensor, "*batch n m"]:
    """Return exp(−‖x − y‖₁ / σ), as the authors have it; BEAR's code divides by 2σ."""
    return torch.exp(-(x.unsqueeze(-2) - y.unsqueeze(-3)).abs().sum(-1) / sigma)


def gaussian_kernel(
    x: Float[Tensor, "*batch n dim"], y: Float[Tensor, "*batch m dim"], sigma: float | Tensor
) -> Float[Tensor, "*batch n m"]:
    """Return exp(−‖x − y‖² / 2σ²); BEAR's code divides by 2σ."""
    return torch.exp(-(x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1) / (2.0 * sigma**2))


KERNELS: dict[str, Kernel] = {"laplacian": laplacian_kernel, "gaussian": gaussian_kernel}


def mmd(
    actions: Float[Tensor, "*member batch n dim"],
    behaviour_actions: Float[Tensor, "*member batch m dim"],
    kernel: Kernel,
    sigma: float | Tensor,
) -> Float[Tensor, "*member batch"]:
    """Return MMD² = mean k(a, a') + mean k(b, b') − 2 mean k(a, b), over all pairs; no root: the authors' default."""
    within = [kernel(x, x, sigma).mean((-2, -1)) for x in (actions, behaviour_actions)]
    return within[0] + within[1] - 2.0 * kernel(actions, behaviour_actions, sigma).mean((-2, -1))
