"""`dr3-ray select`: which configuration to take without playing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from dr3_ray.cli.commands import refuse_idle
from dr3_ray.cli.document import AsJson, print_document
from dr3_ray.cli.numbers import count
from dr3_ray.cli.paths import READ, here
from dr3_ray.cli.sweep_options import MANY
from dr3_ray.cli.use import TrustOption
from dr3_ray.errors import check_known


def select(
    context: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="A run directory or URI, or several.", **READ)],
    criteria: Annotated[
        list[str], typer.Option(metavar="NAME", help=f"What to rank by, the rule first.{MANY}", show_default="all")
    ] = [],  # noqa: B006
    fqe_steps: Annotated[
        int, typer.Option(help="Updates of each fitted critic; 0: no fitted critics.", **count())
    ] = 10_000,
    fqe_seeds: Annotated[int, typer.Option(help="Fitted critics of each policy.", **count(1, 64))] = 2,
    top: Annotated[int, typer.Option(help="The k of regret@k.", **count(1))] = 3,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Episodes that RUN was not trained on.",
            show_default="DATA?split=validation of a run on DATA?split=train",
        ),
    ] = None,
    trust: TrustOption = False,
    as_json: AsJson = False,
) -> None:
    """Choose a configuration by the data alone, and say how well such choices go where returns were measured.

    A critic is fitted to every trained policy and checkpoint, which takes minutes; --fqe-steps 0 leaves that out.
    RUN/selection.csv has all numbers.

    Example: dr3-ray select runs/breakout

    Example: dr3-ray select runs/breakout --criteria fqe,td_error --fqe-steps 50000 --json
    """
    from dr3_ray.cli.spec_options import words_of
    from dr3_ray.policies.scoring import FITTED, HELD_OUT, WEIGHTED
    from dr3_ray.report.ranked import FILE
    from dr3_ray.report.selection import select as choose
    from dr3_ray.report.selection_judging import CRITERIA
    from dr3_ray.report.selection_text import rendered
    from dr3_ray.runs.directory import check_different

    named = words_of(criteria)
    check_known("criterion", named, CRITERIA)
    measured = set(named or CRITERIA)
    if not measured & {*FITTED, *WEIGHTED}:
        refuse_idle(context, ("fqe_steps",), "as these criteria fit no critic")
    if not measured & set(FITTED) or not fqe_steps:
        refuse_idle(context, ("fqe_seeds",), "without fitted critics")
    if not measured & {*HELD_OUT, *WEIGHTED}:
        refuse_idle(context, ("data",), "as these criteria read no held-out episodes")
    choices, places = [], here(run, checkpoints=True)
    check_different(places)
    for path in places:
        with _shown() as say:
            choices.append(choose(path, named, fqe_steps, fqe_seeds, top, data, trust, say))
    if as_json:
        documents = [choice.to_dict() for choice in choices]
        print_document(documents[0] if len(documents) == 1 else documents)
        return
    from rich.console import Console

    for chosen in choices:
        Console(markup=False, highlight=False).print(rendered(chosen))
        if chosen.written:
            print(f"every number: {chosen.run / FILE}")


@contextmanager
def _shown() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what shows progress: a bar on a terminal, and a line for each thing that is done elsewhere."""
    from rich.progress import TextColumn

    from dr3_ray.cli.bars import bar_on_a_terminal

    with bar_on_a_terminal(TextColumn("{task.description}")) as bar:
        task = bar.add_task("reading checkpoints", total=None)
        last = [""]

        def say(what: str, done: int, of: int) -> None:
            if what != last[0] and bar.disable:
                print(what, file=sys.stderr, flush=True)
            last[0] = what
            bar.update(task, description=what, completed=done, total=of or None)

        yield say
