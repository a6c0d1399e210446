"""The probe of a diagnosis: everything that is measured of a trained member's critic on rows of a data set."""

from typing import Any

import torch
from torch import Tensor

from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data.reader import Dataset
from dr3_ray.data.sampler import generator
from dr3_ray.diagnostics.diagnosis import Probe
from dr3_ray.diagnostics.measuring import (
    DRAWS,
    Pairs,
    of_features,
    of_pairs,
    of_returns,
    of_values,
    policy_distance,
    spectrum_of,
)
from dr3_ray.errors import UserError
from dr3_ray.evaluation.fqe import some_action
from dr3_ray.losses.td import value_of
from dr3_ray.networks.critics import next_features
from dr3_ray.networks.discrete_critics import MultiHeadCritic
from dr3_ray.networks.members import member_view
from dr3_ray.observations import each_part
from dr3_ray.runs.health import threshold
from dr3_ray.training.member import Member, first_steps
from dr3_ray.training.normalization import normalized
from dr3_ray.training.probe import Block, errors_of, over_views, rows_at_a_time
from dr3_ray.training.saved import Trained
from dr3_ray.training.steps import Steps, View
from dr3_ray.types import Transition

COLUMNS = (
    "observations", "actions", "rewards", "next_observations", "terminateds", "next_actions", "next_actions_valid",
    "monte_carlo_returns", "episode_ids",
)  # fmt: skip


class Critic:
    """The critic of one trained member, as it is measured."""

    def __init__(self, trained: Trained, row: int) -> None:
        """Take the member at a `row` of what was `trained`.

        Raises:
            UserError: its algorithm has no critic.
        """
        self.spec: AlgorithmSpec = trained.spec
        if not self.spec.has_critic:
            raise UserError(f"{self.spec.name} has no critic: there is nothing to diagnose")
        # as it is measured, in full precision, whatever machine it was trained on
        self.member = Member.from_dict(self.spec, trained.members[row] | {"precision": "fp32", "compile": False})
        self.networks: Any = member_view(trained.networks, [row]).eval()
        self.spaces, self._divisor = trained.spaces, trained.return_range
        self.scale: float = getattr(self.member.options, "reward_scale", 1.0) / trained.return_range

    @property
    def finite(self) -> bool:
        """Whether all parameters are finite."""
        return all(bool(parameter.isfinite().all()) for parameter in self.networks.parameters())

    @property
    def other_rewards(self) -> bool:
        """Whether rewards were shifted or cut, so that the data's returns are not those of what was learned."""
        return any(getattr(self.member.options, name, 0.0) for name in ("reward_shift", "reward_clip"))

    def probe(self, data: Dataset, returns_hold: bool = True) -> Probe:
        """Measure the critic on 2,048 rows of a data set, those of `Population.probe`.

        `returns_hold` says whether the data's Monte-Carlo returns are discounted as the critic's values are.
        """
        steps = self._steps(data)
        indices, _ = steps.batches.probe_draw()
        measured = _Measured(self, steps, data, indices[0])
        return measured.probe(returns_hold and not self.other_rewards)

    def _steps(self, data: Dataset) -> Steps:
        first = next(self.networks.parameters())
        options = self.spec.options.stack([self.member.options], first.device, first.dtype)
        noise = self.spec.noise(options, self.spaces)
        return Steps(self.spec, self.networks, [self.member], data, options, noise, True, divisor=self._divisor)


