"""QR-DQN (Dabney et al., arXiv 1710.10044): N quantiles of the return of each action; their mean is Q.

DR3-QRCQL adds α mean[log Σ_a exp Q(s, a) − Q(s, a_data)]: the discrete CQL of its authors (arXiv 2006.04779).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import dqn, rem
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.losses import cql, quantile, td
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.discrete_critics import MultiHeadCritic
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.targets import target_of
from dr3_ray.options import Number, choice, number
from dr3_ray.types import Backup, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class QRDQNOptions(dqn.DiscreteTargetOptions):
    """DQN's options, with quantiles in the place of its loss."""

    n_quantiles: int = choice(200, "quantiles of the return (200: Dabney et al. 2018)")
    huber_kappa: Number = number(1.0, "κ, where the quantile Huber loss turns linear (1: Dabney et al. 2018)", low=1e-6)
    double_q: bool = choice(False, "the online critic chooses a' (d3rlpy's discrete CQL; the authors': off)")


@dataclass(frozen=True)
class QRCQLOptions(QRDQNOptions):
    """QR-DQN's options and α."""

    cql_alpha: Number = number(1.0, "α, the weight of the conservative term (1 to 4: the authors on Atari)", low=0.0)


def objective(options: QRDQNOptions) -> Objective:
    """Return the mean over the batch of Σ_i mean_j ρ(y_j − θ_i(s, a)), and with α the conservative gap of Q."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Regress the quantiles of the action taken on those of the best next action."""
        assert batch.terminateds is not None
        conservative = isinstance(options, QRCQLOptions)
        with torch.no_grad():
            next_quantiles = networks.target_critic(batch.next_observations)[0]
            selector = dqn.online(networks, batch) if options.double_q else next_quantiles
            next_actions = selector.mean(-1).argmax(-1)
            next_quantiles = quantiles_of(next_quantiles, next_actions)
        quantiles, phi, next_phi = networks.critic.along(batch, next_actions, every=conservative)
        taken = quantiles_of(quantiles, batch.actions) if conservative else quantiles
        rewards, gamma = dqn.return_and_discount(options, batch)
        kappa = torch.as_tensor(options.huber_kappa).view(-1, 1, 1, 1)
        targets = quantile.quantile_target(rewards, batch.terminateds, next_quantiles, gamma)
        errors = quantile.quantile_huber(taken, targets, kappa)
        losses = {"critic": td.mean_over_batch(errors)}
        metrics = {
            "q_data": td.mean_over_batch(taken.detach().mean(-1)),
            "target": td.mean_over_batch(targets.mean(-1)),
        }
        if isinstance(options, QRCQLOptions):
            gap = td.mean_over_batch(cql.discrete_gap(quantiles.mean(-1), batch.actions))
            losses["cql"] = options.cql_alpha * gap
            metrics["cql_gap"] = gap.detach()
        return Terms(losses, metrics), Backup(phi, next_actions, 1.0 - batch.terminateds, next_phi)

    return loss


def quantiles_of(quantiles: Tensor, actions: Tensor) -> Tensor:
    """Return θ(s, a) [K, B, N] from the quantiles of all actions [K, B, n_actions, N]."""
    return td.value_of(quantiles.movedim(-1, 0), actions).movedim(0, -1)


def networks(options: QRDQNOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `critic` and `target_critic`, `n_quantiles` quantiles an action on one trunk."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions, options.n_quantiles)
    critic = MultiHeadCritic(generators, *sizes, options.critic_actions)
    return nn.ModuleDict({"critic": critic, "target_critic": target_of(critic)})


QRDQN = AlgorithmSpec("DR3-QRDQN", "discrete", QRDQNOptions, networks, objective, dqn.COLUMNS, rem.act)
QRCQL = AlgorithmSpec("DR3-QRCQL", "discrete", QRCQLOptions, networks, objective, dqn.COLUMNS, rem.act)
