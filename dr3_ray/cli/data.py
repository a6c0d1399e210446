"""`dr3-ray data`: import, export, check, collect, inspect, verify and cache data sets."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dr3_ray.cli.commands import Commands, refuse_idle
from dr3_ray.cli.document import AsJson
from dr3_ray.cli.numbers import count, number
from dr3_ray.cli.paths import FILE, PATH, TYPED
from dr3_ray.errors import UserError

app = Commands(help="Import, export, check, collect, inspect, verify and cache data sets.")

DatasetArgument = Annotated[
    str, typer.Argument(help="A directory, its URI, or embedded:NAME; some rows by ?take=best:0.1.")
]


@app.command("import")
def import_(
    sources: Annotated[
        list[str],
        typer.Argument(help="minari:ID, or a file or folder of this machine; several with the same spaces become one."),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Directory to write, new or empty.", **PATH)] = None,
    gamma: Annotated[float, typer.Option(help="Discount of the Monte-Carlo returns.", **number())] = 0.99,
    name: Annotated[str | None, typer.Option(help="Name of the data set (default: that of the source).")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of a table: observation=obs_*,action=a,reward=r; others are guessed.")
    ] = None,
    action_space: Annotated[
        str | None,
        typer.Option(help="box:LOW,HIGH, discrete:N,FIRST or multidiscrete:N,N, where the source does not say."),
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="Steps after which an episode without a flag is truncated.", **count(1))
    ] = None,
    goal: Annotated[str | None, typer.Option(help="X,Y,TOLERANCE: the goal of an OGBench maze.")] = None,
    clip_actions: Annotated[
        bool, typer.Option("--clip-actions", help="Move actions outside the action space to its bounds.")
    ] = False,
    rescale_actions: Annotated[
        bool,
        typer.Option("--rescale-actions", help="Take the bounds of Box actions from the data."),
    ] = False,
    flatten: Annotated[
        bool, typer.Option("--flatten", help="Make one vector of a Dict of observations, instead of named parts.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Make an error of every warning.")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load pickled objects, which can run code of their author.")
    ] = False,
    workers: Annotated[
        int, typer.Option(help="Processes that read and write at once; each takes the memory of one.", **count(1))
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what is there and how it would be read; write nothing.")
    ] = False,
) -> None:
    """Convert a data set of another library, a table, or arrays. What was killed goes on by the same command.

    Example: dr3-ray data import flights.csv --out flights

    Example: dr3-ray data import minari:D4RL/door/human-v2 --out door --workers 4
    """
    from dr3_ray.cli.importing import describe, write
    from dr3_ray.data.importers.source import Options

    options = Options(columns, action_space, trust, max_steps, goal)
    if dry_run:
        describe(sources, options)
        return
    if out is None:
        raise UserError("Missing option '--out': name the directory to write")
    write(
        sources,
        options,
        out,
        workers,
        gamma=gamma,
        clip_actions=clip_actions,
        rescale_actions=rescale_actions,
        name=name,
        flatten=flatten,
        strict=strict,
        command=shlex.join(["dr3-ray", *sys.argv[1:]]),
    )


@app.command()
def export(
    source: DatasetArgument,
    to: Annotated[str, typer.Option(help="minari, d4rl, rllib or parquet.")],
    out: Annotated[
        Path, typer.Option("--out", help="A new file (d4rl, parquet) or folder (rllib); an id of Minari.", **TYPED)
    ],
    as_json: AsJson = False,
) -> None:
    """Write a data set in another library's format, with actions and observations as the environment has them.

    Example: dr3-ray data export embedded:pendulum-replay --to rllib --out pendulum

    Example: dr3-ray data export flights --to minari --out mine/flights-v0
    """
    from dr3_ray.cli.exporting import write

    write(source, to, out, as_json)


@app.command()
def check(
    source: DatasetArgument,
    strict: Annotated[bool, typer.Option("--strict", help="Make an error of every warning.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look for traps in a data set: jumps, rows of zeros, episodes that repeat, rewards that never change.

    Example: dr3-ray data check flights --strict

    Example: dr3-ray data check embedded:pendulum-replay --json
    """
    from dr3_ray.cli.inspecting import show_checks

    show_checks(source, strict, as_json)


