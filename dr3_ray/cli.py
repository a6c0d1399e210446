"""The command line. Commands import what is heavy when they run, so that `--help` is quick."""

import contextlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from dr3_ray import __version__
from dr3_ray.data.cli import app as data
from dr3_ray.errors import UserError

app = typer.Typer(
    name="dr3-ray", help="Offline reinforcement learning sweeps with DR3 regularization.", add_completion=False
)
app.add_typer(data, name="data")

# Click's UsageError; where it lives depends on the version of typer.
_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])

DEMO: dict[str, Any] = {
    "algorithms": ["DR3-CQL"],
    "datasets": ["embedded:breakout-replay"],
    "coefficients": [0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1],
    "seeds": 3,
    "steps": 10_000,
    "evaluations": 10,
    "evaluation_episodes": 20,
    # faster than the defaults, which are those of Atari: the effect shows in minutes
    "options": {"critic_lr": 3e-4, "target_period": 250},
}

OutOption = Annotated[Path, typer.Option(help="Run directory; a second run goes on there with what is missing.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def sweep(
    context: typer.Context,
    spec: Annotated[
        Path | None, typer.Argument(metavar="SPEC", help="A YAML file; options stand above it. See docs/sweeps.md.")
    ] = None,
    dataset: Annotated[
        list[str], typer.Option(help="embedded:NAME, a directory or a URI; several times for several.")
    ] = [],  # noqa: B006
    algorithm: Annotated[list[str], typer.Option(help="Give several times for several.")] = ["DR3-CQL"],  # noqa: B006
    coefficients: Annotated[str, typer.Option(help="Values of dr3_coeff.")] = "0,0.001,0.01,0.03,0.1,0.3",
    seeds: Annotated[str, typer.Option(help="How many, from 0 on; or a list, as in 3,5,8.")] = "3",
    steps: Annotated[int, typer.Option(help="Gradient updates of each member.")] = 100_000,
    evaluations: Annotated[int, typer.Option(help="Evaluations of each member, evenly spaced.")] = 20,
    environment: Annotated[str, typer.Option(help="auto: the data set's own, if installed; none; or a name.")] = "auto",
    episodes: Annotated[int, typer.Option(help="Episodes of each evaluation.")] = 20,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="OPTION=VALUE", help="An option of the algorithms or of DR3.")
    ] = [],  # noqa: B006
    axis: Annotated[
        list[str], typer.Option(metavar="OPTION=VALUE,VALUE", help="An option with all the values to try.")
    ] = [],  # noqa: B006
    budget: Annotated[
        int | None,
        typer.Option(help="Configurations to draw for each algorithm and data set.", show_default="all of them"),
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="Who proposes configurations: tpe, random, gp, nsga2.", show_default="nobody")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Configurations to propose for each algorithm and data set.", show_default="none")
    ] = None,
    point: Annotated[
        list[str], typer.Option(metavar="JSON", help='To try first, as in {"dr3_coeff": 0}; several times.')
    ] = [],  # noqa: B006
    study: Annotated[
        str | None, typer.Option(help="URL of Optuna studies, or a journal file.", show_default="SQLite in OUT")
    ] = None,
    objective: Annotated[list[str], typer.Option(help="Metric to judge by; two for nsga2.")] = ["episode_return_mean"],  # noqa: B006
    halving: Annotated[
        int | None,
        typer.Option(help="Keep one of so many configurations of a pack, again and again.", show_default="all of them"),
    ] = None,
    pack: Annotated[
        str, typer.Option(help="Members trained together in one trial, at most; auto: by measured speed and memory.")
    ] = "16",
    cpus: Annotated[
        float | None,
        typer.Option(
            help="CPUs of a trial; as many processes play its episodes.",
            show_default="1; with --gpus, their share of this machine's",
        ),
    ] = None,
    gpus: Annotated[float, typer.Option(help="GPUs of a trial; a fraction shares one.")] = 0.0,
    nodes: Annotated[int, typer.Option(help="Machines with room for a trial to wait for before the start.")] = 1,
    patience: Annotated[
        float | None, typer.Option(help="Minutes to wait for room for a trial.", show_default="as long as it takes")
    ] = None,
    concurrent: Annotated[int | None, typer.Option(help="Trials at a time.", show_default="as many as fit")] = None,
    retries: Annotated[int, typer.Option(help="How often a trial that fails is started again.")] = 2,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(help="Evaluations between checkpoints of a trial; 0: none.", show_default="5 % of the time"),
    ] = None,
    out: OutOption = Path("runs/sweep"),
    storage: Annotated[str | None, typer.Option(help="Where checkpoints are kept.", show_default="in OUT")] = None,
    log: Annotated[
        list[str], typer.Option(help="tensorboard, csv, json, mlflow or wandb get the rows too; several times.")
    ] = [],  # noqa: B006
    resume: Annotated[
        str | None, typer.Option(help="Go on with this run directory, or with what is in the --storage of a lost one.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Go on although the code or the data have changed.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be trained, and what it takes.")
    ] = False,
    calibration: Annotated[bool, typer.Option(help="--dry-run trains for a moment, to tell time and memory.")] = True,
) -> None:
    """Train every algorithm on every data set with every coefficient and seed, and report.

    The same command again skips what is finished and goes on with what is missing, interrupted or failed.
    """
    from dr3_ray.sweep.directory import spec_of
    from dr3_ray.sweep.options import spec_from

    sources = {name: str(context.get_parameter_source(name)) for name in context.params}
    given = {name: context.params[name] for name, source in sources.items() if source.endswith("COMMANDLINE")}
    how = {"spec", "resume", "force", "dry_run", "calibration"}
    if resume and (more := sorted(given.keys() - (how - {"spec"}))):
        option = more[0].strip("_").replace("_", "-")
        raise UserError(f"--resume goes on with what was asked for: leave out --{option}, or give no --resume")
    asked = spec_of(_brought(resume)) if resume else spec_from(spec, {name: given[name] for name in given.keys() - how})
    if dry_run:
        return foresee(asked, calibration)
    return _run(asked, force)


