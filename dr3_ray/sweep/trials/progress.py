"""What a sweep shows while it runs: a live line in a terminal, a plain one now and then elsewhere."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from dr3_ray.quantities import RETURN
from dr3_ray.runs.records import Status
from dr3_ray.runs.status import SHOWN, duration

PLAIN_EVERY = 15.0  # seconds between two plain lines


class Best:
    """The highest mean return of an evaluation, of all rows that it is told of."""

    def __init__(self) -> None:
        self._value = -math.inf

    def row(self, member: str, step: int, values: Mapping[str, Any]) -> None:
        """Take a row of a member."""
        value = values.get(RETURN)
        if value is not None and math.isfinite(value):
            self._value = max(self._value, value)

    def end(self, members: Iterable[str]) -> None:
        """Do nothing: the best one stays."""

    def __str__(self) -> str:
        return f"best return {self._value:.4g}" if math.isfinite(self._value) else ""


class SweepProgress:
    """A display of members by status, updates a second over all members, and time left; lines go to `console`."""

    def __init__(
        self,
        console: Console,
        statuses: dict[str, Status],
        steps: dict[str, int],
        ahead: int = 0,
        before: int = 0,
        reached: Mapping[str, int] | None = None,
    ) -> None:
        """Begin with the `statuses` of all members of the sweep, and the `steps` of those that are still to be trained.

        `ahead` are the updates of members that a search has still to propose, `before` those of members that are done,
        and `reached` those that the others have made.
        """
        self.console = console
        self._statuses = dict(statuses)
        self._counts = Counter(statuses.values())
        self._each, self._steps, self._ahead, self._before = dict(steps), sum(steps.values()), ahead, before
        self._reached, self._skipped = _Sum(steps), _Sum(steps)
        for member, step in (reached or {}).items():
            self.skip([member], step)
            self._reached.set([member], step)
        self.best = Best()
        self._bar = Progress(
            TextColumn("[bold]{task.percentage:>3.0f}%"),
            BarColumn(bar_width=12),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=self._total, completed=before + self._reached.total)
        self._next_line = time.monotonic() + PLAIN_EVERY
        self._started: float | None = None  # when the first member started to train

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def _total(self) -> int:
        return self._before + self._steps + self._ahead

    @property
    def share(self) -> float:
        """How much of the sweep is done, in percent of its updates."""
        return float(self._bar.tasks[0].percentage)

    def wait(self, what: str) -> None:
        """Tell what is waited for, until there is something to count; outside a terminal to standard output."""
        self._bar.update(self._task, description=escape(what))
        if not self.console.is_terminal:  # where errors are alone on their stream
            print(what, flush=True)

    def say(self, text: str) -> None:
        """Print one line that stays."""
        self.console.print(escape(text), soft_wrap=True, highlight=False)

    def add(self, steps: dict[str, int], ahead: int) -> None:
        """Count members that were proposed, with the updates to make; `ahead` updates are still to be proposed."""
        self._steps += sum(made for member, made in steps.items() if member not in self._reached)
        self._each, self._ahead = steps | self._each, ahead
        for counts in (self._reached, self._skipped):
            counts.add(steps)
        self._count(steps, "pending")
        self._bar.update(self._task, total=self._total)

    def status(self, members: Iterable[str], status: Status, error: str | None = None) -> None:
        """Give these members a status; a failure is said at once."""
        members = list(members)
        self._started = self._started or time.monotonic()
        self._count(members, status)
        if status in ("failed", "diverged") and members:
            self.say(f"{len(members)} {status}: {error}" if error else f"{len(members)} {status}")

    def skip(self, members: Iterable[str], step: int) -> None:
        """Count the first `step` updates of these members as made before."""
        self._skipped.set(members, step)

    def advance(self, members: Iterable[str], step: int) -> None:
        """Note that these members have made `step` updates."""
        self._reached.set(members, step)
        self._bar.update(self._task, completed=self._before + self._reached.total)

    def end(self, members: Iterable[str], step: int) -> None:
        """Note that these members are not trained beyond this step."""
        self._steps -= sum(self._each.pop(member) - step for member in members if member in self._each)
        self._bar.update(self._task, total=self._total)

    def refresh(self) -> None:
        """Bring the display up to date."""
        if not self._started:  # the wait goes on
            return
        text = self.text()
        self._bar.update(self._task, description=text)
        if not self.console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_EVERY
            self.say(f"{self.share:3.0f}% {text}")

    def text(self) -> str:
        """Return `3 finished, 12 running · 10,240 updates/s · 1:23 left · best return 12.3`."""
        parts = [", ".join(f"{self._counts[status]} {status}" for status in SHOWN if self._counts[status])]
        reached = self._reached.total
        made = reached - self._skipped.total
        if self._started and made > 0:
            speed = made / (time.monotonic() - self._started)
            left = self._steps + self._ahead - reached
            parts += [f"{speed:,.0f} updates/s", f"{duration(left / speed)} left"]
        return " · ".join([*parts, *filter(None, [str(self.best)])])

    def _count(self, members: Iterable[str], status: Status) -> None:
        for member in members:
            if member in self._statuses:
                self._counts[self._statuses[member]] -= 1
            self._counts[status] += 1
            self._statuses[member] = status


class _Sum:
    """A number for each of these members, and their total, asked for more often than it could be summed."""

    def __init__(self, members: Iterable[str]) -> None:
        self._values: dict[str, int] = {}
        self.total = 0
        self.add(members)

    def add(self, members: Iterable[str]) -> None:
        """Count these too, new ones from 0 on."""
        self._values = dict.fromkeys(members, 0) | self._values

    def __contains__(self, member: str) -> bool:
        return member in self._values

    def set(self, members: Iterable[str], value: int) -> None:
        """Set the number of those of these members that count."""
        for member in members:
            if member in self._values:
                self.total += value - self._values[member]
                self._values[member] = value


def size(count: float) -> str:
    """Format bytes as people read them: `1.2 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
