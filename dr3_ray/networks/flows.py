"""Vector fields on actions, and policies that map noise to actions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.encoders import MLP, Generators, StackedLinear
from dr3_ray.observations import Observations


class VectorField(nn.Module):
    """A network v(s, x, t) from states, points among actions and times to a velocity; untimed: v(s, x)."""

    def __init__(self, generators: Generators, architecture: Architecture, action_dim: int, timed: bool = True):
        super().__init__()
        self.observe = architecture.observation_encoder(generators)
        self.encoder = MLP(generators, self.observe.n_out + action_dim + timed, architecture.hidden_sizes)
        self.head = StackedLinear(generators, self.encoder.n_out, action_dim)

    def states(self, observations: Observations) -> Float[Tensor, "member 1 batch n"]:
        """Return what `at` takes for observations [K, B, *observation]."""
        states: Tensor = self.observe(observations, self.head.weight.dtype)
        return states

    def at(
        self, states: Float[Tensor, "member 1 batch n"], points: Tensor, *times: Tensor
    ) -> Float[Tensor, "member batch dim"]:
        """Return the velocity at points [K, B, A] and, where the field is timed, times [K, B] in [0, 1]."""
        inputs = torch.cat([points, *(time.unsqueeze(-1) for time in times)], dim=-1)
        value: Tensor = self.head(self.encoder(torch.cat([states, inputs.unsqueeze(1)], dim=-1)))
        return value.squeeze(1)

    def forward(self, observations: Observations, points: Tensor, *times: Tensor) -> Float[Tensor, "member batch dim"]:
        """Return the velocity at observations [K, B, *observation]."""
        return self.at(self.states(observations), points, *times)

    def transported(
        self, observations: Observations, noise: Float[Tensor, "member batch dim"], steps: int
    ) -> Float[Tensor, "member batch dim"]:
        """Return where Euler's method with equal steps takes points from time 0 to 1."""
        states, points = self.states(observations), noise
        for step in range(steps):
            points = points + self.at(states, points, torch.full_like(points[..., 0], step / steps)) / steps
        return points


class NoiseActor(VectorField):
    """A policy a = μ(s, z), z ~ N(0, I), moved into [−1, 1]; its mode is μ(s, 0)."""

    def __init__(self, generators: Generators, architecture: Architecture, action_dim: int):
        super().__init__(generators, architecture, action_dim, timed=False)

    def mode(self, observations: Observations) -> Float[Tensor, "member batch dim"]:
        """Return the action at z = 0: that of deterministic evaluation."""
        states = self.states(observations)
        zeros = states.new_zeros(*states.shape[:1], states.shape[2], self.head.weight.shape[-1])
        return self.at(states, zeros).clamp(-1.0, 1.0)

    def sample(
        self, observations: Observations, generator: torch.Generator | None = None
    ) -> Float[Tensor, "member batch dim"]:
        """Draw an action of each row."""
        states = self.states(observations)
        shape = (*states.shape[:1], states.shape[2], self.head.weight.shape[-1])
        return self.at(states, torch.randn(shape, generator=generator)).clamp(-1.0, 1.0)
