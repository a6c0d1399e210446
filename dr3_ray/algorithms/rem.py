"""REM (Agarwal et al., arXiv 1907.04543): DQN on a random convex mixture of the heads of one network.

Q_α = Σ_h α_h Q_h, one α a step for the online and the target critic alike: y = r + γ max_a' Q̄_α(s', a').
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import dqn
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.losses import rem, td
from dr3_ray.networks.actors import greedy
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.discrete_critics import MultiHeadCritic
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.targets import target_of
from dr3_ray.observations import Observations
from dr3_ray.options import choice
from dr3_ray.types import Backup, Noise, Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class REMOptions(dqn.DiscreteCriticOptions):
    """DQN's options, and the ensemble."""

    n_heads: int = choice(200, "heads of the ensemble (200: Agarwal et al. 2020)")
    mixture: Literal["uniform", "dirichlet", "one_hot"] = choice(
        "uniform",
        "law of α: normalised uniforms (the authors), `dirichlet` (uniform on the simplex), `one_hot` (one head)",
        ("uniform", "dirichlet", "one_hot"),
    )


def objective(options: REMOptions) -> Objective:
    """Return the loss: the mean over the batch of Huber(Q_α(s, a) − y)."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Regress one random mixture of the heads on the same mixture of the target's."""
        weights = rem.mixture((noise["mixture"] + 1.0) / 2.0, options.mixture)
        with torch.no_grad():
            next_q = rem.mix(networks.target_critic(batch.next_observations)[0], weights)
            next_actions = next_q.argmax(-1)
        heads, phi, next_phi = networks.critic.along(batch, next_actions)
        q = rem.mix(heads.unsqueeze(2), weights).squeeze(2).unsqueeze(1)
        values = dqn.CriticValues(q, phi, next_phi, next_actions, td.value_of(next_q, next_actions))
        terms, backup = dqn.critic_terms(options, networks.critic, values, batch)
        q_data = heads.detach().mean(-1)  # of the mean head, which acts
        return Terms(terms.losses, terms.metrics | {"q_data": td.mean_over_batch(q_data)}), backup

    return loss


def networks(options: REMOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `critic` and `target_critic`, `n_heads` heads an action on one trunk."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions, options.n_heads)
    critic = MultiHeadCritic(generators, *sizes, options.critic_actions)
    return nn.ModuleDict({"critic": critic, "target_critic": target_of(critic)})


def noise(options: REMOptions, spaces: Spaces) -> Noise:
    """Declare one draw a step for each head."""
    return Noise(normal={}, uniform={}, uniform_per_step={"mixture": (options.n_heads,)})


def act(networks: Any, observations: Observations) -> Tensor:
    """Return argmax_a of the mean over heads."""
    return greedy(networks.critic(observations)[0].mean(-1))


REM = AlgorithmSpec("DR3-REM", "discrete", REMOptions, networks, objective, dqn.COLUMNS, act, noise)
