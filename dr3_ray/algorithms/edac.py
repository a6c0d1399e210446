"""EDAC (An et al., arXiv 2110.01548): SAC with many critics, which are kept from agreeing on where Q rises.

Critics: Σ_c mean (Q_c(s, a) − r − γ (min_c Q̄_c(s', a') − α_e log π(a'|s')))² + η mean likeness(∇_a Q(s, a)), a' ~ π.
Actor and temperature: SAC's, with the minimum of all critics. With η = 0 it is SAC-N, of the same paper.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import bc, dqn
from dr3_ray.algorithms.actor import ActorOptions
from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec, CriticOptions
from dr3_ray.losses import edac, soft_actor_critic, td
from dr3_ray.networks.actors import LogTemperature, SquashedGaussianActor, squashed_sample
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.members import frozen
from dr3_ray.networks.targets import target_of
from dr3_ray.options import Number, choice, largest, number, per_row
from dr3_ray.types import Backup, Noise, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class EDACOptions(ActorOptions, CriticOptions):
    """EDAC's options; the defaults are CORL's."""

    hidden_sizes: tuple[int, ...] = choice((256, 256, 256), "widths of the ReLU layers, critic and actor alike")
    edac_eta: Number = number(1.0, "η, the weight of the likeness of the critics' slopes; 0 is SAC-N", low=0.0)
    actor_lr: Number = number(3e-4, "Adam step size of the policy", low=0.0)
    temperature_lr: Number = number(3e-4, "Adam step size of log α_entropy", low=0.0)
    target_entropy_scale: Number = number(1.0, "target entropy = −scale · |A| (1: SAC)", low=0.0)
    n_critics: int = choice(10, "critics, each with its own features; all values take their minimum", low=2)


def objective(options: EDACOptions) -> Objective:
    """Return the losses of critics, policy and temperature, all at the same weights."""
    ensemble_differs = largest(options.edac_eta) > 0.0

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Add the likeness of the critics' slopes at the data's actions to SAC's losses."""
        assert batch.rewards is not None and batch.terminateds is not None
        log_temperature = networks.temperature().unsqueeze(-1)
        mean, log_std = networks.actor(batch.observations)
        actions, log_probs = squashed_sample(mean, log_std, noise["action"])
        with torch.no_grad():
            mean, log_std = networks.actor(batch.next_observations)
            next_actions, next_log_probs = squashed_sample(mean, log_std, noise["next_action"])
            next_q = networks.target_critic.values(batch.next_observations, next_actions).amin(1)
            next_values = next_q - log_temperature.exp() * next_log_probs
        targets = td.bellman_target(batch.rewards, batch.terminateds, next_values, per_row(options.gamma))
        outputs, phi, next_phi = networks.critic.along(batch, next_actions)
        fitted = regression(networks.critic, outputs, targets)
        with frozen(networks.critic):
            value = networks.critic.values(batch.observations, actions).amin(1)
        target_entropy = -per_row(options.target_entropy_scale) * actions.shape[-1]
        losses = {
            **fitted.losses,
            **soft_actor_critic.policy_losses(log_probs, value, log_temperature, target_entropy),
        }
        metrics = {
            **fitted.metrics,
            "entropy": -td.mean_over_batch(log_probs.detach()),
            "temperature": log_temperature.detach().exp().squeeze(-1),
        }
        if ensemble_differs:
            likeness = td.mean_over_batch(edac.likeness(networks.critic.slopes(batch.observations, batch.actions)))
            losses["edac"] = options.edac_eta * likeness
            metrics["edac_likeness"] = likeness.detach()
        return Terms(losses, metrics), Backup(phi, next_actions, 1.0 - batch.terminateds, next_phi)

    return loss


def networks(options: EDACOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `critic`, `target_critic`, `actor` and `temperature` (log α_e)."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions)
    critic = ContinuousCritic(generators, *sizes, options.n_critics)
    return nn.ModuleDict(
        {
            "critic": critic,
            "target_critic": target_of(critic),
            "actor": SquashedGaussianActor(generators, *sizes),
            "temperature": LogTemperature(len(generators)),
        }
    )


def noise(options: EDACOptions, spaces: Spaces) -> Noise:
    """Declare one draw of an action in each state."""
    return Noise(normal={"action": (spaces.n_actions,), "next_action": (spaces.n_actions,)}, uniform={})


EDAC = AlgorithmSpec("DR3-EDAC", "continuous", EDACOptions, networks, objective, dqn.COLUMNS, bc.act, noise)
