"""The problems of a sweep, one algorithm on one data set each, and the members that are trained for them."""

import math
from collections.abc import Callable
from typing import NamedTuple

from dr3_ray import limits
from dr3_ray.algorithms.registry import find, kinds_of
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data import Dataset, load_dataset
from dr3_ray.data.labels import dataset_label
from dr3_ray.errors import UserError
from dr3_ray.runs.identity import member_id
from dr3_ray.sweep.spec.condition import meets
from dr3_ray.sweep.spec.environment import environment_of, playable_in
from dr3_ray.sweep.spec.halving import Race
from dr3_ray.sweep.spec.measured import check_measured
from dr3_ray.sweep.spec.names import REGULAR, check_names, options_of
from dr3_ray.sweep.spec.space import Assignment, Space, expand, ordered, repeated
from dr3_ray.sweep.spec.spec import Config, SweepSpec
from dr3_ray.training.batches import check_shares
from dr3_ray.training.member import Member, check_members
from dr3_ray.training.returns import check_returns
from dr3_ray.training.rewards import return_range
from dr3_ray.training.value_range import check_ranges


class Problem(NamedTuple):
    """One algorithm on one data set, for which the configurations of a sweep are made."""

    spec: SweepSpec
    source: str
    """The data set, as the specification names it."""
    data: Dataset
    form: AlgorithmSpec
    about: Config
    """What all members here have in common."""

    def configs(self, options: Assignment) -> list[Config]:
        """Return a configuration with every seed.

        Raises:
            UserError: one of the options is unknown or not acceptable here.
        """
        known = options_of(self.form).keys() | REGULAR
        for name in {**self.spec.options, **options}:
            if name not in known:
                raise UserError(self._lacks(name))
        pack = [Member.from_dict(self.form, {**self.spec.options, **options, "seed": seed}) for seed in self.spec.seeds]
        return_range(check_members(self.form, self.data.spaces, pack), self.data)
        check_shares(self.data, pack)
        check_ranges(pack, self.data)
        check_returns(self.form.columns, pack, self.data)
        return [self.about | member.to_dict() for member in pack]

    def _lacks(self, option: str) -> str:
        """Say that the algorithm has no such option here, and what to do."""
        lacks = f"{self.form.name} has no option {option!r}"
        others = {kind: form for kind, form in kinds_of(self.form.name).items() if form is not self.form}
        if having := [kind for kind, form in others.items() if option in options_of(form)]:
            here = self.data.spaces.action_kind
            return f"{lacks} where actions are {here}, but where they are {having[0]}: leave it out"
        return f"{lacks}: make it an axis with when: {{algorithm: ...}} for those that do"

    def excluded_by(self, config: Config) -> list[int]:
        """Return which of the conditions of `exclude` a member meets."""
        seen = config | {"dataset": self.source}
        return [number for number, condition in enumerate(self.spec.exclude) if meets(condition, seen)]

    def members(self, options: Assignment) -> dict[str, Config]:
        """Return a configuration with the seeds that `exclude` leaves, by hash.

        Raises:
            UserError: as `configs`.
        """
        return {member_id(config): config for config in self.configs(options) if not self.excluded_by(config)}

    @property
    def name(self) -> str:
        """`DR3-CQL on breakout-replay`."""
        return f"{self.form.name} on {dataset_label(self.source)}"

    @property
    def spaces(self) -> list[tuple[str, Space]]:
        """The axes and `dr3_coeff`, each after the ones that its condition looks at."""
        return ordered(self.spec.axes, self.spec.coefficients if self.form.has_critic else None)

    @property
    def known(self) -> Assignment:
        """The values that conditions see besides the axes."""
        return options_of(self.form) | self.spec.options | {"algorithm": self.form.name, "dataset": self.source}