@app.command()
def collect(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="An environment (CartPole-v1, minatar:asterix, maze:umaze), or a preset: embedded:NAME, "
            "GAME-replay (MinAtar), halfcheetah-replay or -medium."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Directory to write, new or empty.", **PATH)],
    learner: Annotated[
        str | None,
        typer.Option(
            help="dqn, sac, random, waypoints (mazes), a run or checkpoint, or module:callable.",
            show_default="dqn or sac, by the actions",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Environment steps.", show_default="100000, or the preset's", **count(1))
    ] = None,
    seed: Annotated[int, typer.Option(help="Of episodes, networks and draws.", **count(0, 2**32 - 1))] = 0,
    keep: Annotated[
        float | None,
        typer.Option(
            help="Share of the rows to write, drawn uniformly.",
            show_default="all, or the preset's",
            **number() | {"metavar": "SHARE"},
        ),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(help="replay, medium, medium-replay or expert, by the return reached.", show_default="replay"),
    ] = None,
    medium_return: Annotated[
        float | None,
        typer.Option(
            help="What medium is.",
            show_default="a third of the way from random to the last policy",
            **number() | {"metavar": "RETURN"},
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="An option of the learner, or warm_up: its random steps."),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="The run or checkpoint is from somebody whose code may run here.")
    ] = False,
) -> None:
    """Make a data set: an online learner plays, and its replay or its policy's episodes are written. Takes minutes.

    Example: dr3-ray data collect CartPole-v1 --learner dqn --steps 20000 --out cartpole

    Example: dr3-ray data collect embedded:pendulum-replay --out pendulum
    """
    from dr3_ray.cli.collecting import write
    from dr3_ray.cli.spec_options import read_settings
    from dr3_ray.evaluation.recipes import LEARNERS, RANDOM, recipe_of

    if keep is not None and not 0 < keep <= 1:
        raise UserError(f"--keep is {keep:g}: give a share above 0, up to 1")
    options, player = read_settings(settings or ()), None
    if learner and learner not in (*LEARNERS, RANDOM):
        from dr3_ray.policies.players import player_named

        player, options, learner = player_named(learner, options, seed, trust), {}, None
    if player is None or not player.details:
        refuse_idle(context, ("trust",), "unless a run or checkpoint plays")
    recipe = recipe_of(
        source,
        learner,
        steps=steps,
        seed=seed,
        keep=keep,
        settings=options,
        player=player and player.label,
        quality=quality,
        medium_return=medium_return,
    )
    write(recipe, out, shlex.join(["dr3-ray", *sys.argv[1:]]), player)


@app.command()
def info(source: DatasetArgument, as_json: AsJson = False) -> None:
    """Print what is in a data set: returns and lengths, which actions, ranges, and where it comes from.

    Example: dr3-ray data info embedded:breakout-replay

    Example: dr3-ray data info flights --json
    """
    from dr3_ray.cli.inspecting import show

    show(source, as_json)


@app.command("list")
def list_(
    folder: Annotated[
        Path, typer.Argument(help="Where to look, three folders deep.", show_default="here", **PATH)
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """List the data sets in a folder, and those in the package.

    Example: dr3-ray data list

    Example: dr3-ray data list data --json
    """
    from dr3_ray.cli.inspecting import show_all

    show_all(folder, as_json)


@app.command()
def plot(
    source: DatasetArgument,
    out: Annotated[Path, typer.Option("--out", help="Where to: OUT.png and OUT.html, which are replaced.", **FILE)],
) -> None:
    """Draw returns, lengths, actions and ranges: a picture, and a page with the numbers, which needs no network.

    Example: dr3-ray data plot embedded:breakout-replay --out breakout

    Example: dr3-ray data plot flights --out reports/flights
    """
    from dr3_ray.data.loading import load_dataset
    from dr3_ray.report.dataset import plot_dataset

    for path in plot_dataset(load_dataset(source), out):
        print(path)


@app.command()
def verify(
    source: DatasetArgument,
    seal: Annotated[
        bool, typer.Option("--seal", help="Write the manifest anew: one edited by hand, or of an older version.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check every row, episode and statistic by the rules of import, and every file by its digest in the manifest.

    Example: dr3-ray data verify flights

    Example: dr3-ray data verify flights --seal
    """
    from dr3_ray.cli.verifying import verify_all

    verify_all(source, seal, as_json)


@app.command()
def cache(
    prune: Annotated[
        float | None,
        typer.Option(help="Remove what was not used for so many days; 0: all.", **number(0) | {"metavar": "DAYS"}),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show or prune this machine's copies of data sets from URIs, and what interrupted copies and imports left.

    DR3_RAY_CACHE names another folder for them; with DR3_RAY_CACHE_LIMIT=50GB those that were used longest ago make
    room for new ones. Pruning removes all that was left, and nothing that a process writes.

    Example: dr3-ray data cache

    Example: dr3-ray data cache --prune 30
    """
    from dr3_ray.cli.caching import show

    show(prune, as_json)
