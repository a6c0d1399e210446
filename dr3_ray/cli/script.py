"""Search scripts: a question, the sweeps that it takes, and the table that answers it.

A script is two functions. `plan` turns options of its own into specifications, by the names of their run directories;
below its options it has those of `dr3-ray sweep`, which stand above what it plans. `answer` makes the table. Nothing
heavy is imported before there is something to do, so that `--help` is quick.
"""

import inspect
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from dr3_ray.cli import app as cli
from dr3_ray.cli import sweeping
from dr3_ray.cli.commands import Commands
from dr3_ray.process import stopping

PlannedSweeps = Mapping[str, dict[str, Any] | Path]
"""Fields of a `SweepSpec`, by the name of its run directory in that of the script; or a run directory as it is."""

SHARED = (
    "dataset", "seeds", "steps", "evaluations", "environment", "episodes", "set_", "pack", "cpus", "gpus", "nodes",
    "patience", "concurrent", "retries", "checkpoint_every", "keep_checkpoints", "out", "storage", "log", "force",
    "trust", "dry_run",
)  # fmt: skip
EMBEDDED = "embedded:breakout-replay"
DatasetOption = Annotated[list[str], typer.Option(help="embedded:NAME or a directory; give several times for several.")]

# faster than the defaults, which are those of Atari: the effect shows in minutes
FAST: dict[str, dict[str, Any]] = {"discrete": {"critic_lr": 3e-4, "target_period": 250}, "continuous": {}}


def run_script(
    plan: Callable[..., PlannedSweeps],
    answer: Callable[..., Any],
    document: str,
    defaults: Mapping[str, Any],
    arguments: list[str] | None = None,
) -> None:
    """Run the command line of a script: sweep what `plan` returns, and print the `answer` of the run directories.

    `answer` is given those options of `plan` that it names, too.

    `defaults` are those of the script for options of `dr3-ray sweep`, None for one that `plan` settles. The same
    command again goes on with what is missing, and answers again where nothing is.
    """
    name = Path(inspect.getfile(plan)).stem
    defaults = {"out": Path("runs") / name, **defaults}
    own, known = inspect.signature(plan).parameters, inspect.signature(cli.sweep).parameters
    shared = [known[option] for option in SHARED if option not in own]
    shared = [parameter.replace(default=defaults.get(parameter.name, parameter.default)) for parameter in shared]

    def command(**options: Any) -> None:
        """Plan with the script's own options, sweep with the shared ones, and answer."""
        context: typer.Context = options.pop("context")
        sources = {key: str(context.get_parameter_source(key)) for key in options}
        given = {key for key, source in sources.items() if source.endswith("COMMANDLINE")} - own.keys()
        settled = {key for key, value in defaults.items() if value is not None}
        above = {key: options[key] for key in given | settled}
        given_to = {key: options[key] for key in options if key in inspect.signature(answer).parameters}
        planned = plan(**{key: options[key] for key in own})
        _sweep_and_answer(planned, partial(answer, **given_to), above, options)

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    everything = [context, *(parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in (*own.values(), *shared))]
    command.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in everything}
    stopping.run_command(lambda: cli.main(arguments, f"{name}.py", alone(command, document)))


def alone(command: Callable[..., None], document: str) -> typer.Typer:
    """Return a command line of one command, whose help is the document of its script."""
    commands = Commands(add_completion=False, rich_markup_mode=None)
    commands.command(help=document.replace("\n\n    ", "\n\n\b\n    "))(command)  # examples keep their lines
    return commands


def _sweep_and_answer(
    planned: PlannedSweeps, answer: Callable[..., Any], above: dict[str, Any], how: dict[str, Any]
) -> None:
    from dr3_ray.cli.spec_options import spec_above
    from dr3_ray.runs.directory import check_run

    there = [spec for spec in planned.values() if isinstance(spec, Path)]
    for run in there:
        check_run(run)
    out = above["out"]
    given = {key: value for key, value in above.items() if key not in ("out", "force", "trust", "dry_run")}
    specs: list[Any] = []
    for name, values in planned.items():
        if isinstance(values, dict):
            storage = {"storage": within(given["storage"], name)} if "storage" in given else {}
            specs.append(spec_above({**values, "out": out / name}, given | storage))
    if above.get("dry_run"):
        for spec in specs:
            sweeping.foresee(spec, calibrate=True)
        return
    failed = [sweeping.train(spec, how["force"], how["trust"], shlex.join(sys.argv)) for spec in specs]
    from rich.console import Console

    runs = [*(spec.out for spec in specs), *there]
    with sweeping.results_are_safe(runs, shlex.join(sys.argv)):
        Console(markup=False).print(answer(runs))
    print(f"curves and every run: {'; '.join(shlex.join(['dr3-ray', 'report', str(run)]) for run in runs)}")
    sys.exit(max(failed, default=0))


def within(storage: str, name: str) -> str:
    """Return the path or URI of a folder in a storage, whose URI may end in options."""
    path, mark, options = storage.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{options}"


def by_kind(datasets: Iterable[str]) -> dict[str, list[str]]:
    """Return the data sets with `discrete` and those with `continuous` actions.

    Raises:
        UserError: a data set cannot be opened.
    """
    from dr3_ray.data import load_dataset

    learners: dict[str, list[str]] = {}
    for source in datasets:
        learners.setdefault(load_dataset(source).spaces.action_kind, []).append(source)
    return learners
