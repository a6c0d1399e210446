"""One run of a sweep: an algorithm's options, the regularisers', and a seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dr3_ray.algorithms.actor import ActorOptions, check_actor, regularize_actor
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data.number_types import Array
from dr3_ray.data.sampler import generator
from dr3_ray.errors import UserError
from dr3_ray.networks.architecture import Architecture
from dr3_ray.observations import is_image, parts_of
from dr3_ray.options import deal
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS, REGULARIZERS
from dr3_ray.training.hindsight import check_hindsight
from dr3_ray.training.normalization import Statistics, act_in, normalize_by
from dr3_ray.training.returns import check_recorded
from dr3_ray.types import Objective, Spaces

Stacked = dict[str, Any]  # name of a regulariser -> its options, stacked over members


@dataclass(frozen=True)
class Member:
    """One member of a population: its options, and its seed."""

    options: Any  # an instance of the algorithm's options
    seed: int
    regularizers: Mapping[str, Any] = field(default_factory=dict)  # options by name; none: the base algorithm

    @classmethod
    def from_dict(cls, spec: AlgorithmSpec, values: dict[str, Any]) -> "Member":
        """Return a member from plain values: `seed` and options of algorithm and regularisers; unknown names fail."""
        values = dict(values)
        acts = issubclass(spec.options, ActorOptions)
        if not acts and (vain := [name for name in ActorOptions.names() if name in values]):
            raise UserError(f"{spec.name} has no actor to regularise: leave out {', '.join(vain)}")
        seed = values.pop("seed", 0)
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise UserError(f"seed must be a whole number from 0 to 2^32 - 1, not {seed!r}")
        if not spec.has_critic:
            if vain := [name for option in REGULARIZER_OPTIONS for name in option.names() if name in values]:
                raise UserError(f"{spec.name} has no critic to regularise: leave out {', '.join(vain)}")
            return cls(spec.options.from_dict(values), seed)
        own, *others = deal(values, (spec.options, *REGULARIZER_OPTIONS))
        named = zip(REGULARIZERS.items(), others, strict=True)
        regularizers = {name: regularizer.options.from_dict(dealt) for (name, regularizer), dealt in named}
        member = cls(spec.options.from_dict(own), seed, regularizers)
        for name, options in regularizers.items():
            REGULARIZERS[name].check(options, member.to_dict(), spec.action_kind)
        return member

    @property
    def all_options(self) -> list[Any]:
        """The algorithm's options, then each regulariser's."""
        return [self.options, *self.regularizers.values()]

    def _find(self, name: str, default: float | None = None) -> float:
        numbers = [float(getattr(options, name)) for options in self.all_options if hasattr(options, name)]
        return numbers[0] if numbers or default is None else default

    def step_size(self, part: str) -> float:
        """Return Adam's step size for a trained child of the networks."""
        return self._find(f"{part}_lr")

    def weight_decay(self, part: str) -> float:
        """Return AdamW's λ for a trained child of the networks."""
        return self._find(f"{part}_weight_decay", 0.0)

    def follows_critic(self, part: str) -> bool:
        """Return whether a child is a regulariser's, which is trained whenever the critic is."""
        return not hasattr(self.options, f"{part}_lr")

    @property
    def needs_host(self) -> bool:
        """Whether a regulariser takes a GPU's host at every step."""
        chosen = [(REGULARIZERS[name], options) for name, options in self.regularizers.items()]
        return any(regularizer.needs_host and regularizer.wanted(options) for regularizer, options in chosen)

    def to_dict(self) -> dict[str, Any]:
        """Return the member's full configuration as plain values."""
        values: dict[str, Any] = {}
        for options in self.all_options:
            values |= options.to_dict()
        return values | {"seed": self.seed}


def first_steps(members: Sequence[Member]) -> int:
    """Return the number of first gradient steps, in which an objective may differ from that of later ones.

    Options whose names end in `_steps` count first steps in which something is different, or steps after those of
    another option. Later, an objective depends on the step only by the parts that it trains.
    """
    counts = [[count for name, count in member.to_dict().items() if name.endswith("_steps")] for member in members]
    longest: int = max(math.ceil(sum(count)) for count in counts)
    return longest


def stack_regularizers(members: Sequence[Member], *to: Any) -> Stacked:
    """Return the regularisers' options of K members, as `Options.stack` makes them, in the order of the registry."""
    return {
        name: regularizer.options.stack([member.regularizers[name] for member in members], *to)
        for name, regularizer in REGULARIZERS.items()
        if name in members[0].regularizers
    }


def objective_of(objective: Objective, regularizers: Stacked) -> Objective:
    """Return an algorithm's objective with these regularisers around it, the first innermost."""
    for name, regularizer in regularizers.items():
        objective = REGULARIZERS[name].wrap(objective, regularizer)
    return objective


def check_members(spec: AlgorithmSpec, spaces: Spaces, members: Sequence[Member]) -> Any:
    """Return the members' options, stacked.

    Raises:
        UserError: they cannot be one pack, or not on these observations.
    """
    options: Any = spec.options.stack([member.options for member in members])
    stack_regularizers(members)
    Architecture.of(options, spaces)
    if options.random_crop and not any(map(is_image, parts_of(spaces.observation_shape).values())):
        raise UserError(f"random_crop moves images, and the observations have shape {spaces.observation_shape}")
    check_actor(options)
    check_hindsight(options, spaces)
    check_recorded(spec, [member.options for member in members])
    return options


def build_networks(
    spec: AlgorithmSpec,
    spaces: Spaces,
    members: Sequence[Member],
    statistics: Statistics | None = None,
    task: Tensor | Array | None = None,
) -> nn.Module:
    """Build the stacked networks, each member's first weights drawn from its own seed.

    `statistics` of the data's observations are needed where the option `normalize_observations` is set. `task` is the
    one-hot of the task to act in, for observations that lack it.
    """
    options = check_members(spec, spaces, members)
    networks = spec.networks(options, spaces, [generator(member.seed, "init") for member in members])
    regularize_actor(networks, options)
    for name, regularizer in stack_regularizers(members).items():
        _regularize(networks, name, regularizer, [member.seed for member in members])
    networks.eval()  # layers behave differently only inside of a training step
    if options.normalize_observations:
        if statistics is None:
            raise UserError("normalize_observations needs statistics: give build_networks observation_statistics(data)")
        normalize_by(networks, statistics)
    act_in(networks, spaces, task)
    return networks


def _regularize(networks: nn.Module, name: str, options: Any, seeds: Sequence[int]) -> None:
    """Add a regulariser's children to the networks, and change the critic and its target, both just built."""
    regularizer = REGULARIZERS[name]
    if regularizer.networks:
        sources = [generator(seed, name) for seed in seeds]
        for child, module in regularizer.networks(options, len(seeds), sources).items():
            networks.add_module(child, module)
    if regularizer.change:
        for child in [child for child in ("critic", "target_critic") if hasattr(networks, child)]:
            critic = networks.get_submodule(child)
            regularizer.change(critic, options, [generator(seed, name) for seed in seeds])
            critic.requires_grad_(child == "critic")


def warn_of_regularizers(networks: nn.Module, members: Sequence[Member]) -> None:
    """Warn of harm that the members' regularisers may do to these networks."""
    for name, options in stack_regularizers(members).items():
        REGULARIZERS[name].warn(networks, options)
