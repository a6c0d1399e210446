"""AWAC (Nair et al., arXiv 2006.09359): an actor-critic whose policy clones the data's actions by their advantages.

Critics: Σ_c mean (Q_c(s, a) − r − γ V̄(s'))², V̄(s') = E min_c Q̄_c(s', a'), a' ~ π.
Actor: mean −min(exp(u / λ), clip) log π(a|s), u = min_c Q_c(s, a) − E min_c Q_c(s, a'), a' ~ π, without gradient.

On Box actions π is IQL's Gaussian, one draw stands for an expectation, and draws are moved into [−1, 1] (CORL). On
discrete actions, which are ours, π is categorical and expectations are exact.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import bc, dqn, iql
from dr3_ray.algorithms.actor import ActorOptions
from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec, CriticOptions
from dr3_ray.losses import iql as weighted
from dr3_ray.losses import td
from dr3_ray.networks.actors import CategoricalActor, GaussianActor, categorical_sample
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import DISCRETE as CRITICS
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.targets import target_of
from dr3_ray.observations import Observations
from dr3_ray.options import Number, choice, number, per_row
from dr3_ray.types import Backup, Noise, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class AWACOptions(ActorOptions, CriticOptions):
    """AWAC's options on both kinds of actions; the defaults are CORL's."""

    awac_lambda: Number = number(1.0, "λ, temperature of the weights: large clones all actions alike", low=1e-6)
    weight_clip: Number = number(100.0, "largest weight of a row in the actor's loss (100: CORL)", low=0.0)
    actor_lr: Number = number(3e-4, "Adam step size of the policy", low=0.0)
    n_critics: int = choice(2, "critics, each with its own features; all values take their minimum")


@dataclass(frozen=True)
class DiscreteAWACOptions(dqn.ActionPlace, AWACOptions):
    """AWAC's options on discrete actions."""


class Valued(NamedTuple):
    """Actions of the policy [K, B] or [K, B, A], and E min_c Q_c(s, a) over it, [K, B]."""

    actions: Tensor
    values: Tensor


def valued(actor: nn.Module, critic: nn.Module, observations: Observations, noise: Tensor) -> Valued:
    """Draw an action of the policy in each state, and return it with the state's value by the critics."""
    if isinstance(actor, CategoricalActor):
        logits = actor(observations)
        q = critic(observations)[0].amin(1)
        return Valued(categorical_sample(logits, (noise + 1.0) / 2.0), td.expected_value(q, logits.softmax(-1)))
    mean, log_std = actor(observations)
    actions = (mean + log_std.exp() * noise).clamp(-1.0, 1.0)
    return Valued(actions, critic.values(observations, actions).amin(1))  # type: ignore[operator]


def objective(options: AWACOptions) -> Objective:
    """Return the losses of critics and policy, all at the same weights."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Regress Q on r + γ V̄(s'), and the policy on actions by their advantages."""
        assert batch.rewards is not None and batch.terminateds is not None and batch.next_observations is not None
        with torch.no_grad():
            ahead = valued(networks.actor, networks.target_critic, batch.next_observations, noise["next_action"])
            here = valued(networks.actor, networks.critic, batch.observations, noise["action"])
        targets = td.bellman_target(batch.rewards, batch.terminateds, ahead.values, per_row(options.gamma))
        outputs, phi, next_phi = networks.critic.along(batch, ahead.actions)
        fitted = regression(networks.critic, outputs, targets)
        advantages = networks.critic.coding.decode(outputs.detach()).amin(1) - here.values
        weights = weighted.advantage_weights(
            advantages, 1.0 / per_row(options.awac_lambda), per_row(options.weight_clip)
        )
        cloning = iql.negative_log_prob(networks.actor, batch.observations, batch.actions)
        terms = Terms(
            fitted.losses | {"actor": td.mean_over_batch(weights * cloning)},
            fitted.metrics
            | {
                "advantage": td.mean_over_batch(advantages),
                "weight": td.mean_over_batch(weights),
            },
        )
        return terms, Backup(phi, ahead.actions, 1.0 - batch.terminateds, next_phi)

    return loss


def discrete_networks(options: DiscreteAWACOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `actor` (logits), `critic` (of one value an action) and `target_critic`."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions)
    critic = CRITICS[options.critic_actions](generators, *sizes, options.n_critics)
    return _networks(CategoricalActor(generators, *sizes), critic)


def continuous_networks(options: AWACOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `actor` (a Gaussian of bounded mean), `critic` and `target_critic`."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions)
    return _networks(GaussianActor(generators, *sizes), ContinuousCritic(generators, *sizes, options.n_critics))


def _networks(actor: nn.Module, critic: nn.Module) -> nn.Module:
    return nn.ModuleDict({"actor": actor, "critic": critic, "target_critic": target_of(critic)})


def discrete_noise(options: AWACOptions, spaces: Spaces) -> Noise:
    """Declare one uniform number for an action in each state."""
    return Noise(normal={}, uniform={"action": (), "next_action": ()})


def continuous_noise(options: AWACOptions, spaces: Spaces) -> Noise:
    """Declare one draw of an action in each state."""
    return Noise(normal={"action": (spaces.n_actions,), "next_action": (spaces.n_actions,)}, uniform={})


DISCRETE = AlgorithmSpec(
    "DR3-AWAC", "discrete", DiscreteAWACOptions, discrete_networks, objective, dqn.COLUMNS, bc.act, discrete_noise
)
CONTINUOUS = AlgorithmSpec(
    "DR3-AWAC", "continuous", AWACOptions, continuous_networks, objective, dqn.COLUMNS, bc.act, continuous_noise
)
