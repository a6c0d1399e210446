"""Behaviour cloning: −log π(a|s) of the data, or of its best episodes. Baseline, and other algorithms' model."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dr3_ray.algorithms.actor import ActorOptions
from dr3_ray.algorithms.spec import AlgorithmSpec, GoalOptions
from dr3_ray.errors import UserError
from dr3_ray.losses import bc, td
from dr3_ray.networks.actors import CategoricalActor, SquashedGaussianActor, squashed_log_prob
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.encoders import Generators
from dr3_ray.observations import Observations
from dr3_ray.options import Number, number
from dr3_ray.types import Objective, Spaces, Terms, Transition


@dataclass(frozen=True)
class BCOptions(ActorOptions, GoalOptions):
    """Options of behaviour cloning."""

    actor_lr: Number = number(3e-4, "Adam step size of the policy", low=0.0)
    best_share: Number = number(
        1.0, "filtered BC: clones the episodes of highest return that hold this share of the rows (0.1: %BC)", 1e-6, 1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shuffle_window and self.best_share < 1.0:
            raise UserError(
                "shuffle_window holds neighbouring rows, and best_share draws from some: name these by "
                f"?take=best:{self.best_share:g}"
            )


def objective(options: BCOptions) -> Objective:
    """Return the loss: the mean over the batch of −log π(a|s), categorical or squashed Gaussian."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, None]:
        """Return the negative log-likelihood of the data's actions; there is no backup."""
        if isinstance(networks.actor, SquashedGaussianActor):
            mean, log_std = networks.actor(batch.observations)
            nll = -squashed_log_prob(mean, log_std, batch.actions)
        else:
            nll = bc.discrete_nll(networks.actor(batch.observations), batch.actions)
        return Terms(losses={"actor": td.mean_over_batch(nll)}, metrics={}), None

    return loss


def discrete_networks(options: BCOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `actor`: logits."""
    return nn.ModuleDict({"actor": CategoricalActor(generators, Architecture.of(options, spaces), spaces.n_actions)})


def continuous_networks(options: BCOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `actor`: a squashed Gaussian."""
    return nn.ModuleDict(
        {"actor": SquashedGaussianActor(generators, Architecture.of(options, spaces), spaces.n_actions)}
    )


def act(networks: Any, observations: Observations) -> Tensor:
    """Return the mode of the policy."""
    return networks.actor.mode(observations)  # type: ignore[no-any-return]


COLUMNS = ("observations", "actions")
DISCRETE = AlgorithmSpec("BC", "discrete", BCOptions, discrete_networks, objective, COLUMNS, act, has_critic=False)
CONTINUOUS = AlgorithmSpec(
    "BC", "continuous", BCOptions, continuous_networks, objective, COLUMNS, act, has_critic=False
)
