"""FQL (Park et al., arXiv 2502.02538): a flow models the data's actions, and a policy of one step learns from it and Q.

Critics: Σ_c mean (Q_c(s, a) − r − γ mean_c Q̄_c(s', a'))², a' = μ(s', z').
Flow: mean ‖v(s, x_t, t) − (a − x)‖² / |A|, x_t = (1 − t) x + t a, x ~ N(0, I), t uniform in [0, 1].
Actor: mean α ‖μ(s, z) − Euler(v; s, z)‖² / |A| − λ mean_c Q_c(s, μ(s, z)), z ~ N(0, I), λ = 1 or 1 / mean |Q|.
Actions are moved into [−1, 1] wherever a critic sees them, and at the flow's end.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import bc, dqn
from dr3_ray.algorithms.actor import ActorOptions
from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec, CriticOptions
from dr3_ray.losses import bc as bc_losses
from dr3_ray.losses import td, td3
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.flows import NoiseActor, VectorField
from dr3_ray.networks.members import frozen
from dr3_ray.networks.targets import target_of
from dr3_ray.options import Number, choice, number, per_row
from dr3_ray.types import Backup, Noise, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class FQLOptions(ActorOptions, CriticOptions):
    """FQL's options; the defaults are those of the authors' code."""

    hidden_sizes: tuple[int, ...] = choice((512, 512, 512, 512), "widths of the ReLU layers, of all networks alike")
    fql_alpha: Number = number(10.0, "α, the weight of the distance to the flow (0.03 to 10: authors)", low=0.0)
    flow_lr: Number = number(3e-4, "Adam step size of the flow", low=0.0)
    actor_lr: Number = number(3e-4, "Adam step size of the policy", low=0.0)
    flow_divisions: int = choice(10, "equal steps of Euler's method from noise to an action of the flow (10: authors)")
    q_of_target: Literal["mean", "min"] = choice(
        "mean", "the target takes the `mean` of the critics (authors) or their `min`", ("mean", "min")
    )
    normalize_q: bool = choice(False, "the actor's Q is divided by mean |Q| of the batch (authors: worth a try)")
    critic_layer_norm: bool = choice(True, "LayerNorm behind every ReLU of the critic: φ can then be negative")
    n_critics: int = choice(2, "critics, each with its own features; the actor sees their mean")


def objective(options: FQLOptions) -> Objective:
    """Return the losses of critics, flow and policy, all at the same weights."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Regress Q on its target, v on straight lines, and the policy on the flow's ends and on Q."""
        assert batch.rewards is not None and batch.terminateds is not None
        with torch.no_grad():
            next_actions = networks.actor(batch.next_observations, noise["next_action"]).clamp(-1.0, 1.0)
            next_q = networks.target_critic.values(batch.next_observations, next_actions)
            ends = networks.flow.transported(batch.observations, noise["action"], options.flow_divisions)
        next_values = next_q.mean(1) if options.q_of_target == "mean" else next_q.amin(1)
        targets = td.bellman_target(batch.rewards, batch.terminateds, next_values, per_row(options.gamma))
        outputs, phi, next_phi = networks.critic.along(batch, next_actions)
        fitted = regression(networks.critic, outputs, targets)

        start, time = noise["start"], (noise["time"] + 1.0) / 2.0
        points = torch.lerp(start, batch.actions, time.unsqueeze(-1))
        velocity = networks.flow(batch.observations, points, time)
        away = bc_losses.squared_distance(velocity, batch.actions - start) / start.shape[-1]

        actions = networks.actor(batch.observations, noise["action"])
        distance = bc_losses.squared_distance(actions, ends.clamp(-1.0, 1.0)) / actions.shape[-1]
        with frozen(networks.critic):
            value = networks.critic.values(batch.observations, actions.clamp(-1.0, 1.0)).mean(1)
        scale = td3.q_scale(value) if options.normalize_q else 1.0
        terms = Terms(
            fitted.losses
            | {
                "flow": td.mean_over_batch(away),
                "actor": td.mean_over_batch(per_row(options.fql_alpha) * distance - scale * value),
            },
            fitted.metrics | {"flow_distance": td.mean_over_batch(distance.detach())},
        )
        return terms, Backup(phi, next_actions, 1.0 - batch.terminateds, next_phi)

    return loss


def networks(options: FQLOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `actor`, `flow`, `critic` and `target_critic`."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions)
    critic = ContinuousCritic(generators, *sizes, options.n_critics, options.critic_layer_norm)
    return nn.ModuleDict(
        {
            "actor": NoiseActor(generators, *sizes),
            "flow": VectorField(generators, *sizes),
            "critic": critic,
            "target_critic": target_of(critic),
        }
    )


def noise(options: FQLOptions, spaces: Spaces) -> Noise:
    """Declare a draw of z at s and at s', and of the flow's start and time."""
    one = (spaces.n_actions,)
    return Noise(normal={"action": one, "next_action": one, "start": one}, uniform={"time": ()})


FQL = AlgorithmSpec("DR3-FQL", "continuous", FQLOptions, networks, objective, dqn.COLUMNS, bc.act, noise)
