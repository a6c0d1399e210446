"""ReBRAC (Tarasov et al., arXiv 2305.09836): TD3+BC with the behaviour's distance in the backup as well.

Critics: Σ_c mean (Q_c(s, a) − r − γ (min_c Q̄_c(s', a') − β₂ ‖a' − a'_data‖²))², a' as in TD3.
Actor: mean β₁ ‖π(s) − a‖² − λ min_c Q_c(s, π(s)), λ = 1 / mean |min_c Q_c|.
A row whose next action is not in the data (the last of a truncated episode) has no penalty in its target.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import bc, sarsa, td3_bc
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.losses import bc as bc_losses
from dr3_ray.losses import td, td3
from dr3_ray.networks.actors import DeterministicActor
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.members import frozen
from dr3_ray.options import Number, choice, number, per_row
from dr3_ray.types import Backup, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class ReBRACOptions(td3_bc.TD3Options):
    """ReBRAC's options; the defaults are CORL's for MuJoCo."""

    batch_size: int = choice(1024, "transitions in a minibatch of one member")
    hidden_sizes: tuple[int, ...] = choice((256, 256, 256), "widths of the ReLU layers, critic and actor alike")
    critic_lr: Number = number(1e-3, "Adam step size of the critic", low=0.0)
    actor_lr: Number = number(1e-3, "Adam step size of the policy", low=0.0)
    actor_bc_coeff: Number = number(1.0, "β₁, the weight of the distance in the actor's loss", low=0.0)
    critic_bc_coeff: Number = number(1.0, "β₂, the weight of the distance in the backup", low=0.0)
    critic_layer_norm: bool = choice(True, "LayerNorm behind every ReLU of the critic: φ can then be negative")


def objective(options: ReBRACOptions) -> Objective:
    """Return TD3's losses with both penalties; the actor sees the minimum over the critics."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Lower the target and the actor's objective by the distance to the data's actions."""
        assert batch.next_actions is not None and batch.next_actions_valid is not None
        with torch.no_grad():
            a_next = td3_bc.next_actions(options, networks, batch, noise)
            distance = bc_losses.squared_distance(a_next, batch.next_actions) * batch.next_actions_valid
        penalty = per_row(options.critic_bc_coeff) * distance
        terms, backup = td3_bc.critic_terms(options, networks, batch, a_next, penalty)
        with torch.set_grad_enabled(td3_bc.moves_policy(options, step)), frozen(networks.critic):
            actions = networks.actor(batch.observations)
            q = networks.critic.values(batch.observations, actions).amin(1)
            scale = td3.q_scale(q) if options.normalize_q else 1.0
            distance = bc_losses.squared_distance(actions, batch.actions)
            actor = td.mean_over_batch(per_row(options.actor_bc_coeff) * distance - scale * q)
        metrics = terms.metrics | {"action_distance": td.mean_over_batch(distance.detach())}
        return Terms(terms.losses | {"actor": actor}, metrics), backup

    return loss


def networks(options: ReBRACOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `actor` and `critic` with their targets."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions)
    return td3_bc.with_targets(
        DeterministicActor(generators, *sizes),
        ContinuousCritic(generators, *sizes, options.n_critics, options.critic_layer_norm),
    )


REBRAC = AlgorithmSpec(
    "DR3-ReBRAC", "continuous", ReBRACOptions, networks, objective, sarsa.COLUMNS, bc.act, td3_bc.noise,
    active=td3_bc.active,
)  # fmt: skip
