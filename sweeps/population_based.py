"""Population-based training of the DR3 coefficient: after each interval the worst members copy the best and go on.

A copy takes weights and optimisers of its model, whose numbers are changed a little: `--change NAME=LOW,HIGH` says
which and between what. What is structure (widths, batch sizes, variants) stays. The scheduler is Ray Tune's own PBT, or
its PB2, which learns from all intervals what to change numbers to (`--scheduler pb2`, for populations of a few).

    python sweeps/population_based.py --change dr3_coeff=0.001,0.3 --change critic_lr=0.0001,0.001 --out runs/pbt
    ray submit cluster.yaml sweeps/population_based.py -- --members 16 --gpus 0.25 --out /shared/runs/pbt

It can be stopped by anything; the same command goes on from Tune's last snapshot, a second or two before.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dr3_ray.cli import app as cli
from dr3_ray.cli.paths import PATH
from dr3_ray.cli.script import EMBEDDED, FAST, alone, by_kind
from dr3_ray.process import stopping

CHANGED = ["dr3_coeff=0.001,0.3", "critic_lr=0.0001,0.001"]


def population_based(
    dataset: Annotated[str, typer.Option(help="embedded:NAME or a directory.")] = EMBEDDED,
    algorithm: Annotated[str, typer.Option(help="What is trained.")] = "DR3-CQL",
    members: Annotated[int, typer.Option(min=4, help="Trials; each has a seed of its own.")] = 8,
    change: Annotated[list[str], typer.Option(metavar="NAME=LOW,HIGH", help="A number to change.")] = CHANGED,
    steps: Annotated[int, typer.Option(help="Gradient updates of each member.")] = 10_000,
    intervals: Annotated[int, typer.Option(help="Into which they are cut; each ends with rollouts.")] = 10,
    environment: Annotated[str, typer.Option(help="auto: the data set's own, if installed; or a name.")] = "auto",
    episodes: Annotated[int, typer.Option(help="Episodes after each interval.")] = 20,
    set_: Annotated[list[str], typer.Option("--set", metavar="OPTION=VALUE", help="An option that stays.")] = [],  # noqa: B006
    scheduler: Annotated[Literal["pbt", "pb2"], typer.Option(help="How numbers are changed.")] = "pbt",
    seed: Annotated[int, typer.Option(help="Of what the scheduler draws.")] = 0,
    cpus: Annotated[float, typer.Option(help="CPUs of a trial.")] = 1.0,
    gpus: Annotated[float, typer.Option(help="GPUs of a trial; a fraction shares one.")] = 0.0,
    nodes: Annotated[int, typer.Option(help="Machines with room for a trial to wait for before the start.")] = 1,
    patience: Annotated[
        float | None, typer.Option(help="Minutes to wait for them.", show_default="as long as it takes")
    ] = None,
    retries: Annotated[int, typer.Option(help="How often a trial that fails is started again.")] = 2,
    out: Annotated[
        Path, typer.Option(help="Run directory; on a cluster a folder that all machines share.", **PATH)
    ] = Path("runs/population_based"),
    trust: Annotated[
        bool, typer.Option("--trust", help="Go on with a population of another: whoever made it can run code here.")
    ] = False,
) -> None:
    (kind,) = by_kind([dataset])
    from dr3_ray.cli.spec_options import spec_above

    bounds = read_changes(change)
    options = {name: value for name, value in FAST[kind].items() if name not in bounds}
    values: dict[str, Any] = {
        "algorithms": [algorithm], "datasets": [dataset], "coefficients": [0.03], "seeds": members, "steps": steps,
        "evaluations": intervals, "environment": environment, "evaluation_episodes": episodes, "options": options,
        "cpus": cpus, "gpus": gpus, "nodes": nodes, "patience": patience, "retries": retries,
        "out": out,
    }  # fmt: skip
    spec = spec_above(values, {"set_": set_})

    from rich.console import Console

    from dr3_ray.errors import first_line
    from dr3_ray.evolution.evolution import Evolution, evolve
    from dr3_ray.evolution.schedule import known, lacking
    from dr3_ray.report.evolution import read_schedule, schedule_table, write_schedule

    stopping.advise(stopping.command_line)
    results = evolve(Evolution(spec, bounds, seed, scheduler), trust)
    unfinished = [each for each in results if each.error or (each.metrics or {}).get("num_updates", 0) < steps]
    failed = sum(each.error is not None for each in unfinished)
    if unfinished:
        print(f"{len(unfinished)} of {members} members are not finished, {failed} failed: the same command goes on")
    for reason in dict.fromkeys(first_line(each.error) for each in unfinished if each.error):
        print(f"failed: {reason}")
    if not (schedule := known(out)):
        raise typer.Exit(1 if failed else 130)
    if lost := lacking(schedule):
        print(f"{lost} intervals are known to nobody any more, because files in {out} were damaged")
    files = write_schedule(out, list(bounds))
    Console(markup=False).print(schedule_table(read_schedule(out, list(bounds)), list(bounds)))
    print("Members are copies of each other: their spread is no interval. Train the winner's numbers with new seeds.")
    print(f"what everyone trained with, and when: {', '.join(map(str, files))}")
    raise typer.Exit(0 if not unfinished else 1 if failed else 130)


def read_changes(change: list[str]) -> dict[str, tuple[float, float]]:
    """Read what is to change, and between what.

    Raises:
        UserError: a text has another form, or a number is there twice.
    """
    from dr3_ray.errors import UserError

    bounds: dict[str, tuple[float, float]] = {}
    for name, between in map(read_bounds, change):
        if name in bounds:
            raise UserError(f"--change {name} is given twice: leave out one of them")
        bounds[name] = between
    return bounds


def read_bounds(text: str) -> tuple[str, tuple[float, float]]:
    """Read `dr3_coeff=0.001,0.3`.

    Raises:
        UserError: a text has another form.
    """
    from dr3_ray.errors import UserError

    name, _, values = text.partition("=")
    try:
        low, high = map(float, values.split(","))
    except ValueError:
        raise UserError(f"--change {text}: give NAME=LOW,HIGH, as in dr3_coeff=0.001,0.3") from None
    return name, (low, high)


if __name__ == "__main__":
    stopping.run_command(lambda: cli.main(None, Path(__file__).name, alone(population_based, __doc__ or "")))
