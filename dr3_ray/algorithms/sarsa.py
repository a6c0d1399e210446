"""Offline SARSA: y = r + γ Q̄(s', a') with a' the data's next action. It evaluates the behaviour policy.

A row whose next action is not in the data (the last of a truncated episode) has no target and is left out.
On discrete spaces it can be rolled out (one greedy step from the behaviour policy's values).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import dqn
from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec, CriticOptions
from dr3_ray.losses import td
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.targets import target_of
from dr3_ray.options import choice, per_row
from dr3_ray.types import Backup, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class ContinuousSARSAOptions(CriticOptions):
    """Options on Box actions; the defaults are those of continuous CQL's critic."""

    n_critics: int = choice(2, "critics, each with its own features; the target takes their minimum")


def usable_rows(batch: Transition) -> Tensor:
    """Return 1 where the row has a target, [K, B]: the episode terminated there, or the next action is known."""
    assert batch.terminateds is not None and batch.next_actions_valid is not None
    return torch.maximum(batch.terminateds, batch.next_actions_valid.to(batch.terminateds.dtype))


def discrete_objective(options: dqn.DiscreteCriticOptions) -> Objective:
    """Return the loss: the mean over usable rows of Huber(Q(s, a) − y)."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        values = dqn.evaluate(networks, batch, batch.next_actions)
        return dqn.critic_terms(options, networks.critic, values, batch, usable_rows(batch))

    return loss


def continuous_objective(options: ContinuousSARSAOptions) -> Objective:
    """Return the loss: Σ over critics of the mean over usable rows of (Q(s, a) − y)²."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Regress Q(s, a) on the value of the action that was taken next, where one is recorded."""
        assert batch.rewards is not None and batch.terminateds is not None and batch.next_actions is not None
        outputs, phi, next_phi = networks.critic.along(batch, batch.next_actions)
        with torch.no_grad():
            next_values = networks.target_critic.values(batch.next_observations, batch.next_actions).amin(1)
        targets = td.bellman_target(batch.rewards, batch.terminateds, next_values, per_row(options.gamma))
        usable = usable_rows(batch)
        in_backup = usable * (1.0 - batch.terminateds)
        terms = regression(networks.critic, outputs, targets, usable)
        return terms, Backup(phi, batch.next_actions, in_backup, next_phi)

    return loss


def continuous_networks(options: ContinuousSARSAOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `critic` and `target_critic` on [s, a]."""
    critic = ContinuousCritic(generators, Architecture.of(options, spaces), spaces.n_actions, options.n_critics)
    return nn.ModuleDict({"critic": critic, "target_critic": target_of(critic)})


COLUMNS = (*dqn.COLUMNS, "next_actions", "next_actions_valid")
DISCRETE = AlgorithmSpec(
    "DR3-SARSA", "discrete", dqn.DiscreteCriticOptions, dqn.networks, discrete_objective, COLUMNS, dqn.act
)
CONTINUOUS = AlgorithmSpec(
    "DR3-SARSA", "continuous", ContinuousSARSAOptions, continuous_networks, continuous_objective, COLUMNS, None
)
