"""The command line. Commands import what is heavy when they run, so that `--help` is quick."""

import json
import shlex
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer

from dr3_ray import __version__
from dr3_ray.cli import diagnosing, listing, reading, reproducing, selecting, serving, use
from dr3_ray.cli import sweep_options as options
from dr3_ray.cli.commands import DATA, PREPARE, TRAIN, UNDERSTAND, USE, Commands, InPanels
from dr3_ray.cli.data import app as data
from dr3_ray.cli.document import AsJson
from dr3_ray.cli.paths import PATH
from dr3_ray.cli.sweeping import foresee, results_are_safe, show_report, train
from dr3_ray.errors import NOT_OURS, UserError, raise_out_of_memory, unusable
from dr3_ray.process import stopping
from dr3_ray.process.folders import cache_home
from dr3_ray.trust.secrets import masked, remember

app = Commands(name="dr3-ray", help="Offline reinforcement learning sweeps with DR3 regularization.", cls=InPanels)
app.add_typer(data, name="data", rich_help_panel=DATA)

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


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command(rich_help_panel=TRAIN)
def sweep(
    context: typer.Context,
    spec: options.SpecFile = None,
    dataset: options.Dataset = [],  # noqa: B006
    from_: options.From = [],  # noqa: B006
    algorithm: options.Algorithm = ["DR3-CQL"],  # noqa: B006
    coefficients: options.Coefficients = ["0,0.001,0.01,0.03,0.1,0.3"],  # noqa: B006
    seeds: options.Seeds = ["3"],  # noqa: B006
    steps: options.Steps = 100_000,
    evaluations: options.Evaluations = 20,
    environment: options.Environment = "auto",
    episodes: options.Episodes = 20,
    set_: options.Settings = [],  # noqa: B006
    axis: options.Axis = [],  # noqa: B006
    budget: options.Budget = None,
    search: options.Search = None,
    trials: options.Trials = None,
    point: options.Point = [],  # noqa: B006
    study: options.Study = None,
    objective: options.Objective = ["episode_return_mean"],  # noqa: B006
    halving: options.Halving = None,
    pack: options.Pack = "16",
    cpus: options.Cpus = None,
    gpus: options.Gpus = 0.0,
    nodes: options.Nodes = 1,
    patience: options.Patience = None,
    concurrent: options.Concurrent = None,
    retries: options.Retries = 2,
    checkpoint_every: options.CheckpointEvery = None,
    keep_checkpoints: options.KeepCheckpoints = 1,
    out: options.Out = Path("runs/sweep"),
    storage: options.Storage = None,
    log: options.Log = [],  # noqa: B006
    resume: options.Resume = None,
    force: options.Force = False,
    trust: options.Trust = False,
    dry_run: options.DryRun = False,
    calibration: options.Calibration = True,
    as_json: AsJson = False,
) -> None:
    """Train every algorithm on every data set with every coefficient and seed, and report.

    The same command again skips what is finished and goes on with what is missing, interrupted or failed.

    Example: dr3-ray sweep --dataset embedded:breakout-replay --steps 10000 --out runs/breakout

    Example: dr3-ray sweep --resume runs/breakout --steps 20000

    Example: dr3-ray sweep --from runs/breakout --steps 5000 --dataset mine --out runs/finetuned

    Example: dr3-ray sweep pong.yaml --dry-run --json
    """
    from dr3_ray.cli.spec_options import spec_from
    from dr3_ray.sweep.directory import resumed

    sources = {name: str(context.get_parameter_source(name)) for name in context.params}
    given = {name: context.params[name] for name, source in sources.items() if source.endswith("COMMANDLINE")}
    how, length = {"spec", "resume", "force", "trust", "dry_run", "calibration", "as_json"}, {"steps", "evaluations"}
    if as_json and not dry_run:
        raise UserError("--json prints what --dry-run foresees: give --dry-run, too, and read a run by status --json")
    if resume and (more := sorted(given.keys() - (how - {"spec"}) - (length if "steps" in given else set()))):
        option = more[0].strip("_").replace("_", "-")
        raise UserError(
            f"--resume goes on with what was asked for, or with more --steps: leave out --{option}, or give no --resume"
        )
    if resume:
        asked = resumed(resume, given.get("steps"), given.get("evaluations"), trust)
    else:
        asked = spec_from(spec, {name: given[name] for name in given.keys() - how})
    if dry_run:
        return foresee(asked, calibration, as_json)
    return _run(asked, force, trust)


