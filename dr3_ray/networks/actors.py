"""Policies, all with actions in [−1, 1]; `mode` is the action of deterministic evaluation."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.encoders import MLP, Generators, StackedLinear
from dr3_ray.observations import Observations

LOG_STD_RANGE = (-20.0, 2.0)  # as in the SAC authors' code and CORL
ACTION_EPSILON = 1e-6  # data actions are kept this far from ±1 before atanh: float32's atanh(1 − 1e-7) is inf


def greedy(values: Float[Tensor, "*batch action"]) -> Int[Tensor, "*batch"]:
    """Return the action of the largest value, the first of equal ones; −1, which is no action, where a value is NaN."""
    return values.argmax(-1).masked_fill(values.isnan().any(-1), -1)


class SquashedGaussianActor(nn.Module):
    """A squashed Gaussian policy: a = tanh(u), u ~ N(mean(s), std(s)²), components independent."""

    def __init__(self, generators: Generators, architecture: Architecture, action_dim: int):
        super().__init__()
        self.observe = architecture.observation_encoder(generators)
        self.encoder = MLP(generators, self.observe.n_out, architecture.hidden_sizes)
        self.head = StackedLinear(generators, self.encoder.n_out, 2 * action_dim)

    def forward(
        self, observations: Observations
    ) -> tuple[Float[Tensor, "member batch dim"], Float[Tensor, "member batch dim"]]:
        """Return mean and log standard deviation of u."""
        hidden = self.encoder(self.observe(observations, self.head.weight.dtype))
        mean, log_std = self.head(hidden).squeeze(1).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def mode(self, observations: Observations) -> Float[Tensor, "member batch dim"]:
        """Return tanh(mean): the action of deterministic evaluation."""
        return torch.tanh(self(observations)[0])

    def sample(
        self, observations: Observations, generator: torch.Generator | None = None
    ) -> Float[Tensor, "member batch dim"]:
        """Draw an action of each row."""
        mean, log_std = self(observations)
        return squashed_sample(mean, log_std, torch.randn(mean.shape, generator=generator))[0]


class GaussianActor(nn.Module):
    """A policy a ~ N(mean(s), std²), not squashed, with mean in (−1, 1) by a tanh and one std for all states."""

    def __init__(self, generators: Generators, architecture: Architecture, action_dim: int):
        super().__init__()
        self.observe = architecture.observation_encoder(generators)
        self.encoder = MLP(generators, self.observe.n_out, architecture.hidden_sizes)
        self.head = StackedLinear(generators, self.encoder.n_out, action_dim)
        self.log_std = nn.Parameter(torch.zeros(len(generators), 1, action_dim))

    def forward(
        self, observations: Observations
    ) -> tuple[Float[Tensor, "member batch dim"], Float[Tensor, "member 1 dim"]]:
        """Return mean and log standard deviation of a."""
        hidden = self.encoder(self.observe(observations, self.head.weight.dtype))
        return torch.tanh(self.head(hidden).squeeze(1)), self.log_std.clamp(*LOG_STD_RANGE)

    def mode(self, observations: Observations) -> Float[Tensor, "member batch dim"]:
        """Return the mean."""
        mean: Tensor = self(observations)[0]
        return mean

    def sample(
        self, observations: Observations, generator: torch.Generator | None = None
    ) -> Float[Tensor, "member batch dim"]:
        """Draw an action of each row, moved into [−1, 1]."""
        mean, log_std = self(observations)
        drawn: Tensor = mean + log_std.exp() * torch.randn(mean.shape, generator=generator)
        return drawn.clamp(-1.0, 1.0)


class DeterministicActor(nn.Module):
    """A deterministic policy: a = tanh(net(s))."""

    def __init__(self, generators: Generators, architecture: Architecture, action_dim: int):
        super().__init__()
        self.observe = architecture.observation_encoder(generators)
        self.encoder = MLP(generators, self.observe.n_out, architecture.hidden_sizes)
        self.head = StackedLinear(generators, self.encoder.n_out, action_dim)

    def forward(self, observations: Observations) -> Float[Tensor, "member batch dim"]:
        """Return the action."""
        hidden = self.encoder(self.observe(observations, self.head.weight.dtype))
        return torch.tanh(self.head(hidden).squeeze(1))

    def mode(self, observations: Observations) -> Float[Tensor, "member batch dim"]:
        """Return the action."""
        actions: Tensor = self(observations)
        return actions


class CategoricalActor(nn.Module):
    """Logits over discrete actions."""

    def __init__(self, generators: Generators, architecture: Architecture, n_actions: int):
        super().__init__()
        self.observe = architecture.observation_encoder(generators)
        self.encoder = MLP(generators, self.observe.n_out, architecture.hidden_sizes)
        self.head = StackedLinear(generators, self.encoder.n_out, n_actions)

    def forward(self, observations: Observations) -> Float[Tensor, "member batch action"]:
        """Return the logits."""
        logits: Tensor = self.head(self.encoder(self.observe(observations, self.head.weight.dtype)))
        return logits.squeeze(1)

    def mode(self, observations: Observations) -> Tensor:
        """Return the most likely action, [K, B] integers."""
        logits: Tensor = self(observations)
        return greedy(logits)

    def sample(self, observations: Observations, generator: torch.Generator | None = None) -> Tensor:
        """Draw an action of each row, [K, B] integers; −1, which is no action, where a logit is NaN."""
        logits: Tensor = self(observations)
        drawn = categorical_sample(logits, torch.rand(logits.shape[:-1], generator=generator))
        return drawn.masked_fill(logits.isnan().any(-1), -1)


def categorical_sample(
    logits: Float[Tensor, "*batch action"], uniform: Float[Tensor, "*batch"]
) -> Int[Tensor, "*batch"]:
    """Return the first action whose cumulated probability exceeds u in [0, 1)."""
    cumulated = logits.softmax(-1).cumsum(-1)
    below = (cumulated <= uniform.unsqueeze(-1)).sum(-1)
    return below.clamp(max=logits.shape[-1] - 1)  # the last sum may round to less than 1


def squashed_sample(
    mean: Float[Tensor, "*#batch dim"], log_std: Float[Tensor, "*#batch dim"], noise: Float[Tensor, "*batch dim"]
) -> tuple[Float[Tensor, "*batch dim"], Float[Tensor, "*batch"]]:
    """Return a = tanh(mean + std · noise) and log π(a|s), differentiable in mean and log_std."""
    u = mean + log_std.exp() * noise
    log_probs = gaussian_log_prob(noise, log_std) - tanh_log_det(u)
    return torch.tanh(u), log_probs


def squashed_log_prob(
    mean: Float[Tensor, "*#batch dim"], log_std: Float[Tensor, "*#batch dim"], actions: Float[Tensor, "*batch dim"]
) -> Float[Tensor, "*batch"]:
    """Return log π(a|s) of given actions in [−1, 1]."""
    u = torch.atanh(actions.clamp(-1.0 + ACTION_EPSILON, 1.0 - ACTION_EPSILON))
    return gaussian_log_prob((u - mean) * (-log_std).exp(), log_std) - tanh_log_det(u)


def gaussian_log_prob(
    noise: Float[Tensor, "*batch dim"], log_std: Float[Tensor, "*#batch dim"]
) -> Float[Tensor, "*batch"]:
    """Return log N(u; mean, std²) with noise = (u − mean) / std."""
    return (-0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)).sum(-1)


def tanh_log_det(u: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Return Σ log(1 − tanh²u) = Σ 2 (log 2 − u − softplus(−2u)): exact where 1 − tanh² rounds to 0."""
    return (2.0 * (math.log(2.0) - u - functional.softplus(-2.0 * u))).sum(-1)


class LogTemperature(nn.Module):
    """A parameter log α, one a member, so that checkpoints hold it."""

    def __init__(self, members: int, initial: float = 0.0):
        super().__init__()
        self.log_alpha = nn.Parameter(torch.full((members,), initial))

    def forward(self) -> Float[Tensor, "member"]:
        """Return log α, [K]."""
        return self.log_alpha
