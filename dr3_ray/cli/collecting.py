"""`dr3-ray data collect`: what is printed while a learner plays, and afterwards."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import ProgressColumn, Task
from rich.text import Text

from dr3_ray.cli.bars import bar_on_a_terminal
from dr3_ray.cli.importing import quiet
from dr3_ray.errors import UserError, first_line
from dr3_ray.evaluation.collect import collect
from dr3_ray.evaluation.online import Player, Told
from dr3_ray.evaluation.recipes import Recipe
from dr3_ray.process import stopping


def write(recipe: Recipe, out: Path, command: str, player: Player | None = None) -> None:
    """Collect a data set with a progress bar on a terminal, then print the warnings and what was written."""
    stopping.advise(stopping.command_line)
    with steps_bar(recipe.steps + recipe.policy_steps) as told, quiet():
        try:
            manifest = collect(recipe, out, command=command, told=told, player=player)
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            again = stopping.command_line()
            raise UserError(f"cannot write {out} ({reason}): make room, and `{again}` goes on where it was") from None
    for note in manifest.provenance.notes:
        print(f"warning: {note}", file=sys.stderr)
    returns = manifest.statistics["episode_returns"]
    print(f"{manifest.counts.rows} rows of {manifest.counts.episodes} episodes written to {out}")
    details = manifest.provenance.details
    if "reached" in details:
        print(f"{details['quality']}: {details['reached']}")
    print(f"return of an episode: mean {returns.mean:.1f}, best {returns.max:.1f}")


class _Steps(ProgressColumn):
    """A column of steps played, all of them, steps a second, and the mean return of recent episodes."""

    def render(self, task: Task) -> Text:
        speed = f", {task.speed:,.0f}/s" if task.speed else ""
        gained = task.fields["gained"]
        recent = "" if gained is None else f", recent mean return {gained:,.1f}"
        return Text(f"{task.completed:,.0f} of {task.total:,.0f} steps{speed}{recent}")


@contextmanager
def steps_bar(total: int) -> Iterator[Told]:
    """Yield a progress bar that is told the steps played, and the mean return; silent without a terminal."""
    with bar_on_a_terminal(_Steps()) as bar:
        task = bar.add_task("collect", total=total, gained=None)

        def told(steps: int, gained: float | None) -> None:
            bar.update(task, completed=steps, gained=gained)

        yield told