class _Measured:
    """One critic on the rows of one probe; every column is [1, B, …]."""

    def __init__(self, critic: Critic, steps: Steps, data: Dataset, indices: Tensor) -> None:
        self.critic, self.steps, self.data, self.indices = critic, steps, data, indices
        self.networks, self.spec = critic.networks, critic.spec
        columns = data.gather(indices, COLUMNS)
        rows = {name: each_part(lambda part: part.unsqueeze(0), column) for name, column in columns.items()}
        for name in ("observations", "next_observations"):
            rows[name] = normalized(self.networks, rows[name])
        self.rows: dict[str, Any] = rows
        self.at_once = rows_at_a_time(steps)
        self._values: dict[str, Tensor] = {}
        self.gamma = data.gamma if steps.gamma is None else float(steps.gamma[0])  # regression to returns has none

    @torch.no_grad()
    def probe(self, returns_hold: bool) -> Probe:
        """Measure everything."""
        rows = self.rows
        phi = self._features("observations", rows["actions"])
        q_data = self._q(rows["actions"])
        policy = self._policy("observations")
        drawn = self._q_random()
        numbers = of_features(phi) | of_values(q_data, drawn, None if policy is None else self._q(policy))
        own, errors = self._own()
        pairs = {"backup": own} | {
            choice: self._pairs(phi, actions, in_backup) for choice, (actions, in_backup) in self._choices().items()
        }
        numbers |= errors
        if returns_hold:
            returns = self.critic.scale * rows["monte_carlo_returns"][0]
            numbers |= of_returns(q_data, returns, self._counted())
        if policy is not None:
            numbers["policy_distance"] = policy_distance(some_action(policy)[0], rows["actions"][0])
        return Probe(phi.shape[1], numbers, pairs, spectrum_of(phi))

    def _own(self) -> tuple[dict[str, float], dict[str, float]]:
        """Measure pairs with the a' of the algorithm's own backup, and its errors, as `errors_of` has them."""
        pairs: dict[str, float] = {}

        def measured(view: View, batch: Transition, blocks: list[Block]) -> dict[str, Tensor]:
            phi = torch.cat([block.backup.phi for block in blocks], dim=2)
            next_phi = torch.cat([next_features(view.networks.critic, b.batch, b.backup) for b in blocks], dim=2)
            in_backup = torch.cat([block.backup.in_backup for block in blocks], dim=1)
            next_actions = torch.cat([block.backup.next_actions for block in blocks], dim=1)
            gamma = torch.full_like(in_backup, self.gamma)
            discounts = gamma if batch.n_steps is None else gamma**batch.n_steps
            assert batch.terminateds is not None
            numbers = Pairs(next_phi[0], in_backup[0], discounts[0], *self._head(phi[0], next_phi[0], next_actions))
            pairs.update(of_pairs(phi[0], numbers, batch.terminateds[0]))
            share = in_backup.new_tensor([block.backup.in_backup.shape[1] for block in blocks]) / in_backup.shape[1]
            return errors_of(blocks, share)

        numbers = over_views(self.steps, first_steps([self.critic.member]), measured)
        return pairs, {name: values.item() for name, values in numbers.items()}

    def _choices(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return a' [1, B, …] by how it is chosen, and where it stands in a backup, [1, B]."""
        goes_on = 1.0 - self.rows["terminateds"]
        known = self.rows["next_actions_valid"].to(goes_on.dtype)
        choices = {"data": (self.rows["next_actions"], goes_on * known)}
        policy = self._policy("next_observations")
        if policy is not None:
            choices["policy"] = some_action(policy), goes_on
        if self.spec.action_kind == "discrete":
            choices["argmax"] = self._every("next_observations").argmax(-1), goes_on
        if (behaviour := getattr(self.networks, "behaviour", None)) is not None:
            source = generator(0, "behaviour")
            sampled = self._blocks(lambda rows: behaviour.sample(self._some("next_observations", rows), source))
            choices["behaviour"] = some_action(sampled), goes_on
        return choices

    def _pairs(self, phi: Tensor, actions: Tensor, in_backup: Tensor) -> dict[str, float]:
        discounts, next_phi = torch.full_like(in_backup[0], self.gamma), self._features("next_observations", actions)
        pairs = Pairs(next_phi, in_backup[0], discounts, *self._head(phi, next_phi, actions))
        return of_pairs(phi, pairs, self.rows["terminateds"][0])

    def _head(
        self, phi: Tensor, next_phi: Tensor, next_actions: Tensor
    ) -> tuple[Tensor, int] | tuple[Tensor, int, float, Tensor]:
        """Return share, outputs, bias and own share of the last layer, as `last_layer_terms` takes them.

        The share says where a and a' have the same outputs, [B], of a categorical critic [C, B] with its slopes.
        """
        critic, same = self.networks.critic, torch.ones_like(self.rows["terminateds"][0])
        if not critic.reads_actions:
            same = (self.rows["actions"][0] == next_actions[0]).to(same.dtype)
        if not critic.coding.categorical:
            return same, critic.n_heads if isinstance(critic, MultiHeadCritic) else 1
        pairs = ((phi, self.rows["actions"]), (next_phi, some_action(next_actions)))
        here, there = (
            critic.coding.slope(critic.outputs_of(features.unsqueeze(0), actions))[0] for features, actions in pairs
        )
        return same * (here * there).sum(-1), 1, 1.0, here.square().sum(-1)

    def _features(self, column: str, actions: Tensor) -> Tensor:
        """Return φ [C, B, F]."""

        def features(rows: slice) -> Tensor:
            phi: Tensor = self.networks.critic.features(self._some(column, rows), actions[:, rows])
            return phi.transpose(1, 2)

        return self._blocks(features)[0].transpose(0, 1)

    def _q(self, actions: Tensor) -> Tensor:
        """Return Q(s, a) [B], the least of several critics, the mean of heads or quantiles.

        Vectors of actions may be several a row, [1, B, draw, A], whose Q is [B, draw].
        """
        if self.spec.action_kind == "discrete":
            return value_of(self._every("observations"), some_action(actions))[0]
        critic = self.networks.critic
        return self._blocks(lambda rows: critic.values(self._some("observations", rows), actions[:, rows]).amin(1))[0]

    def _every(self, column: str) -> Tensor:
        """Return Q of every action, [1, B, n]."""
        if column not in self._values:
            critic = self.networks.critic
            several = isinstance(critic, MultiHeadCritic)

            def values(rows: slice) -> Tensor:
                q: Tensor = critic(self._some(column, rows))[0]
                return q.mean(-1) if several else q.amin(1)

            self._values[column] = self._blocks(values)
        return self._values[column]

    def _policy(self, column: str) -> Tensor | None:
        """Return the policy's actions [1, B, …]; None where the algorithm has none."""
        act = self.spec.act
        return None if act is None else self._blocks(lambda rows: act(self.networks, self._some(column, rows)))

    def _q_random(self) -> Tensor:
        """Return Q of random actions, uniform over the space and the same every time, [B, draw]."""
        shape, source = (1, len(self.indices), DRAWS), generator(0, "random actions")
        n = self.critic.spaces.n_actions
        if self.spec.action_kind == "discrete":
            return self._every("observations").gather(-1, torch.randint(n, shape, generator=source))[0]
        return self._q(torch.rand(*shape, n, generator=source) * 2.0 - 1.0)

    def _counted(self) -> Tensor:
        """Return which rows' returns are whole: the episode terminated, or what was cut is discounted to next to 0."""
        table = self.data.episodes
        place = torch.searchsorted(torch.as_tensor(table["episode_ids"]), self.rows["episode_ids"][0])
        counted = torch.as_tensor(table["terminated"])[place]
        if self.data.manifest.complete_episodes:
            ends = torch.as_tensor(table["offsets"] + table["lengths"])[place]
            counted |= self.gamma ** (ends - self.indices).double() <= threshold("tail")
        return counted

    def _some(self, column: str, rows: slice) -> Any:
        return each_part(lambda part: part[:, rows], self.rows[column])

    def _blocks(self, function: Any) -> Tensor:
        """Return the function of every block of rows, put together: [1, B, …]."""
        n = len(self.indices)
        return torch.cat([function(slice(start, start + self.at_once)) for start in range(0, n, self.at_once)], dim=1)
