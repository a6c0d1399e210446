"""Regression to the Monte-Carlo returns of the data: no bootstrap, no target critic.

The diagnosis of the DR3 paper (section 3.1): Q of the behaviour policy as supervised learning. The returns are those
of the column `monte_carlo_returns`, whose discount the data set states; those of a truncated episode end with it.
There is no Bellman backup: DR3's (s', a') is the data's next pair, where there is one. On discrete spaces it can be
rolled out (one greedy step from the behaviour policy's values).
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from dr3_ray.algorithms import dqn
from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec, TrainingOptions
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import DISCRETE as CRITICS
from dr3_ray.networks.encoders import Generators
from dr3_ray.options import Number, choice, number
from dr3_ray.types import Backup, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class DiscreteMonteCarloOptions(dqn.DiscreteOptions):
    """Options on discrete actions; the defaults are those of DQN."""

    loss: Literal["huber", "squared"] = choice("huber", "`huber` (as DQN) or `squared`", ("huber", "squared"))


@dataclass(frozen=True)
class ContinuousMonteCarloOptions(TrainingOptions):
    """Options on Box actions; the defaults are those of SARSA."""

    critic_lr: Number = number(3e-4, "Adam step size of the critic", low=0.0)
    n_critics: int = choice(2, "critics, each with its own features")


def backup_of(phi: Tensor, next_phi: Tensor | None, batch: Transition) -> Backup:
    """Return the data's next pair, where it is known."""
    assert batch.next_actions is not None and batch.next_actions_valid is not None and batch.terminateds is not None
    return Backup(phi, batch.next_actions, batch.next_actions_valid * (1.0 - batch.terminateds), next_phi)


def discrete_objective(options: DiscreteMonteCarloOptions) -> Objective:
    """Return the loss: the mean over the batch of Huber(Q(s, a) − G)."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        assert batch.monte_carlo_returns is not None
        outputs, phi, next_phi = networks.critic.along(batch, batch.next_actions)
        terms = regression(networks.critic, outputs, batch.monte_carlo_returns, error=options.loss)
        return terms, backup_of(phi, next_phi, batch)

    return loss


def continuous_objective(options: ContinuousMonteCarloOptions) -> Objective:
    """Return the loss: Σ over critics of the mean over the batch of (Q(s, a) − G)²."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        assert batch.monte_carlo_returns is not None
        outputs, phi, next_phi = networks.critic.along(batch, batch.next_actions)
        return regression(networks.critic, outputs, batch.monte_carlo_returns), backup_of(phi, next_phi, batch)

    return loss


def discrete_networks(options: DiscreteMonteCarloOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `critic`, of one value an action."""
    critic = CRITICS[options.critic_actions](generators, Architecture.of(options, spaces), spaces.n_actions)
    return nn.ModuleDict({"critic": critic})


def continuous_networks(options: ContinuousMonteCarloOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `critic` on [s, a]."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions)
    return nn.ModuleDict({"critic": ContinuousCritic(generators, *sizes, options.n_critics)})


COLUMNS = (
    *("observations", "actions", "monte_carlo_returns"),
    *("next_observations", "next_actions", "next_actions_valid", "terminateds"),  # for DR3 alone
)
DISCRETE = AlgorithmSpec(
    "DR3-MC", "discrete", DiscreteMonteCarloOptions, discrete_networks, discrete_objective, COLUMNS, dqn.act
)
CONTINUOUS = AlgorithmSpec(
    "DR3-MC", "continuous", ContinuousMonteCarloOptions, continuous_networks, continuous_objective, COLUMNS, None
)
