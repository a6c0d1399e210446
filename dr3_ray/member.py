"""One run of a sweep: an algorithm's options, the regularisers', and a seed."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data.sampler import generator
from dr3_ray.errors import UserError
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.encoders import MLP
from dr3_ray.normalization import Statistics, normalize_by
from dr3_ray.observations import is_image, parts_of
from dr3_ray.options import Options
from dr3_ray.regularizers.baselines import Baselines, change_critic, with_baselines
from dr3_ray.regularizers.dr3 import DR3, multiplier_networks, with_dr3
from dr3_ray.types import Objective, Spaces

REGULARIZERS: tuple[type[Options], ...] = (DR3, Baselines)  # whose options every algorithm with a critic has


@dataclass(frozen=True)
class Member:
    """What distinguishes one member of a population from another."""

    options: Any  # an instance of the algorithm's options
    dr3: DR3 | None
    seed: int
    baselines: Baselines | None = None

    @classmethod
    def from_dict(cls, spec: AlgorithmSpec, values: dict[str, Any]) -> "Member":
        """A member from plain values: `seed`, the regularisers' and the algorithm's options; unknown names fail."""
        values = dict(values)
        seed = values.pop("seed", 0)
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise UserError(f"seed must be a whole number from 0 to 2^32 - 1, not {seed!r}")
        dr3 = {name: values.pop(name) for name in list(values) if name.startswith("dr3_")}
        baselines = {name: values.pop(name) for name, _ in Baselines() if name in values}
        if not spec.has_critic:
            if dr3 or baselines:
                raise UserError(f"{spec.name} has no critic to regularise: leave out {', '.join(dr3 | baselines)}")
            return cls(spec.options.from_dict(values), None, seed)
        regularizer = DR3.from_dict(dr3)
        if regularizer.dr3_match_actions and spec.action_kind != "discrete":
            raise UserError("dr3_match_actions compares the heads of a discrete critic: leave it out")
        return cls(spec.options.from_dict(values), regularizer, seed, Baselines.from_dict(baselines))

    def step_size(self, part: str) -> float:
        """Adam's step size for a trained child of the networks."""
        value: float = getattr(self.dr3 if part.startswith("dr3_") else self.options, f"{part}_lr")
        return value

    def weight_decay(self, part: str) -> float:
        """AdamW's λ for a trained child of the networks."""
        return float(self.baselines.critic_weight_decay) if self.baselines and part == "critic" else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The member's full configuration as plain values."""
        options: dict[str, Any] = self.options.to_dict()
        for regularizer in (self.dr3, self.baselines):
            options |= regularizer.to_dict() if regularizer else {}
        return options | {"seed": self.seed}


def first_steps(members: Sequence[Member]) -> int:
    """How many gradient steps there are in which an objective may differ from that of later ones.

    Options whose names end in `_steps` count first steps in which something is different, or steps after those of
    another option. Later, an objective depends on the step only in what it trains.
    """
    counts = [[count for name, count in member.to_dict().items() if name.endswith("_steps")] for member in members]
    longest: int = max(math.ceil(sum(each)) for each in counts)
    return longest


def stack_regularizers(members: Sequence[Member], *to: Any) -> tuple[DR3 | None, Baselines | None]:
    """The regularisers' options of K members as `Options.stack` makes them; None: there is nothing to add.

    DR3 stands around every algorithm with a critic, also with a weight of 0, so that its penalty is measured.
    """
    dr3 = [member.dr3 for member in members if member.dr3]
    baselines = [member.baselines for member in members if member.baselines]
    stacked = Baselines.stack(baselines, *to) if baselines else None
    return DR3.stack(dr3, *to) if dr3 else None, stacked if stacked and stacked.penalizes else None


def objective_of(
    spec: AlgorithmSpec, options: Options, dr3: DR3 | None, baselines: Baselines | None = None
) -> Objective:
    """The algorithm's objective, regularised where it has a critic."""
    objective = spec.objective(options)
    objective = with_dr3(objective, dr3) if dr3 else objective
    return with_baselines(objective, baselines) if baselines else objective


def check_members(spec: AlgorithmSpec, spaces: Spaces, members: Sequence[Member]) -> Any:
    """The members' options, stacked; UserError where they cannot be one pack, or not on these observations."""
    options: Any = spec.options.stack([member.options for member in members])
    stack_regularizers(members)
    Architecture.of(options, spaces)
    if options.random_crop and not any(map(is_image, parts_of(spaces.observation_shape).values())):
        raise UserError(f"random_crop moves images, and the observations have shape {spaces.observation_shape}")
    return options


def build_networks(
    spec: AlgorithmSpec, spaces: Spaces, members: Sequence[Member], statistics: Statistics | None = None
) -> nn.Module:
    """The stacked networks, each member's first weights drawn from its own seed.

    `statistics` of the data's observations are needed where the option `normalize_observations` is set.
    """
    options = check_members(spec, spaces, members)
    networks = spec.networks(options, spaces, [generator(member.seed, "init") for member in members])
    if regularizers := [member.dr3 for member in members if member.dr3]:
        for name, module in multiplier_networks(DR3.stack(regularizers), len(members)).items():
            networks.add_module(name, module)
    if baselines := [member.baselines for member in members if member.baselines]:
        sources = [[generator(member.seed, "bottleneck") for member in members] for _ in ("critic", "target_critic")]
        change_critic(networks, Baselines.stack(baselines), sources)
    networks.eval()  # layers behave differently only inside of a training step
    if options.normalize_observations:
        if statistics is None:
            raise UserError("normalize_observations needs statistics: give build_networks observation_statistics(data)")
        normalize_by(networks, statistics)
    return networks


def warn_of_unbounded_penalty(networks: nn.Module, members: Sequence[Member]) -> None:
    """Warn where DR3 minimises a dot product of features that can be negative: it has no lower bound."""
    penalized = any(member.dr3 and member.dr3.penalizes and member.dr3.dr3_form == "dot" for member in members)
    encoders = [each for name, each in networks.named_modules() if name.startswith("critic.") and isinstance(each, MLP)]
    if penalized and any(encoder.signed for encoder in encoders):
        warnings.warn(
            "the features of this critic can be negative, so that their dot product has no lower bound and minimising "
            "it can run away: use dr3_form='abs', or dr3_adaptive",
            stacklevel=3,
        )
