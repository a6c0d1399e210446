"""A variational bottleneck in the critic (arXiv 2109.10813): φ is drawn, and its distribution held near N(0, 1)."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.stochastic import Bottleneck
from dr3_ray.options import Number, Options, choice, number
from dr3_ray.regularizers.spec import Regularizer, encoders_of, with_penalty
from dr3_ray.types import Backup, Objective, Transition


@dataclass(frozen=True)
class CriticBottleneck(Options):
    """The switch of a bottleneck in the critic, and the weight on the divergence of φ."""

    critic_bottleneck: bool = choice(
        False, "φ ~ N(mean, std²) of two linear outputs, a variational bottleneck (arXiv 2109.10813); φ can be negative"
    )
    bottleneck_coeff: Number = number(
        1e-3,
        "weight of the mean KL(φ's distribution ‖ N(0, 1)) of the bottleneck (ours; it has to be swept)",
        low=0.0,
        needs={"critic_bottleneck": (True,)},
    )


def change(critic: nn.Module, options: CriticBottleneck, generators: Generators) -> None:
    """Put a bottleneck behind the last hidden layer."""
    if options.critic_bottleneck:
        for encoder in encoders_of(critic):
            encoder.output = Bottleneck(generators, encoder.n_out, encoder.copies)


def bottleneck_kl(
    mean: Float[Tensor, "*member row feature"], log_std: Float[Tensor, "*member row feature"]
) -> Float[Tensor, "*member"]:
    """Return the mean over rows of KL(N(mean, std²) ‖ N(0, 1)) = Σ_f (mean² + std² − 1) / 2 − log std."""
    return ((mean.square() + (2.0 * log_std).exp() - 1.0) / 2.0 - log_std).sum(-1).mean(-1)


def with_bottleneck(objective: Objective, options: CriticBottleneck) -> Objective:
    """Return the objective plus the weighted divergence of φ's distribution at (s, a), averaged over the critics."""

    def penalty(networks: Any, batch: Transition, backup: Backup) -> Tensor:
        posterior = networks.critic.posterior(batch.observations, batch.actions)
        return options.bottleneck_coeff * bottleneck_kl(*posterior).mean(-1)

    return with_penalty(objective, "bottleneck", penalty)


REGULARIZER = Regularizer(
    "bottleneck", CriticBottleneck, with_bottleneck, wanted=lambda options: options.critic_bottleneck, change=change
)
