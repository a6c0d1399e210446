"""The options of `dr3-ray sweep`: a type of each. `--help` says of it what the specification's field says."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from dr3_ray.cli.numbers import count, number
from dr3_ray.cli.paths import PATH
from dr3_ray.sweep.search.methods import METHODS
from dr3_ray.sweep.spec.search import Search as SearchFields
from dr3_ray.sweep.spec.spec import SweepSpec

WHAT, SEARCH, MACHINE, STORAGE = "What is trained", "Search", "Machine", "Where it is kept"  # panels of the help
WITHOUT = re.compile(r"[.;] None: (.+?)\.?$")  # what a field says of a sweep that leaves it out


def _field(name: str, panel: str, *called: str, of: type[BaseModel] = SweepSpec, add: str = "", **more: Any) -> Any:
    """Return the option for a field of the specification, with its description; `add` is of the command line alone."""
    text = of.model_fields[name].description or ""
    if without := WITHOUT.search(text):
        text = f"{text[: without.start()]}."
        more.setdefault("show_default", without[1])
    return typer.Option(*called, help=text + add, rich_help_panel=panel, **more)


def _count(name: str, panel: str, *called: str, **more: Any) -> Any:
    return _field(name, panel, *called, **count(), **more)


def _kept(text: str | int) -> int:
    name, _, number = str(text).rpartition("=")
    if name not in ("", "keep") or not number.isdecimal():
        raise typer.BadParameter(f"{text!r} is not of the form keep=N: such as keep=5")
    return int(number)


SpecFile = Annotated[
    Path | None,
    typer.Argument(metavar="SPEC", help="A YAML file; options stand above it. See docs/sweeps.md.", **PATH),
]
MANY = " Several: by commas, or one after another."
Dataset = Annotated[list[str], _field("datasets", WHAT, "--dataset", "--datasets", "--data", add=MANY)]
From = Annotated[list[str], _field("parents", WHAT, "--from", add=MANY, metavar="RUN", show_default="nobody")]
Algorithm = Annotated[list[str], _field("algorithms", WHAT, "--algorithm", "--algorithms", add=MANY)]
Coefficients = Annotated[list[str], _field("coefficients", WHAT)]
Seeds = Annotated[list[str], _field("seeds", WHAT, add=" As in 5, or 3,5,8.")]
Steps = Annotated[int, _count("steps", WHAT)]
Evaluations = Annotated[int, _count("evaluations", WHAT)]
Environment = Annotated[str, _field("environment", WHAT, "--environment", "--env")]
Episodes = Annotated[int, _count("evaluation_episodes", WHAT, "--episodes")]
Settings = Annotated[list[str], _field("options", WHAT, "--set", metavar="OPTION=VALUE")]
Axis = Annotated[list[str], _field("axes", WHAT, "--axis", metavar="OPTION=VALUE,VALUE")]
Budget = Annotated[int | None, _count("budget", SEARCH)]
Search = Annotated[
    str | None,
    _field(
        "method",
        SEARCH,
        "--search",
        of=SearchFields,
        add=f" {', '.join(METHODS)}.",
        show_default="nobody proposes: all are trained",
    ),
]
Trials = Annotated[int | None, _count("trials", SEARCH, of=SearchFields, show_default="none")]
Point = Annotated[
    list[str],
    _field("points", SEARCH, "--point", of=SearchFields, metavar="JSON", add=' As in {"dr3_coeff": 0}.'),
]
Study = Annotated[str | None, _field("study", SEARCH, of=SearchFields)]
Objective = Annotated[list[str], _field("objective", SEARCH)]
Halving = Annotated[int | None, _count("halving", SEARCH)]
Pack = Annotated[str, _field("pack", MACHINE)]
Cpus = Annotated[
    float | None, _field("cpus", MACHINE, **number(), show_default="1; with --gpus, their share of this machine's")
]
Gpus = Annotated[float, _field("gpus", MACHINE, **number())]
Nodes = Annotated[int, _count("nodes", MACHINE)]
Patience = Annotated[float | None, _field("patience", MACHINE, **number())]
Concurrent = Annotated[int | None, _count("concurrent", MACHINE)]
Retries = Annotated[int, _count("retries", MACHINE)]
CheckpointEvery = Annotated[int | None, _count("checkpoint_every", STORAGE)]
KeepCheckpoints = Annotated[
    int,
    _field("keep_checkpoints", STORAGE, "--checkpoints", parser=_kept, metavar="keep=N", show_default="keep=1"),
]
Out = Annotated[Path, _field("out", STORAGE, add=" A second run goes on there with what is missing.", **PATH)]
Storage = Annotated[str | None, _field("storage", STORAGE)]
Log = Annotated[list[str], _field("log", STORAGE, add=" tensorboard, mlflow, wandb.")]
Resume = Annotated[
    str | None,
    typer.Option(
        help="Go on with this run directory, or with what is in the --storage of a lost one; with more --steps longer.",
        rich_help_panel=STORAGE,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Go on although the code or the data have changed.")]
Trust = Annotated[bool, typer.Option("--trust", help="RUN is from somebody whose code may run here.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be trained, and what it takes.")]
Calibration = Annotated[bool, typer.Option(help="--dry-run trains for a moment, to tell time and memory.")]
