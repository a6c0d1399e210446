"""What a sweep is asked for, and which members that means."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    StrictInt,
    ValidationError,
    model_validator,
)

from dr3_ray.errors import UserError
from dr3_ray.sweep.spec.condition import Condition
from dr3_ray.sweep.spec.counts import Count, Episodes, Minutes, Processes, Repeats, Share, Whole
from dr3_ray.sweep.spec.halving import Halving, as_halving
from dr3_ray.sweep.spec.mistakes import first_mistake
from dr3_ray.sweep.spec.mixture import MixtureFields, dataset_name
from dr3_ray.sweep.spec.objective import Criterion, as_objectives
from dr3_ray.sweep.spec.pack_size import MAX_PACK, USUAL_PACK, PackSize
from dr3_ray.sweep.spec.search import Search, check_axes
from dr3_ray.sweep.spec.space import (
    MODELS,
    Axis,
    NonEmpty,
    Numbers,
    names_of,
    space_of,
)
from dr3_ray.trust.secrets import remember
from dr3_ray.uris import absolute, path_here

LoggerName = Literal["tensorboard", "mlflow", "wandb"]
FILES = ("csv", "json")  # which version 0.1 wrote, too
Config = dict[str, Any]  # the full configuration of a member

PARTS = MODELS | {"objective": Criterion, "search": Search, "halving": Halving}
ALSO = {  # other names of fields, in the singular as on the command line
    "algorithm": "algorithms",
    **dict.fromkeys(("dataset", "data"), "datasets"),
    "env": "environment",
    "episodes": "evaluation_episodes",
    "set": "options",
    "axis": "axes",
    "from": "parents",
}
INHERITED = ("algorithms", "datasets", "coefficients", "seeds")  # fields that a parent stands for
MOST_SEEDS = 100_000
NOT_OPTIONS = {"seed": "seeds", "dr3_coeff": "coefficients"}


def by_field(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields under their own names, where they were given under another one.

    Raises:
        UserError: a field is there under both of its names.
    """
    names: dict[str, str] = {}
    for name in values:
        if (other := names.setdefault(ALSO.get(name, name), name)) != name:
            first, second = sorted((other, name), key=lambda name: name not in ALSO)
            raise UserError(f"{first} and {second} are the same: leave out one of them")
    return {ALSO.get(name, name): value for name, value in values.items()}


def _listed(value: Any) -> Any:
    """Return one name as a list of it."""
    return (value,) if isinstance(value, str | Mapping) else value


def _places(value: Any) -> Any:
    """Return one place as a list of it, and paths as text."""
    listed = (value,) if isinstance(value, str | os.PathLike) else value
    if not isinstance(listed, list | tuple):
        return listed
    return [os.fspath(item) if isinstance(item, os.PathLike) else item for item in listed]


def _as_seeds(seeds: Any) -> Any:
    """Return a number of seeds as that many seeds, counted from 0."""
    if type(seeds) is not int:
        return seeds
    if seeds < 1:
        raise ValueError("a sweep needs at least one seed")
    if seeds > MOST_SEEDS:
        raise ValueError(f"a sweep has at most {MOST_SEEDS:,} seeds")
    return tuple(range(seeds))


