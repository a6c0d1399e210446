"""What a sweep is asked for, and which members that means."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StrictInt,
    ValidationError,
)

from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data import Dataset, load_dataset
from dr3_ray.errors import UserError
from dr3_ray.member import Member, check_members
from dr3_ray.stores import absolute
from dr3_ray.sweep.condition import Condition, meets
from dr3_ray.sweep.environment import environment_of, playable_in
from dr3_ray.sweep.halving import Halving, Race, as_halving
from dr3_ray.sweep.identity import member_id
from dr3_ray.sweep.mistakes import first_mistake
from dr3_ray.sweep.names import REGULAR, check_names, options_of
from dr3_ray.sweep.objective import Objective, as_objectives, check_measured
from dr3_ray.sweep.pack_size import MAX_PACK, USUAL, PackSize
from dr3_ray.sweep.search import Search, check_axes
from dr3_ray.sweep.space import (
    MODELS,
    Assignment,
    Axis,
    NonEmpty,
    Numbers,
    Space,
    expand,
    names_of,
    ordered,
    space_of,
)

LoggerName = Literal["tensorboard", "csv", "json", "mlflow", "wandb"]
Config = dict[str, Any]  # the full configuration of a member

PARTS = MODELS | {"objective": Objective, "search": Search, "halving": Halving}
NOT_OPTIONS = {"seed": "seeds", "dr3_coeff": "coefficients"}


def _as_seeds(seeds: Any) -> Any:
    """A number of seeds counts from 0."""
    if type(seeds) is not int:
        return seeds
    if seeds < 1:
        raise ValueError("a sweep needs at least one seed")
    return tuple(range(seeds))


def _once(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if twice := [seed for seed, count in Counter(seeds).items() if count > 1]:
        raise ValueError(f"seed {twice[0]} is there more than once: every run needs a seed of its own")
    return seeds


def cpus_beside(gpus: float) -> float:
    """CPUs of a trial that has so many GPUs: as much of this machine's, whose one CPU would be long at the episodes.

    One for a trial without a GPU, and on a machine that has none.
    """
    if not gpus:
        return 1.0
    from ray._private.utils import get_num_cpus  # a specification alone needs no Ray

    here = torch.cuda.device_count()
    return float(max(1, int(get_num_cpus() * gpus / here))) if here else 1.0


class SweepSpec(BaseModel):
    """A sweep: every algorithm on every data set with every coefficient, every combination of axes, and every seed.

    Raises:
        UserError: a value is not acceptable; names the first one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    algorithms: NonEmpty[str] = ("DR3-CQL",)
    """Names, as in the registry."""
    datasets: NonEmpty[str]
    """`embedded:NAME`, directories, or URIs such as `s3://BUCKET/NAME`, copied once to every machine."""
    coefficients: Numbers = (0.0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    """Values of `dr3_coeff`; 0 is the base algorithm."""
    seeds: Annotated[
        NonEmpty[StrictInt],
        BeforeValidator(_as_seeds, json_schema_input_type=PositiveInt | NonEmpty[int]),
        AfterValidator(_once),
    ] = (0, 1, 2)
    """A list, or how many, from 0 on."""
    steps: PositiveInt = 100_000
    """Gradient updates of each member."""
    evaluations: PositiveInt = 20
    """How many, evenly spaced; the last comes after all steps."""
    environment: str = "auto"
    """`auto` (the data set's own, if it is installed), `none`, or a name."""
    evaluation_episodes: PositiveInt = 20
    """Of each member, in each evaluation."""
    options: dict[str, Any] = {}
    """Options of the algorithms and of DR3 that are the same for all members."""
    axes: dict[str, Axis] = {}
    """Options, each with the values to combine."""
    exclude: tuple[Condition, ...] = ()
    """What is left out: members that meet one of these conditions."""
    budget: PositiveInt | None = None
    """Configurations of each algorithm on each data set, drawn from all; each is trained with all seeds. None: all."""
    search: Search | None = None
    """Who proposes configurations; None: all combinations are trained, or a `budget` of them."""
    sample_seed: NonNegativeInt = 0
    """Decides what is drawn."""
    objective: Annotated[
        NonEmpty[Objective],
        BeforeValidator(as_objectives, json_schema_input_type=str | Objective | NonEmpty[str | Objective]),
    ] = (Objective(),)
    """What makes one configuration better than another: a metric's name, a mapping, or a list of these."""
    halving: Annotated[Halving | None, BeforeValidator(as_halving, json_schema_input_type=int | Halving | None)] = None
    """Cut the worse configurations of every pack, by the first objective: a factor, or a mapping. None: train all."""
    pack: PackSize = USUAL
    """Members that train together in one trial, at most; `auto`: measured where the sweep begins."""
    gpus: NonNegativeFloat = 0.0
    """GPUs of a trial; a fraction shares one."""
    cpus: PositiveFloat = Field(default_factory=lambda before: cpus_beside(before["gpus"]))
    """CPUs of a trial, as many processes play its episodes: by default one, with a GPU its share of the machine's."""
    nodes: PositiveInt = 1
    """Machines with room for a trial that the cluster has to have before anything is trained."""
    patience: PositiveFloat | None = None
    """Minutes without room for any trial after which a sweep gives up; None: it waits until there is."""
    concurrent: PositiveInt | None = None
    """Trials at a time; None: as many as fit."""
    retries: NonNegativeInt = 2
    """How often a trial that fails is started again, from its last checkpoint."""
    checkpoint_every: NonNegativeInt | None = None
    """Evaluations between two checkpoints of a trial; None: as often as 5 % of its time allow; 0: none are written."""
    out: Path = Path("runs/sweep")
    """Run directory."""
    storage: str | None = None
    """Where checkpoints are kept, a path or URI that all machines see; None: in the run directory."""
    log: tuple[LoggerName, ...] = ()
    """Other programs that get the rows as well, in `logs` of the run directory."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise first_mistake(error, type(self), PARTS) from None
        if self.steps % self.evaluations:
            below = self.steps // self.evaluations * self.evaluations
            near = " or ".join(str(steps) for steps in (below, below + self.evaluations) if steps)
            raise UserError(
                f"{self.steps} steps cannot be cut into {self.evaluations} equal parts: "
                f"use {near} steps, or another number of evaluations"
            )
        check_axes(self.search, self.coefficients, self.axes)
        if self.search and self.budget:
            raise UserError("a search has trials instead of a budget: leave out budget")
        if self.halving:
            if self.search:
                raise UserError("a search learns from whole runs, and halving cuts them: leave out one of the two")
            self.halving.check_fits(self.evaluations, len(self.seeds), None if self.pack == 1 else MAX_PACK)
        axes = {name for axis, values in self.axes.items() for name in names_of(axis, values)}
        if twice := sorted(set(self.options) & axes):
            raise UserError(f"option {twice[0]!r} is both set and an axis: leave one out")
        for name, instead in NOT_OPTIONS.items():
            if name in self.options or name in axes:
                raise UserError(f"{name} is not set as an option: give {instead}")
        if any("seed" in space_of(axis).when for axis in self.axes.values()):
            raise UserError("when: seeds are not looked at, so that every configuration has all of them")

    @property
    def checkpoints(self) -> str:
        """The path or URI of their storage, whatever folder one is in."""
        return absolute(self.storage or str(self.out))


class Problem(NamedTuple):
    """One algorithm on one data set: what the configurations of a sweep are made for."""

    spec: SweepSpec
    source: str
    """The data set, as the specification names it."""
    data: Dataset
    form: AlgorithmSpec
    about: Config
    """What all members here have in common."""

    def configs(self, options: Assignment) -> list[Config]:
        """A configuration with every seed. UserError: one of the options is unknown or not acceptable here."""
        known = options_of(self.form).keys() | REGULAR
        for name in {**self.spec.options, **options}:
            if name not in known:
                raise UserError(
                    f"{self.form.name} has no option {name!r}: "
                    "make it an axis with when: {algorithm: ...} for those that do"
                )
        pack = [Member.from_dict(self.form, {**self.spec.options, **options, "seed": seed}) for seed in self.spec.seeds]
        for member in pack:
            check_members(self.form, self.data.spaces, [member])
        return [self.about | member.to_dict() for member in pack]

    def excluded_by(self, config: Config) -> list[int]:
        """Which of the conditions of `exclude` a member meets."""
        seen = config | {"dataset": self.source}
        return [number for number, condition in enumerate(self.spec.exclude) if meets(condition, seen)]

    def members(self, options: Assignment) -> dict[str, Config]:
        """A configuration with the seeds that `exclude` leaves, by hash. UserError: as `configs`."""
        return {member_id(config): config for config in self.configs(options) if not self.excluded_by(config)}

    @property
    def name(self) -> str:
        """`DR3-CQL on breakout-replay`."""
        return f"{self.form.name} on {re.split('[/:]', self.source.rstrip('/'))[-1]}"

    @property
    def spaces(self) -> list[tuple[str, Space]]:
        """The axes and `dr3_coeff`, in an order in which each has before it what its condition looks at."""
        return ordered(self.spec.axes, self.spec.coefficients if self.form.has_critic else None)

    @property
    def known(self) -> Assignment:
        """What conditions see besides the axes."""
        return options_of(self.form) | self.spec.options | {"algorithm": self.form.name, "dataset": self.source}


def problems(spec: SweepSpec, say: Callable[[str], None] = lambda _: None) -> list[Problem]:
    """Every algorithm on every data set. `say` is told where there are no rollouts for want of a package.

    Raises:
        UserError: an algorithm, data set, option or environment is unknown, unusable or does not fit another.
    """
    check_names(spec)
    found = []
    for source in dict.fromkeys(spec.datasets):
        data = load_dataset(source)
        if len(spec.seeds) > len(data):
            raise UserError(f"{len(spec.seeds)} seeds are more than {source} has rows ({len(data)}): use fewer seeds")
        environment = environment_of(spec.environment, data, say)
        for algorithm in dict.fromkeys(spec.algorithms):
            form = find(algorithm, "discrete" if data.action_space.kind == "discrete" else "continuous")
            playable = playable_in(environment, form, spec.environment)
            about = {
                "algorithm": algorithm,
                "dataset": absolute(source),
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
            found.append(Problem(spec, source, data, form, about))
    return found


def members(spec: SweepSpec, say: Callable[[str], None] = lambda _: None) -> dict[str, Config]:
    """All members of a sweep, by their hash: each its full configuration, with every option resolved.

    `say` is told where there are no rollouts for want of a package, and of conditions that nothing meets.

    Raises:
        UserError: an algorithm, data set, option, seed or environment is unknown, unusable or does not fit another;
            or nothing is left.
    """
    found: dict[str, Config] = {}
    idle = set(range(len(spec.exclude)))  # conditions that have left nothing out yet
    for problem in problems(spec, say):
        here: dict[str, list[Config]] = {}  # every configuration with all its seeds
        for options in expand(problem.spaces, problem.known, spec.sample_seed):
            for config in problem.configs(options):
                met = problem.excluded_by(config)
                if not met:
                    here.setdefault(_drawn_by(problem, config), []).append(config)
                idle -= set(met)
        for key in here if spec.budget is None else sorted(here)[: spec.budget]:
            found |= {member_id(config): config for config in here[key]}
    for number in sorted(idle):
        say(f"exclude.{number} leaves nothing out: no member meets it")
    if not found:
        raise UserError("the sweep has no members: exclude leaves out all of them")
    return found


def _drawn_by(problem: Problem, config: Config) -> str:
    """The same for all seeds, and on all data sets."""
    own = {name: value for name, value in config.items() if name not in problem.about}
    if problem.form.has_critic:
        own["dr3_coeff"] = config["dr3_coeff"]
    return member_id(own | {"seed": problem.spec.sample_seed})
