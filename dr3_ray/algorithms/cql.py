"""CQL (Kumar et al., arXiv 2006.04779).

Discrete: DQN + α mean[log Σ_a exp Q(s, a) − Q(s, a_data)].
Continuous: SAC without entropy in the backup + α mean[T log Σ_n exp((Q(s, a_n) − log μ(a_n)) / T) − Q(s, a_data)],
with a_n from the uniform distribution, π(·|s) and π(·|s'), all of them evaluated at s.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import bc, dqn
from dr3_ray.algorithms.spec import AlgorithmSpec, CriticOptions
from dr3_ray.losses import cql, soft_actor_critic, td
from dr3_ray.networks.actors import LogTemperature, SquashedGaussianActor, squashed_log_prob, squashed_sample
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.members import frozen
from dr3_ray.networks.targets import target_of
from dr3_ray.options import Number, choice, number, per_row
from dr3_ray.types import Backup, Noise, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class DiscreteCQLOptions(dqn.DQNOptions):
    """DQN's options and α; the default is the one of DR3's Atari runs."""

    cql_alpha: Number = number(0.1, "α, the weight of the conservative term (0.1: DR3's Atari runs)", low=0.0)


@dataclass(frozen=True)
class ContinuousCQLOptions(CriticOptions):
    """Options on Box actions; the defaults are those of the authors' D4RL code."""

    hidden_sizes: tuple[int, ...] = choice((256, 256, 256), "widths of the ReLU layers, critic and actor alike")
    cql_alpha: Number = number(5.0, "α, the weight of the conservative term (5 or 10: authors' code)", low=0.0)
    actor_lr: Number = number(1e-4, "Adam step size of the actor (1e-4 or 3e-5: authors' code)", low=0.0)
    temperature_lr: Number = number(1e-4, "Adam step size of log α_entropy (authors: the actor's)", low=0.0)
    target_entropy_scale: Number = number(1.0, "target entropy = −scale · |A| (1: SAC)", low=0.0)
    cql_temperature: Number = number(1.0, "T of the log-sum-exp", low=1e-6)
    bc_steps: Number = number(0.0, "first gradient steps in which the actor clones the data (40,000: authors)", low=0.0)
    n_sampled_actions: int = choice(10, "sampled actions from each of uniform, π(·|s) and π(·|s')")
    n_critics: int = choice(2, "critics, each with its own features; targets and actor take their minimum")


def discrete_objective(options: DiscreteCQLOptions) -> Objective:
    """DQN's loss + α · conservative gap."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        values = dqn.evaluate(networks, batch, None, options.double_q)
        terms, backup = dqn.critic_terms(options, values, batch)
        gap = td.mean_over_batch(cql.discrete_gap(values.q, batch.actions))
        losses = terms.losses | {"cql": options.cql_alpha * gap}
        return Terms(losses, terms.metrics | {"cql_gap": gap.detach()}), backup

    return loss


def continuous_objective(options: ContinuousCQLOptions) -> Objective:
    """Critics: Σ_c mean (Q_c − y)² + α · gap_c. Actor: mean α_e log π − min_c Q_c. Temperature: SAC's."""
    warm_start = float(torch.as_tensor(options.bc_steps).max())

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        assert batch.rewards is not None and batch.terminateds is not None and batch.next_observations is not None
        critic, log_temperature = networks.critic, networks.temperature().unsqueeze(-1)
        mean, log_std = networks.actor(batch.observations)
        actions, log_probs = squashed_sample(mean, log_std, noise["action"])

        with torch.no_grad():
            next_mean, next_log_std = networks.actor(batch.next_observations)
            next_actions, _ = squashed_sample(next_mean, next_log_std, noise["next_action"])
            next_values = networks.target_critic(batch.next_observations, next_actions)[0].amin(1)
            uniform = noise["sampled_uniform"]
            density = torch.full_like(uniform[..., 0], cql.uniform_log_density(uniform.shape[-1]))
            at_s = squashed_sample(mean.unsqueeze(2), log_std.unsqueeze(2), noise["sampled_at_s"])
            at_next_s = squashed_sample(next_mean.unsqueeze(2), next_log_std.unsqueeze(2), noise["sampled_at_next_s"])
            sampled_actions = torch.cat([uniform, at_s[0], at_next_s[0]], dim=2)  # [K, B, 3N, A]
            log_density = torch.cat([density, at_s[1], at_next_s[1]], dim=2).unsqueeze(1)

        targets = td.bellman_target(batch.rewards, batch.terminateds, next_values, per_row(options.gamma))
        q, phi = critic(batch.observations, batch.actions)
        sampled_q, _ = critic(batch.observations, sampled_actions)
        temperature = torch.as_tensor(options.cql_temperature).view(-1, 1, 1, 1)
        gap = cql.continuous_gap(sampled_q, log_density, q, temperature)

        with frozen(critic):
            value = critic(batch.observations, actions)[0].amin(1)
        if step < warm_start:
            cloning = (step < torch.as_tensor(options.bc_steps)).view(-1, 1)
            value = torch.where(cloning, squashed_log_prob(mean, log_std, batch.actions), value)
        target_entropy = -torch.as_tensor(options.target_entropy_scale).view(-1, 1) * actions.shape[-1]

        per_critic = td.mean_over_batch(gap)  # [K, C]
        terms = Terms(
            losses={
                "critic": td.mean_over_batch(td.squared_error(q, targets.unsqueeze(1))).sum(1),
                "cql": options.cql_alpha * per_critic.sum(1),
                "actor": td.mean_over_batch(soft_actor_critic.actor_loss(log_probs, value, log_temperature.exp())),
                "temperature": td.mean_over_batch(
                    soft_actor_critic.temperature_loss(log_temperature, log_probs, target_entropy)
                ),
            },
            metrics={
                "q_data": q.detach().mean((1, 2)),
                "target": td.mean_over_batch(targets),
                "cql_gap": per_critic.detach().mean(1),
                "entropy": -td.mean_over_batch(log_probs.detach()),
                "temperature": log_temperature.detach().exp().squeeze(-1),
            },
        )
        return terms, Backup(phi, next_actions, 1.0 - batch.terminateds)

    return loss


def continuous_networks(options: ContinuousCQLOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """`critic`, `target_critic`, `actor`, `temperature`."""
    sizes = (spaces.n_observation, spaces.n_actions, options.hidden_sizes)
    critic = ContinuousCritic(generators, *sizes, options.n_critics)
    return nn.ModuleDict(
        {
            "critic": critic,
            "target_critic": target_of(critic),
            "actor": SquashedGaussianActor(generators, *sizes),
            "temperature": LogTemperature(len(generators)),
        }
    )


def noise(options: ContinuousCQLOptions, spaces: Spaces) -> Noise:
    """One draw for the actor and one for the backup, N each for the three kinds of sampled actions."""
    one, many = (spaces.n_actions,), (options.n_sampled_actions, spaces.n_actions)
    return Noise(
        normal={"action": one, "next_action": one, "sampled_at_s": many, "sampled_at_next_s": many},
        uniform={"sampled_uniform": many},
    )


DISCRETE = AlgorithmSpec(
    "DR3-CQL", "discrete", DiscreteCQLOptions, dqn.networks, discrete_objective, dqn.COLUMNS, dqn.act
)
CONTINUOUS = AlgorithmSpec(
    "DR3-CQL", "continuous", ContinuousCQLOptions, continuous_networks, continuous_objective, dqn.COLUMNS, bc.act, noise
)
