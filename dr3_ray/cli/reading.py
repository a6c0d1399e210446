"""Commands that read a run: its report, its results brought home, and how far it is."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from dr3_ray.cli.commands import refuse_idle
from dr3_ray.cli.document import AsJson, print_document
from dr3_ray.cli.paths import PATH, READ, here
from dr3_ray.cli.sweep_options import MANY
from dr3_ray.cli.sweeping import show_report
from dr3_ray.errors import UserError
from dr3_ray.uris import is_uri


def report(
    context: typer.Context,
    run: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="A run directory or URI, also while it runs; or several.", **READ),
    ],
    also: Annotated[
        list[str], typer.Option(metavar="KIND", help=f"Write md, tex (tables), svg, pdf (figures) too.{MANY}")
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option(help="Where to.", show_default="RUN/report; of several runs comparison", **PATH)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print verdicts and tables as JSON; write nothing.")] = False,
) -> None:
    """Write the report of a run, or compare several, and print the verdict: which c₀ to take, and what is missing.

    Runs on the same data stand in one table; returns on different data sets are never compared.

    Example: dr3-ray report runs/breakout

    Example: dr3-ray report runs/cql runs/iql --also tex,pdf
    """
    if as_json:
        refuse_idle(context, ("also", "out"), "with --json, which prints and writes nothing")
        from dr3_ray.report.judging import document
        from dr3_ray.report.merged import read_merged
        from dr3_ray.report.reader import read_tables
        from dr3_ray.report.tables import outcomes, summarize

        runs = here(run)
        results = read_tables(runs[0]) if len(runs) == 1 else read_merged(runs)
        print_document(document(results, summarize(results), outcomes(results)))
    else:
        from dr3_ray.cli.spec_options import words_of

        show_report(*here(run), out=out, also=words_of(also))


def fetch(
    run: Annotated[str, typer.Argument(help="What was --out of a sweep on a cluster, or its --storage.")],
    cluster: Annotated[
        Path | None, typer.Option(help="The file of `ray up`. None: RUN is a path or URI.", **PATH)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to.", show_default="runs/ and the name of RUN", **PATH)
    ] = None,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="Bring the checkpoints, too.")] = False,
) -> None:
    """Bring the results of a sweep home from a cluster or a bucket, and report. Again: what is new since then.

    Example: dr3-ray fetch /shared/runs/pong --cluster cluster.yaml

    Example: dr3-ray fetch s3://bucket/pong --out runs/pong --checkpoints
    """
    from dr3_ray.runs.fetch import fetch as bring
    from dr3_ray.runs.fetch import home_of

    out = out or home_of(run)
    bring(run, out, cluster, checkpoints)
    show_report(out)


def status(
    run: Annotated[str, typer.Argument(help="A run directory, a copy of one, or the URI of one.", **READ)],
    watch: Annotated[bool, typer.Option("--watch", help="Until the sweep is over; Ctrl-C ends it sooner.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show members by status, updates a second and time left, from the files of a run directory alone.

    Example: dr3-ray status runs/breakout --watch

    Example: dr3-ray status runs/breakout --json
    """
    import time

    from rich.console import Console

    from dr3_ray.runs.status import read_status, status_view
    from dr3_ray.runs.status import watch as follow

    if as_json and watch:
        raise UserError("--json prints one document, and --watch many lines: leave out one of them")
    if watch and is_uri(run):
        raise UserError(f"--watch looks at a directory of this machine: `dr3-ray serve {run}` follows a run elsewhere")
    (path,) = here([run])
    if as_json:
        state = read_status(path)
        print_document(state._asdict() | {"over": state.over, "left_s": state.left})
    elif watch:
        with contextlib.suppress(KeyboardInterrupt):
            follow(path, Console())
    else:
        Console().print(status_view(read_status(path), path, time.time()), soft_wrap=True, highlight=False)
