"""Critics of discrete actions: with the action behind φ, as heads, or before it, as one-hot input."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dr3_ray.losses.td import value_of
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.coding import Coding
from dr3_ray.networks.critics import LooksAhead, side_by_side
from dr3_ray.networks.encoders import MLP, Generators, StackedLinear
from dr3_ray.networks.stochastic import ahead
from dr3_ray.observations import Observations
from dr3_ray.types import Transition


class DiscreteCritic(LooksAhead):
    """C networks with H outputs for each action, side by side; φ depends on the state alone."""

    reads_actions = False

    def __init__(
        self,
        generators: Generators,
        architecture: Architecture,
        n_actions: int,
        n_critics: int = 1,
        n_outputs: int = 1,
    ):
        super().__init__()
        self.observe = architecture.observation_encoder(generators, n_critics)
        self.encoder = MLP(generators, self.observe.n_out, architecture.hidden_sizes, n_critics)
        self.head = StackedLinear(generators, self.encoder.n_out, n_actions * n_outputs, n_critics)
        self.coding, self.n_outputs = Coding(), n_outputs

    def forward(
        self, observations: Observations
    ) -> tuple[Float[Tensor, "member critic batch action"], Float[Tensor, "member critic batch feature"]]:
        """Return (Q(s, ·), φ(s)) for observations [K, B, *observation]; with H outputs Q is [K, C, B, n · H]."""
        phi = self.encoder(self.observe(observations, self.head.weight.dtype))
        return self.coding.decode(self._of_every(phi)), phi

    def values(self, observations: Observations, actions: Int[Tensor, "member batch"]) -> Tensor:
        """Return Q(s, a), [K, C, B] or with several outputs [K, C, B, H]."""
        return self.coding.decode(self.outputs_of(self.features(observations, actions), actions))

    def along(
        self, batch: Transition, next_actions: Tensor | None, every: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return (outputs of Q(s, a), φ(s), φ(s')) in one pass through both states; with `every` those of Q(s, ·)."""
        if not self.looks_ahead or batch.next_observations is None:
            phi, next_phi = self.features(batch.observations, batch.actions), None
        else:
            rows = side_by_side(batch.observations, batch.next_observations)
            with ahead(self, 0.5):
                phi, next_phi = self.features(rows, batch.actions).chunk(2, dim=2)
        return self._of_every(phi) if every else self.outputs_of(phi, batch.actions), phi, next_phi

    def outputs_of(self, phi: Float[Tensor, "member critic batch feature"], actions: Tensor) -> Tensor:
        """Return the outputs of Q(s, a) from φ(s), [K, C, B], with several of an action [K, C, B, H or bins]."""
        outputs = self._of_every(phi)
        if self.n_outputs == 1:
            return self.coding.taken(outputs, actions)
        by_output = outputs.view(*outputs.shape[:3], -1, self.n_outputs).movedim(-1, 0)
        return value_of(by_output, actions.unsqueeze(1)).movedim(0, -1)

    def _of_every(self, phi: Tensor) -> Tensor:
        return self.coding.several(self.head(phi))

    def features(
        self, observations: Observations, actions: Int[Tensor, "member _"]
    ) -> Float[Tensor, "member critic batch feature"]:
        """Return φ(s), whatever the action."""
        phi: Tensor = self.encoder(self.observe(observations, self.head.weight.dtype))
        return phi

    def posterior(self, observations: Observations, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of φ(s), each as φ, where the encoder ends in a bottleneck."""
        return self.encoder.posterior(self.observe(observations, self.head.weight.dtype))


class ActionInputCritic(LooksAhead):
    """C networks on [s, one-hot a] with H outputs: φ depends on the action as well. Images are encoded before a joins.

    A state is encoded once for all of its actions.
    """

    reads_actions = True

    def __init__(
        self,
        generators: Generators,
        architecture: Architecture,
        n_actions: int,
        n_critics: int = 1,
        n_outputs: int = 1,
    ):
        super().__init__()
        self.observe = architecture.observation_encoder(generators, n_critics)
        self.encoder = MLP(generators, self.observe.n_out + n_actions, architecture.hidden_sizes, n_critics)
        self.head = StackedLinear(generators, self.encoder.n_out, n_outputs, n_critics)
        self.coding, self.n_actions, self.n_outputs = Coding(), n_actions, n_outputs

    def forward(
        self, observations: Observations
    ) -> tuple[Float[Tensor, "member critic batch action"], Float[Tensor, "member critic batch choice feature"]]:
        """Return (Q(s, ·), φ(s, ·)) in one pass through actions × batch; with H outputs Q is [K, C, B, n · H]."""
        phi = self.encoder(self._with_every(self._states(observations)))
        return self.coding.decode(self._of_every(phi)), phi.unflatten(2, (-1, self.n_actions))

    def values(self, observations: Observations, actions: Int[Tensor, "member batch"]) -> Tensor:
        """Return Q(s, a), [K, C, B] or with several outputs [K, C, B, H]."""
        return self.coding.decode(self.outputs_of(self.features(observations, actions), actions))

    def along(
        self, batch: Transition, next_actions: Int[Tensor, "member batch"], every: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return (outputs of Q(s, a), φ(s, a), φ(s', a')) in one pass; with `every` those of Q(s, ·) in that pass."""
        n, seen, after = batch.actions.shape[1], batch.observations, batch.next_observations
        looks = self.looks_ahead and after is not None
        states = self._states(side_by_side(seen, after) if looks and after is not None else seen)
        here, there = states[:, :, :n], states[:, :, n:]
        rows = self._with_every(here) if every else self._with(here, batch.actions)
        if looks:
            rows = torch.cat([rows, self._with(there, next_actions)], dim=2)
        with ahead(self, n / rows.shape[2] if looks else 0.0):
            rows_phi = self.encoder(rows)
        phi, next_phi = (rows_phi[:, :, :-n], rows_phi[:, :, -n:]) if looks else (rows_phi, None)
        if not every:
            return self.outputs_of(phi, batch.actions), phi, next_phi
        taken = batch.actions[:, None, :, None, None].expand(-1, phi.shape[1], -1, 1, phi.shape[-1])
        return self._of_every(phi), phi.unflatten(2, (n, -1)).gather(3, taken).squeeze(3), next_phi

    def features(
        self, observations: Observations, actions: Int[Tensor, "member batch"]
    ) -> Float[Tensor, "member critic batch feature"]:
        """Return φ(s, a)."""
        phi: Tensor = self.encoder(self._with(self._states(observations), actions))
        return phi

    def posterior(self, observations: Observations, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of φ(s, a), each as φ, where the encoder ends in a bottleneck."""
        return self.encoder.posterior(self._with(self._states(observations), actions))

    def _states(self, observations: Observations) -> Float[Tensor, "member #critic batch state"]:
        states: Tensor = self.observe(observations, self.head.weight.dtype)
        return states

    def _with(self, states: Tensor, actions: Tensor) -> Float[Tensor, "member #critic batch n_in"]:
        """Return [s, a] of actions [K, B]; one that is none, −1, stands as zeros."""
        choices = torch.arange(self.n_actions, device=actions.device)
        chosen = (actions.unsqueeze(-1) == choices).to(states.dtype).unsqueeze(1)
        return torch.cat([states, chosen.expand(-1, states.shape[1], -1, -1)], dim=-1)

    def _with_every(self, states: Tensor) -> Float[Tensor, "member #critic row n_in"]:
        """Return [s, a], a row for every action at each state."""
        choices = torch.eye(self.n_actions, dtype=states.dtype, device=states.device)
        sizes = (*states.shape[:3], self.n_actions, -1)
        return torch.cat([states.unsqueeze(3).expand(sizes), choices.expand(sizes)], dim=-1).flatten(2, 3)

    def outputs_of(self, phi: Float[Tensor, "member critic batch feature"], actions: Tensor) -> Tensor:
        """Return the outputs of Q(s, a) from φ(s, a), [K, C, B], with several of an action [K, C, B, H or bins]."""
        raw: Tensor = self.head(phi)
        return self.coding.one(raw) if self.n_outputs == 1 else raw

    def _of_every(self, phi: Tensor) -> Tensor:
        """Return those of Q(s, ·) from φ of every action at each state, [K, C, B · n, F].

        They are [K, C, B, n · H], or [K, C, B, n, bins].
        """
        return self.coding.several(self.head(phi).unflatten(2, (-1, self.n_actions)).flatten(3))


CriticActions = Literal["heads", "input"]
DISCRETE: dict[CriticActions, type[DiscreteCritic] | type[ActionInputCritic]] = {
    "heads": DiscreteCritic,
    "input": ActionInputCritic,
}
"""Where the action stands in a critic of discrete actions: behind φ, or before it."""


class MultiHeadCritic(nn.Module):
    """One trunk with H outputs an action: the heads of an ensemble, or the quantiles of a return."""

    def __init__(
        self,
        generators: Generators,
        architecture: Architecture,
        n_actions: int,
        n_heads: int,
        actions: CriticActions = "heads",
    ):
        super().__init__()
        self.critic = DISCRETE[actions](generators, architecture, n_actions, n_outputs=n_heads)
        self.n_heads = n_heads

    @property
    def reads_actions(self) -> bool:
        """Whether φ depends on the action, and every action has the same H outputs."""
        return self.critic.reads_actions

    @property
    def coding(self) -> Coding:
        """How an output says what Q is."""
        return self.critic.coding

    def encoded(self, observations: Observations) -> Float[Tensor, "member critic batch pixel_feature"]:
        """Return the flattened output of the image encoders, before an action joins."""
        return self.critic.encoded(observations)

    def forward(self, observations: Observations) -> tuple[Float[Tensor, "member batch action head"], Tensor]:
        """Return (Q_h(s, ·), φ) for observations [K, B, *observation]."""
        values, phi = self.critic(observations)
        return self._by_head(values), phi

    def values(
        self, observations: Observations, actions: Int[Tensor, "member batch"]
    ) -> Float[Tensor, "member 1 batch"]:
        """Return the mean of Q_h(s, a) over the heads."""
        every: Tensor = self.critic.values(observations, actions)
        return every.reshape(*every.shape[:3], self.n_heads).mean(-1)

    def along(
        self, batch: Transition, next_actions: Tensor | None, every: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return (Q_h(s, a) [K, B, H], φ(s, a), φ(s', a')) in one pass; with `every` Q_h(s, ·) [K, B, n, H]."""
        values, phi, next_phi = self.critic.along(batch, next_actions, every)  # type: ignore[arg-type]
        by_head = self._by_head(values)
        return by_head if every else by_head.squeeze(2), phi, next_phi

    def _by_head(self, values: Tensor) -> Tensor:
        return values.reshape(len(values), values.shape[2], -1, self.n_heads)

    def features(
        self, observations: Observations, actions: Int[Tensor, "member batch"]
    ) -> Float[Tensor, "member critic batch feature"]:
        """Return φ(s, a)."""
        return self.critic.features(observations, actions)

    def posterior(self, observations: Observations, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of φ(s, a), each as φ, where the encoder ends in a bottleneck."""
        return self.critic.posterior(observations, actions)
