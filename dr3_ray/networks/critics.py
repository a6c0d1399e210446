"""Critics return (q, φ): φ is by construction the input of the last linear layer."""

from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dr3_ray.networks.architecture import Architecture, ObservationEncoder
from dr3_ray.networks.coding import Coding
from dr3_ray.networks.encoders import MLP, Generators, StackedLinear
from dr3_ray.networks.stochastic import ahead
from dr3_ray.observations import Observations, each_part
from dr3_ray.types import Backup, Transition


class Critic(Protocol):
    """The methods of a critic that a regulariser may use."""

    def features(self, observations: Observations, actions: Tensor) -> Float[Tensor, "member critic batch feature"]:
        """Return φ(s, a)."""
        ...

    def encoded(self, observations: Observations) -> Float[Tensor, "member critic batch pixel_feature"]:
        """Return the flattened output of the image encoders, before an action joins."""
        ...

    def posterior(self, observations: Observations, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of φ(s, a), each as φ, where the encoder ends in a bottleneck."""
        ...

    def values(self, observations: Observations, actions: Tensor) -> Float[Tensor, "member critic batch"]:
        """Return Q(s, a) alone, of heads or quantiles the mean."""
        ...

    def along(self, batch: Transition, next_actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Evaluate (s, a) and, if the critic `looks_ahead`, (s', a') in one pass.

        Returns the outputs that say what Q(s, a) is, φ(s, a) [K, C, B, F], and φ(s', a') like it or None. The outputs
        are Q itself [K, C, B], or logits [K, C, B, bins]; `coding.decode` returns Q. `next_actions` is a' of the
        backup: [K, B] or [K, B, A]. Critics of discrete actions take `every` as well: the outputs are then those of
        every action, [K, C, B, n] or [K, C, B, n, bins].
        """
        ...

    @property
    def coding(self) -> Coding:
        """How outputs say what Q is, and the loss by which they learn a target."""
        ...

    @property
    def reads_actions(self) -> bool:
        """Whether φ depends on the action, and the last layer's outputs are those of every action alike."""
        ...


def next_features(critic: Any, batch: Transition, backup: Backup) -> Float[Tensor, "member critic batch feature"]:
    """Return φ(s', a'): from the backup where `along` found it, or else in a pass of its own."""
    if backup.next_phi is not None:
        return backup.next_phi
    with ahead(critic, 1.0):
        phi: Tensor = critic.features(batch.next_observations, backup.next_actions)
    return phi


def side_by_side(one: Observations, other: Observations) -> Observations:
    """Return rows [K, B, …] and behind them other rows [K, B', …]."""
    return each_part(lambda *parts: torch.cat(parts, dim=1), one, other)  # type: ignore[no-any-return]


class LooksAhead(nn.Module):
    """A critic whose `along` also finds φ(s', a') in its one pass, while it `looks_ahead`."""

    looks_ahead = True
    coding: Coding
    observe: ObservationEncoder
    head: StackedLinear

    def encoded(self, observations: Observations) -> Float[Tensor, "member critic batch pixel_feature"]:
        """Return the flattened output of the image encoders, before an action joins."""
        return self.observe.images(observations, self.head.weight.dtype)


class ContinuousCritic(LooksAhead):
    """C networks on [s, a] with one value each."""

    reads_actions = True

    def __init__(
        self,
        generators: Generators,
        architecture: Architecture,
        action_dim: int,
        n_critics: int = 2,
        layer_norm: bool = False,
    ):
        super().__init__()
        self.observe = architecture.observation_encoder(generators, n_critics)
        n_in = self.observe.n_out + action_dim
        self.encoder = MLP(generators, n_in, architecture.hidden_sizes, n_critics, layer_norm)
        self.head = StackedLinear(generators, self.encoder.n_out, 1, n_critics)
        self.coding = Coding()

    def forward(
        self, observations: Observations, actions: Float[Tensor, "member batch *sample dim"]
    ) -> tuple[Float[Tensor, "member critic batch *sample"], Float[Tensor, "member critic batch *sample feature"]]:
        """Return (Q(s, a), φ(s, a)) for observations [K, B, *observation] and one or N actions at each of them."""
        phi = self.features(observations, actions)
        rows = phi.flatten(2, -2)
        return self._of(rows).reshape(*phi.shape[:-1]), phi

    def values(
        self, observations: Observations, actions: Float[Tensor, "member batch *sample dim"], critics: int | None = None
    ) -> Float[Tensor, "member critic batch *sample"]:
        """Return Q(s, a) alone, of all or of the first critics: faster, for φ is not kept."""
        raw = self.encoder.column(self._pairs(observations, actions), self.head, critics)
        q = self.coding.decode(self.coding.one(raw))
        return q.view(*q.shape[:2], *actions.shape[1:-1])

    def slopes(
        self, observations: Observations, actions: Float[Tensor, "member batch dim"]
    ) -> Float[Tensor, "member critic batch dim"]:
        """Return ∇_a Q_c(s, a) of every critic, with a graph to its parameters."""
        states = self.observe(observations, self.head.weight.dtype)
        critics = self.head.weight.shape[1]
        own = actions.detach().unsqueeze(1).repeat(1, critics, 1, 1).requires_grad_()
        with torch.enable_grad():
            q = self._of(self.encoder(torch.cat([states.expand(-1, critics, -1, -1), own], dim=-1)))
            (gradients,) = torch.autograd.grad(q.sum(), own, create_graph=True)
        return gradients

    def along(
        self, batch: Transition, next_actions: Float[Tensor, "member batch dim"]
    ) -> tuple[Tensor, Float[Tensor, "member critic batch feature"], Tensor | None]:
        """Return (outputs of Q(s, a), φ(s, a), φ(s', a')) in one pass through both pairs."""
        if not self.looks_ahead or batch.next_observations is None:
            phi = self.features(batch.observations, batch.actions)
            return self.outputs_of(phi, batch.actions), phi, None
        rows = side_by_side(batch.observations, batch.next_observations)
        with ahead(self, 0.5):
            phi, next_phi = self.features(rows, torch.cat([batch.actions, next_actions], dim=1)).chunk(2, dim=2)
        return self.outputs_of(phi, batch.actions), phi, next_phi

    def outputs_of(self, phi: Float[Tensor, "member critic batch feature"], actions: Tensor) -> Tensor:
        """Return the outputs of Q(s, a) from φ(s, a), [K, C, B] or [K, C, B, bins]."""
        return self.coding.one(self.head(phi))

    def _of(self, phi: Float[Tensor, "member critic row feature"]) -> Float[Tensor, "member critic row"]:
        return self.coding.decode(self.coding.one(self.head(phi)))

    def features(
        self, observations: Observations, actions: Float[Tensor, "member batch *sample dim"]
    ) -> Float[Tensor, "member critic batch *sample feature"]:
        """Return φ(s, a)."""
        phi: Tensor = self.encoder(self._pairs(observations, actions))
        return phi.view(*phi.shape[:2], *actions.shape[1:-1], -1)

    def posterior(
        self, observations: Observations, actions: Float[Tensor, "member batch dim"]
    ) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of φ(s, a), each as φ, where the encoder ends in a bottleneck."""
        return self.encoder.posterior(self._pairs(observations, actions))

    def _pairs(self, observations: Observations, actions: Tensor) -> Float[Tensor, "member #critic row n_in"]:
        """Return [s, a], a row for every action."""
        states = self.observe(observations, self.head.weight.dtype)
        if actions.ndim == 4:  # N actions at each state
            states = states.repeat_interleave(actions.shape[2], dim=2)
        rows = actions.flatten(1, -2).unsqueeze(1).expand(-1, states.shape[1], -1, -1)
        return torch.cat([states, rows], dim=-1)


class ValueNetwork(nn.Module):
    """A network of V(s), one a member."""

    def __init__(self, generators: Generators, architecture: Architecture):
        super().__init__()
        self.observe = architecture.observation_encoder(generators)
        self.encoder = MLP(generators, self.observe.n_out, architecture.hidden_sizes)
        self.head = StackedLinear(generators, self.encoder.n_out, 1)

    def forward(self, observations: Observations) -> Float[Tensor, "member batch"]:
        """Return V(s) for observations [K, B, *observation]."""
        values: Tensor = self.head(self.encoder(self.observe(observations, self.head.weight.dtype)))
        return values.squeeze(-1).squeeze(1)
