"""Layers that draw noise while they are trained, each member from a generator of its own."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dr3_ray.networks.encoders import Generators, SpectralLinear, StackedLinear

LOG_STD_RANGE = (-10.0, 2.0)


class Stochastic(nn.Module):
    """A layer with noise in training steps alone, where a graph is built: targets, probes and acting have none."""

    generators: Sequence[torch.Generator] = ()  # one a member, given by whoever trains; not part of a checkpoint

    @property
    def draws(self) -> bool:
        """Whether this pass is a noisy one."""
        return self.training and torch.is_grad_enabled()

    def rooms(self, x: Tensor) -> list[tuple[Tensor, torch.Generator]]:
        """Return room for the noise of x[k] with member k's generator, in float32.

        A float64 run then sees equal numbers.
        """
        return [(torch.empty(x.shape[1:], dtype=torch.float32, device=x.device), each) for each in self.generators]


class Dropout(Stochastic):
    """Dropout: x times 0 with probability p, times 1 / (1 − p) otherwise; p is each member's own."""

    p: Tensor

    def __init__(self, p: Float[Tensor, "member"]):
        super().__init__()
        self.register_buffer("p", p, persistent=False)  # an option, not a state

    def forward(self, x: Float[Tensor, "member critic batch n"]) -> Float[Tensor, "member critic batch n"]:
        """Return a tensor of the shape of x."""
        if not self.draws:
            return x
        uniform = torch.stack([room.uniform_(generator=source) for room, source in self.rooms(x)])
        p = self.p.view(-1, 1, 1, 1)
        return x * (uniform >= p) / (1.0 - p)


class Bottleneck(Stochastic):
    """A bottleneck z = mean(x) + std(x) · ε, ε ~ N(0, 1), without noise the mean (Alemi et al., arXiv 1612.00410)."""

    signed = True

    def __init__(self, generators: Generators, n: int, copies: int):
        super().__init__()
        self.linear = StackedLinear(generators, n, 2 * n, copies)

    def posterior(self, x: Float[Tensor, "member critic batch n"]) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of z, each of the shape of x."""
        mean, log_std = self.linear(x).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def forward(self, x: Float[Tensor, "member critic batch n"]) -> Float[Tensor, "member critic batch n"]:
        """Return z."""
        mean, log_std = self.posterior(x)
        if not self.draws:
            return mean
        normal = torch.stack([room.normal_(generator=source) for room, source in self.rooms(mean)])
        return mean + log_std.exp() * normal


def passive(networks: nn.Module) -> bool:
    """Return whether a pass of training neither draws noise nor changes the networks' state."""
    return not any(isinstance(layer, Stochastic | SpectralLinear) for layer in networks.modules())
