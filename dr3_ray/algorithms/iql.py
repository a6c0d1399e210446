"""IQL (Kostrikov et al., arXiv 2110.06169).

V: mean |τ − 1(u < 0)| u², u = min_c Q̄_c(s, a) − V(s). Critics: Σ_c mean (Q_c − r − γ V(s'))².
Actor: mean −min(exp(β u), clip) log π(a|s), with all data actions in sample.

On Box actions π is N(tanh(mean(s)), std²), not squashed, std the same in every state: the paper's policy as CORL has
it. On discrete actions π is categorical, which is ours. No a' stands in the backup; V(s') is learned from the data's
actions, so that the features of (s', a') which a regulariser sees are those of the data's next action.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import bc, dqn, sarsa
from dr3_ray.algorithms.actor import ActorOptions
from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec, CriticOptions
from dr3_ray.losses import bc as bc_losses
from dr3_ray.losses import iql, td
from dr3_ray.networks.actors import CategoricalActor, GaussianActor, gaussian_log_prob
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic, ValueNetwork
from dr3_ray.networks.discrete_critics import DISCRETE as CRITICS
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.targets import target_of
from dr3_ray.observations import Observations
from dr3_ray.options import Number, choice, number, per_row
from dr3_ray.types import Backup, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class IQLOptions(ActorOptions, CriticOptions):
    """IQL's options on both kinds of actions; the defaults are the paper's for MuJoCo."""

    expectile: Number = number(0.7, "τ of the value's expectile (0.7; antmaze: 0.9)", low=0.0, high=1.0)
    advantage_temperature: Number = number(3.0, "β, inverse temperature of the weights (3; antmaze: 10)", low=0.0)
    weight_clip: Number = number(100.0, "largest weight of a row in the actor's loss (100: authors' code)", low=0.0)
    actor_lr: Number = number(3e-4, "Adam step size of the policy, held constant", low=0.0)
    value_lr: Number = number(3e-4, "Adam step size of V", low=0.0)
    n_critics: int = choice(2, "critics, each with its own features; V sees the minimum of their targets")


@dataclass(frozen=True)
class DiscreteIQLOptions(dqn.ActionPlace, IQLOptions):
    """IQL's options on discrete actions."""


def negative_log_prob(actor: nn.Module, observations: Observations, actions: Tensor) -> Tensor:
    """Return −log π(a|s), [K, B]."""
    if isinstance(actor, CategoricalActor):
        return bc_losses.discrete_nll(actor(observations), actions)
    mean, log_std = actor(observations)
    return -gaussian_log_prob((actions - mean) * (-log_std).exp(), log_std)


def objective(options: IQLOptions) -> Objective:
    """Return the three losses, all of them at the same weights."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Regress V on Q̄ by expectiles, Q on r + γ V, and the policy on actions by their advantages."""
        assert batch.rewards is not None and batch.terminateds is not None
        assert batch.next_actions is not None and batch.next_actions_valid is not None
        with torch.no_grad():
            target_q = networks.target_critic.values(batch.observations, batch.actions).amin(1)
            next_values = networks.value(batch.next_observations)
        advantages = target_q - networks.value(batch.observations)
        weights = iql.advantage_weights(
            advantages, per_row(options.advantage_temperature), per_row(options.weight_clip)
        )
        targets = td.bellman_target(batch.rewards, batch.terminateds, next_values, per_row(options.gamma))
        outputs, phi, next_phi = networks.critic.along(batch, batch.next_actions)
        fitted = regression(networks.critic, outputs, targets)
        terms = Terms(
            fitted.losses
            | {
                "value": td.mean_over_batch(iql.expectile_loss(advantages, per_row(options.expectile))),
                "actor": td.mean_over_batch(
                    weights * negative_log_prob(networks.actor, batch.observations, batch.actions)
                ),
            },
            fitted.metrics
            | {
                "advantage": td.mean_over_batch(advantages.detach()),
                "weight": td.mean_over_batch(weights),
            },
        )
        known = batch.next_actions_valid.to(batch.terminateds.dtype)
        return terms, Backup(phi, batch.next_actions, known * (1.0 - batch.terminateds), next_phi)

    return loss


def discrete_networks(options: DiscreteIQLOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `actor` (logits), `critic`, `target_critic` (of one value an action) and `value`."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions)
    return _networks(
        CategoricalActor(generators, *sizes),
        CRITICS[options.critic_actions](generators, *sizes, options.n_critics),
        ValueNetwork(generators, sizes[0]),
    )


def continuous_networks(options: IQLOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `actor` (a Gaussian of bounded mean), `critic`, `target_critic` and `value`."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions)
    return _networks(
        GaussianActor(generators, *sizes),
        ContinuousCritic(generators, *sizes, options.n_critics),
        ValueNetwork(generators, sizes[0]),
    )


def _networks(actor: nn.Module, critic: nn.Module, value: nn.Module) -> nn.Module:
    return nn.ModuleDict({"actor": actor, "critic": critic, "target_critic": target_of(critic), "value": value})


DISCRETE = AlgorithmSpec("DR3-IQL", "discrete", DiscreteIQLOptions, discrete_networks, objective, sarsa.COLUMNS, bc.act)
CONTINUOUS = AlgorithmSpec("DR3-IQL", "continuous", IQLOptions, continuous_networks, objective, sarsa.COLUMNS, bc.act)
