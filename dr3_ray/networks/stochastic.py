"""Layers that draw noise while they are trained, each member from a generator of its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dr3_ray.networks.encoders import Generators, SpectralLinear, StackedLinear

LOG_STD_RANGE = (-10.0, 2.0)


class Stochastic(nn.Module):
    """A layer with noise in training steps alone, where a graph is built: targets, probes and acting have none.

    Each kind of layer has generators of its own, and so have rows of (s', a'): a member's noise is the same whatever
    its pack draws or evaluates for the sake of other members.
    """

    stream: str  # the kind: a purpose of generators
    generators: Sequence[torch.Generator] = ()  # one a member, given by whoever trains
    next_generators: Sequence[torch.Generator] = ()
    ahead = 0.0  # the share of the rows of a pass, its last ones, that are of (s', a')

    @property
    def draws(self) -> bool:
        """Whether this pass is a noisy one."""
        return self.training and torch.is_grad_enabled()

    def noise(self, x: Tensor, fill: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
        """Return noise for x [K, C, B, n], that of x[k] from member k's generators.

        It is drawn in float32, so that a float64 run sees equal numbers.
        """
        here = x.shape[2] - round(self.ahead * x.shape[2])

        def drawn(rows: int, sources: Sequence[torch.Generator]) -> Tensor:
            room = (x.shape[1], rows, x.shape[3])
            return torch.stack(
                [fill(torch.empty(room, dtype=torch.float32, device=x.device), source) for source in sources]
            )

        parts = [(here, self.generators), (x.shape[2] - here, self.next_generators)]
        return torch.cat([drawn(*part) for part in parts if part[0]], dim=2)


@contextmanager
def ahead(networks: nn.Module, share: float) -> Iterator[None]:
    """Take this share of the rows, the last ones, for rows of (s', a') while the context lasts."""
    layers = [layer for layer in networks.modules() if isinstance(layer, Stochastic | SpectralLinear)]
    for layer in layers:
        layer.ahead = share
    try:
        yield
    finally:
        for layer in layers:
            layer.ahead = 0.0


class Dropout(Stochastic):
    """Dropout: x times 0 with probability p, times 1 / (1 − p) otherwise; p is each member's own."""

    p: Tensor

    def __init__(self, p: Float[Tensor, "member"], stream: str = "dropout"):
        super().__init__()
        self.stream = stream
        self.register_buffer("p", p, persistent=False)  # an option, not a state

    def forward(self, x: Float[Tensor, "member critic batch n"]) -> Float[Tensor, "member critic batch n"]:
        """Return a tensor of the shape of x."""
        if not self.draws:
            return x
        uniform = self.noise(x, lambda room, source: room.uniform_(generator=source))
        p = self.p.view(-1, 1, 1, 1)
        return x * (uniform >= p) / (1.0 - p)


class Bottleneck(Stochastic):
    """A bottleneck z = mean(x) + std(x) · ε, ε ~ N(0, 1), without noise the mean (Alemi et al., arXiv 1612.00410)."""

    signed = True
    stream = "bottleneck"

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
        normal = self.noise(mean, lambda room, source: room.normal_(generator=source))
        return mean + log_std.exp() * normal


def passive(networks: nn.Module) -> bool:
    """Return whether a pass of training neither draws noise nor changes the networks' state."""
    return not any(isinstance(layer, Stochastic | SpectralLinear) for layer in networks.modules())