@app.command()
def schema() -> None:
    """Print the JSON schema of sweep specifications, which editors check and complete YAML files by."""
    from dr3_ray.sweep.spec import SweepSpec

    print(json.dumps(SweepSpec.model_json_schema(), indent=1))


@app.command()
def demo(out: OutOption = Path("runs/demo")) -> None:
    """Sweep DR3's coefficient with CQL on the MinAtar Breakout data in the package, and report."""
    from dr3_ray.sweep.spec import SweepSpec

    _run(SweepSpec(**DEMO, out=out))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run directory; its sweep may still be running.")]) -> None:
    """Write the report of a run directory again, and print its table."""
    _report(run)


@app.command()
def fetch(
    run: Annotated[str, typer.Argument(help="What was --out of a sweep on a cluster, or its --storage.")],
    cluster: Annotated[Path | None, typer.Option(help="The file of `ray up`. None: RUN is a path or URI.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to.", show_default="runs/ and the name of RUN")] = None,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="Bring the checkpoints, too.")] = False,
) -> None:
    """Bring the results of a sweep home from a cluster or a bucket, and report. Again: what is new since then."""
    from dr3_ray.cluster.files import fetch as bring
    from dr3_ray.cluster.files import home_of

    out = out or home_of(run)
    bring(run, out, cluster, checkpoints)
    _report(out)


@app.command()
def status(
    run: Annotated[Path, typer.Argument(help="A run directory, or a copy of one.")],
    watch: Annotated[bool, typer.Option("--watch", help="Until the sweep is over; Ctrl-C ends it sooner.")] = False,
) -> None:
    """Members by status, updates a second and time left, from the files of a run directory alone."""
    import time

    from rich.console import Console

    from dr3_ray.sweep.status import read_status, status_view
    from dr3_ray.sweep.status import watch as follow

    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            follow(run, Console())
    else:
        Console().print(status_view(read_status(run), run, time.time()), soft_wrap=True, highlight=False)


@app.command()
def doctor() -> None:
    """Is this machine ready? Say what is wrong and what to do about it."""
    from dr3_ray.doctor import doctor as examine
    from dr3_ray.doctor import report as show

    raise typer.Exit(show(examine()))


def main(arguments: list[str] | None = None, name: str = "dr3-ray", commands: typer.Typer = app) -> None:
    """Run a command line. A user's mistake is one line on stderr and exit code 2."""
    try:
        code = commands(arguments, standalone_mode=False, prog_name=name)
    except UserError as error:
        _fail(str(error))
    except _UsageError as error:
        _fail(f"{error.format_message()} (see {name} --help)")  # type: ignore[attr-defined]
    except typer.Abort:
        sys.exit(130)
    else:
        sys.exit(code)


def _run(spec: Any, force: bool = False) -> None:
    failed = train(spec, force, shlex.join(["dr3-ray", "sweep", "--resume", str(spec.out)]))
    _report(spec.out)
    raise typer.Exit(failed)


def train(spec: Any, force: bool, again: str) -> int:
    """Sweep; the exit code, 1 if members failed. After Ctrl-C it says that `again` goes on, and ends the process."""
    from dr3_ray.sweep.run import run_sweep

    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    summary = run_sweep(spec, command, force)
    if summary.interrupted:
        counts = ", ".join(f"{count} {status}" for status, count in summary.statuses.items())
        print(f"stopped with {counts}; this goes on: {again}", file=sys.stderr, flush=True)
        os._exit(summary.exit_code)  # Ray would wait for a minute for processes that the same signal has ended
    return summary.exit_code


def _brought(run: str) -> Path:
    """The run directory: itself, or what the storage at a URI knows of a run whose directory is not here."""
    from dr3_ray.cluster.files import fetch, home_of
    from dr3_ray.stores import is_uri
    from dr3_ray.sweep.directory import spec_of

    if not is_uri(run):
        return Path(run)
    if not (out := home_of(run)).exists():
        fetch(run, out)
    elif spec_of(out).storage != run:
        raise UserError(f"{out} is another run than {run}: go to another directory")
    return out


def foresee(spec: Any, calibrate: bool) -> None:
    """Print what a sweep would do."""
    from rich.console import Console

    from dr3_ray.sweep.plan import plan_sweep, plan_table

    Console().print(plan_table(plan_sweep(spec, calibrate, say=lambda text: print(text, file=sys.stderr))))


def _report(run: Path) -> None:
    from rich.console import Console

    from dr3_ray.report import write_report
    from dr3_ray.report.best import best_table
    from dr3_ray.sweep.directory import read_run

    report = write_report(run)
    Console().print(best_table(run) if (read_run(run).get("spec") or {}).get("search") else report.table)
    print(f"report: {report.page}")


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