def problems(spec: SweepSpec, say: Callable[[str], None] = lambda _: None) -> list[Problem]:
    """Return every algorithm on every data set.

    `say` is told where there are no rollouts for want of a package, and which data sets are the same one.

    Raises:
        UserError: an algorithm, data set, option or environment is unknown, unusable or does not fit another.
    """
    check_names(spec.algorithms, spec.options, spec.axes, spec.exclude)
    resolved = []
    known: dict[str, str] = {}  # the first name of each data set, by its fingerprint
    for source in dict.fromkeys(spec.datasets):
        data = load_dataset(source)
        if (first := known.setdefault(data.fingerprint, source)) != source:
            say(f"{source} holds the same data as {first}: members on both are the same, and are trained once")
        if data.manifest.note:
            say(f"{source}: {data.manifest.note}")
        if len(spec.seeds) > len(data):
            raise UserError(f"{len(spec.seeds)} seeds are more than {source} has rows ({len(data)}): use fewer seeds")
        environment = environment_of(spec.environment, data, say)
        for algorithm in dict.fromkeys(spec.algorithms):
            form = find(algorithm, "discrete" if data.action_space.kind == "discrete" else "continuous")
            playable = playable_in(environment, form, spec.environment)
            about = {
                "algorithm": algorithm,
                "dataset": source,
                "data_fingerprint": data.fingerprint,
                "steps": spec.steps,
                "evaluations": spec.evaluations,
                "environment": playable,
                "evaluation_episodes": spec.evaluation_episodes if playable else 0,
                "dr3_coeff": 0.0,  # of an algorithm that has nothing to regularise
            }
            if spec.halving:
                about["halving"] = Race(**dict(spec.halving), objective=spec.objective[0]).model_dump()
                check_measured(spec.objective[:1], [about])
            resolved.append(Problem(spec, source, data, form, about))
    return resolved


def members(spec: SweepSpec, say: Callable[[str], None] = lambda _: None) -> dict[str, Config]:
    """Return all members of a sweep, by their hash: each its full configuration, with every option resolved.

    `say` is told where there are no rollouts for want of a package, of values that are listed twice, and of conditions
    that nothing meets.

    Raises:
        UserError: an algorithm, data set, option, seed or environment is unknown, unusable or does not fit another;
            or nothing is left.
    """
    configs, idle = members_of(spec, say)
    for number in idle:
        say(f"exclude.{number} leaves nothing out: no member meets it")
    if not configs:
        raise UserError("the sweep has no members: exclude leaves out all of them")
    return configs


def members_of(spec: SweepSpec, say: Callable[[str], None]) -> tuple[dict[str, Config], list[int]]:
    """Return what `members` does, where that may be nothing, and the conditions of `exclude` that nothing meets.

    Raises:
        UserError: as `members`.
    """
    _tell_repeated(spec, say)
    configs: dict[str, Config] = {}
    idle = set(range(len(spec.exclude)))  # conditions that have left nothing out yet
    for problem in problems(spec, say):
        _check_size(problem)
        here: dict[str, list[Config]] = {}  # every configuration with all its seeds
        for options in expand(problem.spaces, problem.known, spec.sample_seed):
            for config in problem.configs(options):
                met = problem.excluded_by(config)
                if not met:
                    here.setdefault(_drawn_by(problem, config), []).append(config)
                idle -= set(met)
        for key in here if spec.budget is None else sorted(here)[: spec.budget]:
            configs |= {member_id(config): config for config in here[key]}
    return configs, sorted(idle)


def _tell_repeated(spec: SweepSpec, say: Callable[[str], None]) -> None:
    """Tell which values are listed more than once."""
    lists = {"algorithms": spec.algorithms, "datasets": spec.datasets, "coefficients": spec.coefficients}
    for name, axis in {**lists, **{f"axes.{axis}": values for axis, values in spec.axes.items()}}.items():
        if (value := repeated(axis)) is not None:
            say(f"{name}: {value} is there more than once, and is trained once")


def _check_size(problem: Problem) -> None:
    """Check that a sweep of all combinations has not more members than can be told apart, before they are made.

    Raises:
        UserError: it has.
    """
    spec = problem.spec
    sizes = [len(space.points(name, spec.sample_seed)) for name, space in problem.spaces if not space.when]
    if (count := math.prod(sizes) * len(spec.seeds)) > limits.MEMBERS:
        raise UserError(
            f"{problem.name} has {count:,} members with all combinations of axes, and {limits.MEMBERS:,} is the most: "
            "leave out values, or let a search choose"
        )


def _drawn_by(problem: Problem, config: Config) -> str:
    """Return the key of random draws, the same for all seeds and on all data sets."""
    own = {name: value for name, value in config.items() if name not in problem.about}
    if problem.form.has_critic:
        own["dr3_coeff"] = config["dr3_coeff"]
    return member_id(own | {"seed": problem.spec.sample_seed})