def _once(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if twice := [seed for seed, count in Counter(seeds).items() if count > 1]:
        raise ValueError(f"seed {twice[0]} is there more than once: every run needs a seed of its own")
    return seeds


def _no_files(names: Any) -> Any:
    if isinstance(names, list | tuple) and (files := [name for name in names if name in FILES]):
        raise ValueError(
            f"{files[0]} files are not written any more: histories.parquet has every row, which pandas.read_parquet "
            "and most programs for tables read; leave it out"
        )
    return names


def _named(source: str) -> str:
    if not source:
        raise ValueError("an empty name is no place: give a path or a URI")
    return source


def _place(source: str) -> str:
    return absolute(_named(source))


Place = Annotated[str, AfterValidator(_place)]  # the same in every folder, whatever folder it was given in


DataPlace = Annotated[
    str,
    BeforeValidator(dataset_name, json_schema_input_type=str | MixtureFields),
    AfterValidator(_named),
]


def cpus_beside(gpus: float) -> float:
    """Return the CPUs of a trial that has so many GPUs: as large a share of this machine's.

    One CPU would be long at the episodes. A trial without a GPU has one, and so has a trial on a machine that has none.
    """
    if not gpus:
        return 1.0
    import torch  # a specification alone needs neither

    from dr3_ray.compat.ray import get_num_cpus

    here = torch.cuda.device_count()
    return float(max(1, int(get_num_cpus() * gpus / here))) if here else 1.0


class SweepSpec(BaseModel):
    """A sweep: every algorithm on every data set with every coefficient, every combination of axes, and every seed.

    Raises:
        UserError: a value is not acceptable; names the first one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    algorithms: Annotated[NonEmpty[str], BeforeValidator(_listed)] = ("DR3-CQL",)
    """Names, as in the registry."""
    datasets: Annotated[NonEmpty[DataPlace], BeforeValidator(_listed)] = ()
    """Directories, `embedded:NAME`, URIs, copied once to every machine, `?take=…` for some rows, `mix:A=0.9,B=0.1`."""
    parents: Annotated[tuple[Place, ...], BeforeValidator(_places, json_schema_input_type=str | tuple[str, ...])] = ()
    """Trained members that new ones go on from: RUN, RUN:HASH, CHECKPOINT. What is not given of options is theirs."""
    coefficients: Numbers = (0.0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    """Values of `dr3_coeff`; 0 is the base algorithm."""
    seeds: Annotated[
        NonEmpty[Annotated[StrictInt, Field(ge=0, le=2**32 - 1)]],
        BeforeValidator(_as_seeds, json_schema_input_type=PositiveInt | NonEmpty[int]),
        AfterValidator(_once),
    ] = (0, 1, 2)
    """A list, or how many, from 0 on."""
    steps: Count = 100_000
    """Gradient updates of each member."""
    evaluations: Count = 20
    """Evaluations of each member, evenly spaced; the last comes after all steps."""
    environment: str = "auto"
    """`auto` (the data set's own, if it is installed), `none`, or a name."""
    evaluation_episodes: Episodes = 20
    """Episodes that each member plays in each evaluation."""
    options: dict[str, Any] = {}
    """Options of the algorithms and of DR3 that are the same for all members."""
    axes: dict[str, Axis] = {}
    """Options, each with the values to combine."""
    exclude: tuple[Condition, ...] = ()
    """What is left out: members that meet one of these conditions."""
    budget: Count | None = None
    """Configurations of each algorithm on each data set, drawn from all; each is trained with all seeds. None: all."""
    search: Search | None = None
    """Who proposes configurations; None: all combinations are trained, or a `budget` of them."""
    sample_seed: Whole = 0
    """Decides what is drawn."""
    objective: Annotated[
        NonEmpty[Criterion],
        BeforeValidator(as_objectives, json_schema_input_type=str | Criterion | NonEmpty[str | Criterion]),
    ] = (Criterion(),)
    """What makes one configuration better than another: a metric's name, a mapping, or a list of these."""
    halving: Annotated[Halving | None, BeforeValidator(as_halving, json_schema_input_type=int | Halving | None)] = None
    """Cut the worse configurations of every pack, by the first objective: a factor, or a mapping. None: train all."""
    pack: PackSize = USUAL_PACK
    """Members that train together in one trial, at most; `auto`: measured where the sweep begins."""
    gpus: Share = 0.0
    """GPUs of a trial; a fraction shares one."""
    cpus: Annotated[Share, Field(gt=0)] = Field(default_factory=lambda before: cpus_beside(before["gpus"]))
    """CPUs of a trial, as many processes play its episodes: by default one, with a GPU its share of the machine's."""
    nodes: Processes = 1
    """Machines with room for a trial that the cluster has to have before anything is trained."""
    patience: Minutes | None = None
    """Minutes without room for any trial after which a sweep gives up. None: it waits until there is."""
    concurrent: Processes | None = None
    """Trials at a time; None: as many as fit."""
    retries: Repeats = 2
    """How often a trial that fails is started again, from its last checkpoint."""
    checkpoint_every: Whole | None = None
    """Evaluations between two checkpoints of a trial, 0 for no checkpoints. None: as often as 5 % of its time allow."""
    keep_checkpoints: Processes = 1
    """Checkpoints of each trial that stay, evenly spaced over its evaluations; 1: the last one."""
    out: Annotated[Path, BeforeValidator(path_here)] = Path("runs/sweep")
    """Run directory."""
    storage: Place | None = None
    """Where checkpoints are kept, a path or URI that all machines see; None: in the run directory."""
    log: Annotated[tuple[LoggerName, ...], BeforeValidator(_no_files)] = ()
    """Other programs that get the rows as well, in `logs` of the run directory."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**remember(by_field(values)))
        except ValidationError as error:
            raise first_mistake(error, type(self), PARTS) from None

    @model_validator(mode="after")
    def _check_evaluations(self) -> Self:
        """Check that evaluations are evenly spaced."""
        if self.steps % self.evaluations:
            below = self.steps // self.evaluations * self.evaluations
            near = " or ".join(str(steps) for steps in (below, below + self.evaluations) if steps)
            raise UserError(
                f"{self.steps} steps cannot be cut into {self.evaluations} equal parts: "
                f"use {near} steps, or another number of evaluations"
            )
        return self

    @model_validator(mode="after")
    def _check_checkpoints(self) -> Self:
        """Check that there are as many checkpoints as are to stay."""
        if self.keep_checkpoints > 1 and self.checkpoint_every == 0:
            raise UserError("no checkpoints are made, so that none can stay: leave out checkpoint_every 0")
        if self.keep_checkpoints > self.evaluations:
            raise UserError(
                f"{self.keep_checkpoints} checkpoints cannot stay of {self.evaluations} evaluations, after which they "
                "are made: keep fewer, or evaluate more often"
            )
        return self

    @model_validator(mode="after")
    def _check_search(self) -> Self:
        """Check that who proposes configurations, and which of them are cut, go together."""
        check_axes(self.search, self.coefficients, self.axes)
        if self.search and self.budget:
            raise UserError("a search has trials instead of a budget: leave out budget")
        if self.halving:
            if self.search:
                raise UserError("a search learns from whole runs, and halving cuts them: leave out one of the two")
            seeds = 1 if self.inherits("seeds") else len(self.seeds)
            self.halving.check_fits(self.evaluations, seeds, None if self.pack == 1 else MAX_PACK)
        return self

    @model_validator(mode="after")
    def _check_parents(self) -> Self:
        """Check that there are data, and that what parents bring is not asked for beside them."""
        if not self.datasets and not self.parents:
            raise UserError("datasets: it is missing")
        given = {"algorithms", "search", "budget"} & self.model_fields_set if self.parents else ()
        if vain := [name for name in sorted(given) if getattr(self, name) != type(self).model_fields[name].default]:
            raise UserError(f"{vain[0]}: members that go on from others have their configurations: leave it out")
        return self

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        """Check that no option is given twice, and that each is one."""
        axes = {name for axis, values in self.axes.items() for name in names_of(axis, values)}
        if twice := sorted(set(self.options) & axes):
            raise UserError(f"option {twice[0]!r} is both set and an axis: leave one out")
        for name, instead in NOT_OPTIONS.items():
            if name in self.options or name in axes:
                raise UserError(f"{name} is not set as an option: give {instead}")
        if any("seed" in space_of(axis).when for axis in self.axes.values()):
            raise UserError("when: seeds are not looked at, so that every configuration has all of them")
        return self

    def inherits(self, field: str) -> bool:
        """Return whether members have what their parents had in place of this field, which is not given."""
        return bool(self.parents) and field in INHERITED and field not in self.model_fields_set

    def written(self) -> dict[str, Any]:
        """Return the fields as `run.json` has them; those that are inherited are left out, as they were."""
        return self.model_dump(mode="json", exclude={field for field in INHERITED if self.inherits(field)})

    @property
    def checkpoints(self) -> str:
        """The path or URI of the storage of checkpoints, whatever folder one is in."""
        return self.storage or absolute(str(self.out))
