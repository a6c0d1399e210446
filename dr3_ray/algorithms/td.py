"""Expected TD: y = r + γ E_{a' ~ β(·|s')} Q̄(s', a'), with β a model of the behaviour policy, cloned from the data.

The diagnosis of the DR3 paper (section 3.1): it evaluates the same policy as offline SARSA, but its a' need not be in
the data. The expectation is exact on discrete actions, or one draw a' ~ β a row of every update (`td_actions`); on
continuous ones it is a mean over n draws. DR3's a' is one draw from β, so that its penalty is an unbiased estimate of
the expected one. On discrete spaces it can be rolled out (one greedy step from the behaviour policy's values).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import dqn, sarsa
from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.losses import bc, td
from dr3_ray.networks.actors import (
    CategoricalActor,
    SquashedGaussianActor,
    categorical_sample,
    squashed_log_prob,
    squashed_sample,
)
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.encoders import Generators
from dr3_ray.options import Number, choice, number, per_row
from dr3_ray.types import Backup, Noise, Objective, Spaces, Terms, Transition

_ALONE = "first gradient steps, in which the behaviour model is trained and the critic is not; later both are"


@dataclass(frozen=True)
class DiscreteTDOptions(dqn.DiscreteCriticOptions):
    """SARSA's options on discrete actions, and the behaviour model's."""

    behaviour_lr: Number = number(3e-4, "Adam step size of the behaviour model (behaviour cloning's)", low=0.0)
    behaviour_steps: int = choice(0, _ALONE, low=0)
    td_actions: Literal["expected", "sampled"] = choice(
        "expected",
        "the target's value of s': `expected` over β, or that of one a' ~ β, `sampled` anew in every update",
        ("expected", "sampled"),
    )


@dataclass(frozen=True)
class ContinuousTDOptions(sarsa.ContinuousSARSAOptions):
    """SARSA's options on Box actions, and the behaviour model's."""

    behaviour_lr: Number = number(3e-4, "Adam step size of the behaviour model (behaviour cloning's)", low=0.0)
    behaviour_steps: int = choice(0, _ALONE, low=0)
    n_sampled_actions: int = choice(10, "actions of the behaviour model at s' whose values are averaged")


def discrete_objective(options: DiscreteTDOptions) -> Objective:
    """Return the mean over the batch of Huber(Q(s, a) − y), and −log β(a|s)."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Regress Q(s, a) on Σ_a' β(a'|s') Q̄(s', a') or a draw of it, and train β to classify the data's actions."""
        with torch.no_grad():
            logits = networks.behaviour(batch.next_observations)
            next_actions = categorical_sample(logits, (noise["next_action"] + 1.0) / 2.0)
            if options.td_actions == "sampled":
                next_values = networks.target_critic.values(batch.next_observations, next_actions).squeeze(1)
            else:
                next_q = networks.target_critic(batch.next_observations)[0].squeeze(1)
                next_values = td.expected_value(next_q, logits.softmax(-1))
        outputs, phi, next_phi = networks.critic.along(batch, next_actions)
        values = dqn.CriticValues(outputs, phi, next_phi, next_actions, next_values)
        terms, backup = dqn.critic_terms(options, networks.critic, values, batch)
        nll = td.mean_over_batch(bc.discrete_nll(networks.behaviour(batch.observations), batch.actions))
        return Terms(terms.losses | {"behaviour": nll}, terms.metrics), backup

    return loss


def continuous_objective(options: ContinuousTDOptions) -> Objective:
    """Return Σ over critics of the mean over the batch of (Q(s, a) − y)², and −log β(a|s)."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Regress Q(s, a) on the mean of Q̄ over actions drawn from β, and train β on the data's actions."""
        assert batch.rewards is not None and batch.terminateds is not None
        with torch.no_grad():
            mean, log_std = networks.behaviour(batch.next_observations)
            samples, _ = squashed_sample(mean.unsqueeze(2), log_std.unsqueeze(2), noise["next_actions"])
            next_values = networks.target_critic.values(batch.next_observations, samples).amin(1).mean(-1)
        targets = td.bellman_target(batch.rewards, batch.terminateds, next_values, per_row(options.gamma))
        outputs, phi, next_phi = networks.critic.along(batch, samples[:, :, 0])
        terms = regression(networks.critic, outputs, targets)
        here_mean, here_log_std = networks.behaviour(batch.observations)
        nll = td.mean_over_batch(-squashed_log_prob(here_mean, here_log_std, batch.actions))
        backup = Backup(phi, samples[:, :, 0], 1.0 - batch.terminateds, next_phi)
        return Terms(terms.losses | {"behaviour": nll}, terms.metrics), backup

    return loss


def discrete_networks(options: DiscreteTDOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `critic`, `target_critic` and `behaviour`."""
    networks = dqn.networks(options, spaces, generators)
    behaviour = CategoricalActor(generators, Architecture.of(options, spaces), spaces.n_actions)
    networks.add_module("behaviour", behaviour)
    return networks


def continuous_networks(options: ContinuousTDOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `critic`, `target_critic` and `behaviour`."""
    networks = sarsa.continuous_networks(options, spaces, generators)
    behaviour = SquashedGaussianActor(generators, Architecture.of(options, spaces), spaces.n_actions)
    networks.add_module("behaviour", behaviour)
    return networks


def discrete_noise(options: DiscreteTDOptions, spaces: Spaces) -> Noise:
    """Declare one draw for a'."""
    return Noise(normal={}, uniform={"next_action": ()})


def continuous_noise(options: ContinuousTDOptions, spaces: Spaces) -> Noise:
    """Declare N draws of a'."""
    return Noise(normal={"next_actions": (options.n_sampled_actions, spaces.n_actions)}, uniform={})


def active(options: DiscreteTDOptions | ContinuousTDOptions, step: int) -> frozenset[str]:
    """Name the behaviour model alone at first, then it and the critic."""
    return frozenset({"behaviour"} if step < options.behaviour_steps else {"behaviour", "critic"})


DISCRETE = AlgorithmSpec(
    "DR3-TD", "discrete", DiscreteTDOptions, discrete_networks, discrete_objective, dqn.COLUMNS, dqn.act,
    discrete_noise, active=active,
)  # fmt: skip
CONTINUOUS = AlgorithmSpec(
    "DR3-TD", "continuous", ContinuousTDOptions, continuous_networks, continuous_objective, dqn.COLUMNS, None,
    continuous_noise, active=active,
)  # fmt: skip
