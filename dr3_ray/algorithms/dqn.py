"""DQN (Mnih et al. 2015), offline: y = r + γ Q̄(s', a'), a' = argmax Q̄(s', ·) (or argmax Q(s', ·): double DQN)."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec, CriticOptions, TrainingOptions
from dr3_ray.losses import td
from dr3_ray.networks.actors import greedy
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.discrete_critics import DISCRETE, CriticActions
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.stochastic import ahead
from dr3_ray.networks.targets import target_of
from dr3_ray.observations import Observations
from dr3_ray.options import Number, Options, choice, number, per_row
from dr3_ray.types import Backup, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class ActionPlace(Options):
    """The option of every critic on discrete actions."""

    critic_actions: CriticActions = choice(
        "heads",
        "where the critic has the action: `heads`, outputs for each behind φ(s); `input`, one-hot beside the state, "
        "behind an `encoder`, so that φ(s, a) sees it (ours; a pass through all n actions has n times the rows)",
        tuple(DISCRETE),
    )


@dataclass(frozen=True)
class DiscreteOptions(ActionPlace, TrainingOptions):
    """Options on discrete actions; the defaults are those of offline Atari work (Agarwal et al. 2020; DR3)."""

    batch_size: int = choice(32, "transitions in a minibatch of one member")
    critic_lr: Number = number(5e-5, "Adam step size of the critic", low=0.0)
    adam_eps: Number = number(3.125e-4, "Adam's ε (Agarwal et al. 2020: 0.01 / 32)", low=0.0)


@dataclass(frozen=True)
class DiscreteTargetOptions(DiscreteOptions, CriticOptions):
    """Options on discrete actions with a target critic."""

    tau: Number = number(1.0, "target ← (1 − τ) target + τ critic; 1 is a copy", low=0.0, high=1.0)
    target_period: int = choice(2000, "gradient steps between two updates of the target (2,000: Agarwal et al. 2020)")
    n_step: int = choice(1, "rewards before the bootstrap, fewer where the episode ends; uncorrected, as in Rainbow")


@dataclass(frozen=True)
class DiscreteCriticOptions(DiscreteTargetOptions):
    """Options on discrete actions with a target critic and a loss of the temporal-difference error."""

    loss: Literal["huber", "squared"] = choice("huber", "`huber` (DQN) or `squared`", ("huber", "squared"))


@dataclass(frozen=True)
class DQNOptions(DiscreteCriticOptions):
    """DQN's options."""

    double_q: bool = choice(False, "the online critic chooses a' (van Hasselt et al. 2016)")


class CriticValues(NamedTuple):
    """What the critic says of the batch, φ(s', a'), and the backup action a' with its value under the target critic."""

    outputs: Tensor  # of Q(s, a) or, where every action was asked for, of Q(s, ·), as `along` gives them; with gradient
    phi: Tensor  # [K, 1, B, F], with gradient
    next_phi: Tensor | None  # φ(s', a'), as phi
    next_actions: Tensor  # [K, B]
    next_values: Tensor  # [K, B]


def evaluate(
    networks: Any, batch: Transition, next_actions: Tensor | None, double_q: bool = False, every: bool = False
) -> CriticValues:
    """Evaluate online and target critic, at (s, a) or at `every` action; without given `next_actions`, a' is greedy."""
    target = networks.target_critic
    with torch.no_grad():
        if next_actions is not None:
            next_values = target.values(batch.next_observations, next_actions).squeeze(1)
        elif double_q:
            next_actions = online(networks, batch).squeeze(1).argmax(-1)
            next_values = target.values(batch.next_observations, next_actions).squeeze(1)
        else:
            next_q = target(batch.next_observations)[0].squeeze(1)
            next_actions = next_q.argmax(-1)
            next_values = td.value_of(next_q, next_actions)
    outputs, phi, next_phi = networks.critic.along(batch, next_actions, every)
    return CriticValues(outputs, phi, next_phi, next_actions, next_values)


@torch.no_grad()
def online(networks: Any, batch: Transition) -> Tensor:
    """Return the online critic's Q(s', ·), without noise, whatever its pack looks ahead at."""
    with ahead(networks.critic, 1.0):
        q: Tensor = networks.critic(batch.next_observations)[0]
    return q


def critic_terms(
    options: DiscreteCriticOptions, critic: Any, values: CriticValues, batch: Transition, usable: Tensor | None = None
) -> tuple[Terms, Backup]:
    """Return the temporal-difference loss over the `usable` [K, B] rows, None for all, and the backup.

    The outputs in `values` are those of the actions taken.
    """
    assert batch.terminateds is not None
    rewards, gamma = return_and_discount(options, batch)
    targets = td.bellman_target(rewards, batch.terminateds, values.next_values, gamma)
    terms = regression(critic, values.outputs, targets, usable, options.loss)
    goes_on = 1.0 - batch.terminateds
    in_backup = goes_on if usable is None else usable * goes_on
    return terms, Backup(values.phi, values.next_actions, in_backup, values.next_phi)


def return_and_discount(options: DiscreteTargetOptions, batch: Transition) -> tuple[Tensor, Number]:
    """Return the discounted rewards between s and s' [K, B], and the discount of what comes after."""
    assert batch.rewards is not None
    gamma = per_row(options.gamma)
    if batch.n_step_rewards is None or batch.n_steps is None:
        return batch.rewards, gamma
    return td.n_step_return(batch.n_step_rewards, gamma), gamma**batch.n_steps


def objective(options: DQNOptions) -> Objective:
    """Return the loss: the mean over the batch of Huber(Q(s, a) − y)."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        values = evaluate(networks, batch, None, options.double_q)
        return critic_terms(options, networks.critic, values, batch)

    return loss


def networks(options: DiscreteCriticOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `critic` and `target_critic`, of one value an action."""
    critic = DISCRETE[options.critic_actions](generators, Architecture.of(options, spaces), spaces.n_actions)
    return nn.ModuleDict({"critic": critic, "target_critic": target_of(critic)})


def act(networks: Any, observations: Observations) -> Tensor:
    """Return argmax_a Q(s, a)."""
    return greedy(networks.critic(observations)[0].squeeze(1))


COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminateds")
DQN = AlgorithmSpec("DR3-DQN", "discrete", DQNOptions, networks, objective, COLUMNS, act)
