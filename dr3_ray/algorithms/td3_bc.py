"""TD3+BC (Fujimoto & Gu, arXiv 2106.06860).

Critics: Σ_c mean (Q_c(s, a) − r − γ min_c Q̄_c(s', a'))², a' = clip(π̄(s') + clip(σ ε, ±c), ±1).
Actor: mean −λ Q_0(s, π(s)) + ‖π(s) − a‖² / |A|, λ = α / mean |Q_0(s, π(s))|.
The actor and all targets move at every `policy_delay`-th step.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import bc, dqn
from dr3_ray.algorithms.actor import ActorOptions
from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec, RewardOptions
from dr3_ray.losses import bc as bc_losses
from dr3_ray.losses import td, td3
from dr3_ray.networks.actors import DeterministicActor
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.members import frozen
from dr3_ray.networks.targets import target_of
from dr3_ray.options import Number, choice, number, per_row
from dr3_ray.types import Backup, Noise, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class TD3Options(ActorOptions, RewardOptions):
    """Options of TD3; the defaults are those of the authors."""

    gamma: Number = number(0.99, "discount", low=0.0, high=1.0)
    critic_lr: Number = number(3e-4, "Adam step size of the critic", low=0.0)
    actor_lr: Number = number(3e-4, "Adam step size of the policy", low=0.0)
    tau: Number = number(0.005, "target ← (1 − τ) target + τ online, for critic and policy", low=0.0, high=1.0)
    policy_noise: Number = number(0.2, "σ, standard deviation of the noise on the target policy", low=0.0)
    noise_clip: Number = number(0.5, "c, largest noise on a component", low=0.0)
    policy_delay: int = choice(2, "gradient steps between two updates of the policy, and of the targets")
    normalize_q: bool = choice(True, "the actor's Q is divided by mean |Q| of the batch")
    n_critics: int = choice(2, "critics, each with its own features; targets take their minimum")

    @property
    def target_period(self) -> int:
        """TD3 moves targets with the policy."""
        return self.policy_delay


@dataclass(frozen=True)
class TD3BCOptions(TD3Options):
    """TD3+BC's options; the defaults are the paper's."""

    normalize_observations: bool = choice(
        True, "observations minus their mean over their standard deviation + 10⁻³, of the data"
    )
    td3bc_alpha: Number = number(2.5, "α, the weight of Q against the distance to the data's actions", low=0.0)


def next_actions(options: TD3Options, networks: Any, batch: Transition, noise: dict[str, Tensor]) -> Tensor:
    """Return the smoothed actions a' of the target policy, [K, B, A]."""
    scale, clip = (torch.as_tensor(value).view(-1, 1, 1) for value in (options.policy_noise, options.noise_clip))
    return td3.smoothed_actions(networks.target_actor(batch.next_observations), noise["next_action"], scale, clip)


def critic_terms(
    options: TD3Options, networks: Any, batch: Transition, actions: Tensor, penalty: Tensor | float = 0.0
) -> tuple[Terms, Backup]:
    """Return the critics' loss with y = r + γ (min_c Q̄_c(s', a') − penalty) at the given a'; `penalty` [K, B]."""
    assert batch.rewards is not None and batch.terminateds is not None
    with torch.no_grad():
        next_values = networks.target_critic.values(batch.next_observations, actions).amin(1) - penalty
    targets = td.bellman_target(batch.rewards, batch.terminateds, next_values, per_row(options.gamma))
    outputs, phi, next_phi = networks.critic.along(batch, actions)
    terms = regression(networks.critic, outputs, targets)
    return terms, Backup(phi, actions, 1.0 - batch.terminateds, next_phi)


def objective(options: TD3BCOptions) -> Objective:
    """Return the losses of TD3's critics and of an actor that sees the first critic, as in the authors' code."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Train the critics as TD3 does, and the actor on λ Q minus its distance to the data's actions."""
        with torch.no_grad():
            a_next = next_actions(options, networks, batch, noise)
        terms, backup = critic_terms(options, networks, batch, a_next)
        with torch.set_grad_enabled(moves_policy(options, step)), frozen(networks.critic):
            actions = networks.actor(batch.observations)
            q = networks.critic.values(batch.observations, actions, critics=1).squeeze(1)
            scale = per_row(options.td3bc_alpha) * (td3.q_scale(q) if options.normalize_q else 1.0)
            distance = bc_losses.squared_distance(actions, batch.actions)
            actor = td.mean_over_batch(distance / actions.shape[-1] - scale * q)
        metrics = terms.metrics | {"action_distance": td.mean_over_batch(distance.detach())}
        return Terms(terms.losses | {"actor": actor}, metrics), backup

    return loss


def networks(options: TD3Options, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `actor` and `critic` with their targets."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions)
    return with_targets(DeterministicActor(generators, *sizes), ContinuousCritic(generators, *sizes, options.n_critics))


def with_targets(actor: nn.Module, critic: nn.Module) -> nn.Module:
    """Put together `actor`, `critic`, `target_actor` and `target_critic`."""
    targets = {"target_actor": target_of(actor), "target_critic": target_of(critic)}
    return nn.ModuleDict({"actor": actor, "critic": critic, **targets})


def noise(options: TD3Options, spaces: Spaces) -> Noise:
    """Declare one draw on the target policy."""
    return Noise(normal={"next_action": (spaces.n_actions,)}, uniform={})


def moves_policy(options: TD3Options, step: int) -> bool:
    """Return whether this step, counted from 0, trains the policy."""
    return (step + 1) % options.policy_delay == 0


def active(options: TD3Options, step: int) -> frozenset[str]:
    """Name the critic always, the policy every `policy_delay` steps."""
    return frozenset({"critic", "actor"} if moves_policy(options, step) else {"critic"})


TD3BC = AlgorithmSpec(
    "DR3-TD3BC", "continuous", TD3BCOptions, networks, objective, dqn.COLUMNS, bc.act, noise, active=active
)
