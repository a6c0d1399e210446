"""What a regulariser of the critic consists of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dr3_ray.networks.encoders import MLP, Generators
from dr3_ray.options import Options
from dr3_ray.types import Backup, Objective, Terms, Transition


def _unchanged(objective: Objective, options: Any) -> Objective:
    return objective


@dataclass(frozen=True)
class Regularizer:
    """A regulariser of the critic, for every algorithm that has one; fields that it does not need keep their defaults.

    What it does not need stays at its default.

    `options` are its own alone, and their names are those of nothing else. Their defaults leave an algorithm as it is,
    or say where they do not. Child `x` of the networks is trained with the option `x_lr` and decays by
    `x_weight_decay`. All functions take these options, stacked over members.
    """

    name: str
    """Also that of its random stream: `generators` below draw from it, one a member."""
    options: type[Options]
    wrap: Callable[[Objective, Any], Objective] = _unchanged
    """The objective with more losses or metrics."""
    wanted: Callable[[Any], bool] = lambda options: True
    """Whether any member of the pack asks for `wrap`."""
    networks: Callable[[Any, int, Generators], dict[str, nn.Module]] | None = None
    """Children that it adds to the networks of so many members; they are trained whenever the critic is."""
    change: Callable[[nn.Module, Any, Generators], None] | None = None
    """Changes the critic just built, then its target with generators in equal states."""
    check: Callable[[Any, Mapping[str, Any], str], None] = lambda options, beside, action_kind: None
    """Raises UserError where one member's options do not go with all others `beside` them, or with the actions."""
    warn: Callable[[nn.Module, Any], None] = lambda networks, options: None
    """Warns of what these options may do to these networks."""
    looks_ahead: Callable[[Any], bool] = lambda options: False
    """Whether `wrap` asks for φ(s', a') with a gradient, which the critic then finds beside φ(s, a)."""
    needs_host: bool = False
    """Whether `wrap` takes a GPU's host at every step, so that no CUDA graph can hold it."""


def with_penalty(objective: Objective, name: str, penalty: Callable[[Any, Transition, Backup], Tensor]) -> Objective:
    """Return the objective with one more loss, `penalty(networks, batch, backup)` [K]."""

    def regularized(
        networks: Any, batch: Transition, noise: dict[str, Tensor], step: int
    ) -> tuple[Terms, Backup | None]:
        """Add the penalty to the terms under its name."""
        terms, backup = objective(networks, batch, noise, step)
        assert backup is not None
        return Terms(terms.losses | {name: penalty(networks, batch, backup)}, terms.metrics), backup

    return regularized


def encoders_of(critic: nn.Module) -> list[MLP]:
    """Return the stacks of hidden layers in a critic; φ is the output of the last layer."""
    return [module for module in critic.modules() if isinstance(module, MLP)]
