"""What a sweep is asked for, and which members that means."""

import hashlib
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from dr3_ray.algorithms.registry import find, kinds_of
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data import Dataset, SpaceSpec, load_dataset
from dr3_ray.errors import UserError
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.member import Member, check_members

T = TypeVar("T")
NonEmpty = Annotated[tuple[T, ...], Field(min_length=1)]
Config = dict[str, Any]  # the full configuration of a member

CONFIG_FORMAT = 1  # enters every hash: another number redoes every run
MAX_PACK = 1000  # members of a pack are called 000 to 999
NOT_OPTIONS = {"seed": "seeds", "dr3_coeff": "coefficients"}


def _as_seeds(seeds: Any) -> Any:
    """A number of seeds counts from 0."""
    if type(seeds) is not int:
        return seeds
    if seeds < 1:
        raise ValueError("a sweep needs at least one seed")
    return tuple(range(seeds))


class SweepSpec(BaseModel):
    """A sweep: every algorithm on every data set with every coefficient, every combination of axes, and every seed.

    Raises:
        UserError: a value is not acceptable; names the first one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithms: NonEmpty[str] = ("DR3-CQL",)
    """Names, as in the registry."""
    datasets: NonEmpty[str]
    """`embedded:NAME`, or directories."""
    coefficients: NonEmpty[float] = (0.0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    """Values of `dr3_coeff`; 0 is the base algorithm."""
    seeds: Annotated[NonEmpty[int], BeforeValidator(_as_seeds)] = (0, 1, 2)
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
    axes: dict[str, NonEmpty[Any]] = {}
    """Options, each with the values to combine."""
    pack: Annotated[int, Field(ge=1, le=MAX_PACK)] = 16
    """Members that train together in one trial, at most."""
    cpus: PositiveFloat = 1.0
    """CPUs of a trial."""
    gpus: NonNegativeFloat = 0.0
    """GPUs of a trial; a fraction shares one."""
    nodes: PositiveInt = 1
    """Machines with room for a trial that the cluster has to have before anything is trained."""
    concurrent: PositiveInt | None = None
    """Trials at a time; None: as many as fit."""
    retries: NonNegativeInt = 0
    """How often a trial that fails is started again, from its last checkpoint."""
    checkpoint_every: NonNegativeInt = 0
    """Evaluations between two checkpoints of a trial; 0: none are written."""
    out: Path = Path("runs/sweep")
    """Run directory."""
    storage: str | None = None
    """Where Tune keeps its trials, a path or URI; None: in the run directory."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "sweep"
            given = "" if first["type"] == "missing" else f", not {first['input']!r}"
            raise UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}{given}") from None
        if self.steps % self.evaluations:
            below = self.steps // self.evaluations * self.evaluations
            near = " or ".join(str(steps) for steps in (below, below + self.evaluations) if steps)
            raise UserError(
                f"{self.steps} steps cannot be cut into {self.evaluations} equal parts: "
                f"use {near} steps, or another number of evaluations"
            )
        if twice := sorted(set(self.options) & set(self.axes)):
            raise UserError(f"option {twice[0]!r} is both set and an axis: leave one out")
        for name, instead in NOT_OPTIONS.items():
            if name in self.options or name in self.axes:
                raise UserError(f"{name} is not set as an option: give {instead}")


def members(spec: SweepSpec, say: Callable[[str], None] = lambda _: None) -> dict[str, Config]:
    """All members of a sweep, by their hash: each its full configuration, with every option resolved.

    `say` is told where there are no rollouts for want of a package.

    Raises:
        UserError: an algorithm, data set, option, seed or environment is unknown, unusable or does not fit another.
    """
    for algorithm in spec.algorithms:
        kinds_of(algorithm)
    found: dict[str, Config] = {}
    for source in spec.datasets:
        data = load_dataset(source)
        if len(spec.seeds) > len(data):
            raise UserError(f"{len(spec.seeds)} seeds are more than {source} has rows ({len(data)}): use fewer seeds")
        environment = _environment(spec.environment, data, say)
        for algorithm in spec.algorithms:
            form = find(algorithm, "discrete" if data.action_space.kind == "discrete" else "continuous")
            playable = _playable(form, environment, spec)
            about = {
                "algorithm": algorithm,
                "dataset": source if source.startswith("embedded:") else str(Path(source).resolve()),
                "data_fingerprint": data.fingerprint,
                "steps": spec.steps,
                "evaluations": spec.evaluations,
                "environment": playable,
                "evaluation_episodes": spec.evaluation_episodes if playable else 0,
                "dr3_coeff": 0.0,  # of an algorithm that has nothing to regularise
            }
            coefficients = [{"dr3_coeff": each} for each in spec.coefficients] if form.has_critic else [{}]
            for *values, coefficient, seed in product(*spec.axes.values(), coefficients, spec.seeds):
                axes = dict(zip(spec.axes, values, strict=True))
                member = Member.from_dict(form, spec.options | axes | coefficient | {"seed": seed})
                check_members(form, data.spaces, [member])
                config = about | member.to_dict()
                found[member_id(config)] = config
    return found


def member_id(config: Config) -> str:
    """16 hexadecimal digits for a full configuration. The data count by their contents, not by where they lie."""
    identity = {name: value for name, value in config.items() if name != "dataset"} | {"config_format": CONFIG_FORMAT}
    return hashlib.sha256(canonical(identity).encode()).hexdigest()[:16]


def canonical(value: Any) -> str:
    """The one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _environment(wanted: str, data: Dataset, say: Callable[[str], None]) -> str | None:
    """The name of the environment to roll out in, after making one and comparing its spaces with the data's."""
    automatic = wanted == "auto"
    name = data.manifest.environment if automatic else wanted
    if name is None or name == "none":
        return None
    try:
        environment = make_environment(name)
    except UserError as error:
        if not automatic:
            raise
        say(f"no rollouts in {name}: {error}")
        return None
    played = [SpaceSpec.from_gymnasium(space) for space in (environment.observation_space, environment.action_space)]
    environment.close()
    for space, stored, what in zip(played, (data.observation_space, data.action_space), ("observ", "act"), strict=True):
        if (space.kind, space.shapes, space.n) != (stored.kind, stored.shapes, stored.n):
            raise UserError(
                f"environment {name} has other {what}ions than the data set {data.manifest.name}: "
                "name the environment the data come from, or none"
            )
    return name


def _playable(form: AlgorithmSpec, environment: str | None, spec: SweepSpec) -> str | None:
    """The environment, unless the algorithm has no policy of its own to play."""
    if form.act is None and environment is not None and spec.environment != "auto":
        raise UserError(f"{form.name} on {form.action_kind} actions has no policy to roll out: use environment none")
    return environment if form.act is not None else None