@app.command(rich_help_panel=PREPARE)
def schema() -> None:
    """Print the JSON schema of sweep specifications, which editors check and complete YAML files by.

    Example: dr3-ray schema > sweep.schema.json

    Example: dr3-ray schema | jq '.properties | keys'
    """
    from dr3_ray.sweep.spec.spec import SweepSpec

    print(json.dumps(SweepSpec.model_json_schema(), indent=1))


@app.command(rich_help_panel=TRAIN)
def demo(out: options.Out = Path("runs/demo")) -> None:
    """Sweep DR3's coefficient with CQL on the MinAtar Breakout data in the package, and report.

    Example: dr3-ray demo

    Example: dr3-ray demo --out runs/first
    """
    from dr3_ray.sweep.spec.spec import SweepSpec

    _run(SweepSpec(**DEMO, out=out))


@app.command(rich_help_panel=PREPARE)
def doctor(
    cluster: Annotated[
        Path | None, typer.Option(help="A file for `ray up` to examine, instead of this machine.", **PATH)
    ] = None,
    storage: Annotated[str | None, typer.Option(help="With --cluster: the --storage of its sweeps.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check whether this machine, or a cluster file, is ready; say what is wrong and what to do about it.

    Example: dr3-ray doctor

    Example: dr3-ray doctor --cluster cluster.yaml --storage s3://bucket/runs
    """
    from dr3_ray.cli.doctor import doctor as examine
    from dr3_ray.cli.doctor import report as show

    if cluster is not None:
        from dr3_ray.cli.cluster_file import examine as examine_file

        raise typer.Exit(show(examine_file(cluster, storage), as_json))
    if storage is not None:
        raise UserError("--storage is examined with a cluster's file: give --cluster, too")
    raise typer.Exit(show(examine(), as_json))


for _command, _panel in (
    (reading.status, TRAIN), (reading.report, UNDERSTAND), (reading.fetch, UNDERSTAND), (serving.serve, UNDERSTAND),
    (diagnosing.diagnose, UNDERSTAND), (selecting.select, UNDERSTAND),
    (reproducing.reproduce, UNDERSTAND),
    (use.evaluate, USE), (use.export, USE), (listing.algorithms, PREPARE), (listing.options, PREPARE),
):  # fmt: skip
    app.command(rich_help_panel=_panel)(_command)


def main(arguments: list[str] | None = None, name: str = "dr3-ray", commands: typer.Typer = app) -> None:
    """Run a command line. A user's mistake is one line on stderr and exit code 2."""
    if arguments is None:  # what is printed and written of a command has no keys
        arguments, sys.argv[1:] = sys.argv[1:], remember(sys.argv[1:])
    try:
        cache_home()
        code = commands(arguments, standalone_mode=False, prog_name=name)
    except UserError as error:
        if stopping.lost():
            stopping.end(error=str(error))  # Ray's own end would wait for what is lost
        _fail(str(error))
    except _UsageError as error:
        place = getattr(error, "ctx", None)  # of the command that was typed wrongly
        _fail(f"{error.format_message()} (see {place.command_path if place else name} --help)")  # type: ignore[attr-defined]
    except OSError as error:  # of a file that lies where one of ours is to be
        if error.filename is None or error.errno not in NOT_OURS:
            _report_fault()
        _fail(unusable(error.filename, error))
    except typer.Abort:
        code = stopping.STOPPED
    except Exception as error:
        try:
            raise_out_of_memory(error)
        except UserError as told:
            _fail(str(told))
        _report_fault()
    if code == stopping.STOPPED:  # what typer makes of a KeyboardInterrupt
        raise KeyboardInterrupt
    sys.exit(code)


def _run(spec: Any, force: bool = False, trust: bool = False) -> None:
    failed = train(spec, force, trust, stopping.resuming(spec.out))
    with results_are_safe([spec.out], shlex.join(["dr3-ray", "report", str(spec.out)])):
        show_report(spec.out)
    raise typer.Exit(failed)


def _report_fault() -> NoReturn:
    """Print where a fault of ours was met, without keys, and end the process."""
    print(masked(traceback.format_exc()), end="", file=sys.stderr)
    sys.exit(1)


def _fail(message: str) -> NoReturn:
    print(f"error: {masked(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)
