"""What a sweep shows while it runs: a live line in a terminal, a plain one now and then elsewhere."""

import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from dr3_ray.sweep.index import Status

PLAIN_EVERY = 15.0  # seconds between two plain lines
SHOWN: tuple[Status, ...] = ("finished", "running", "pending", "cut", "diverged", "failed")


class SweepProgress:
    """Members by status, updates a second over all members, and time left. Lines go to `console`."""

    def __init__(self, console: Console, statuses: dict[str, Status], steps: dict[str, int], ahead: int = 0) -> None:
        """`statuses` of all members of the sweep; `steps` of those that are still to be trained.

        `ahead` are the updates of members that a search has still to propose.
        """
        self.console = console
        self._statuses = dict(statuses)
        self._counts = Counter(statuses.values())
        self._each, self._steps, self._ahead = dict(steps), sum(steps.values()), ahead
        self._reached, self._skipped = _Sum(steps), _Sum(steps)
        self._bar = Progress(
            TextColumn("[bold]{task.percentage:>3.0f}%"),
            BarColumn(bar_width=12),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=self._steps + ahead)
        self._next_line = time.monotonic() + PLAIN_EVERY
        self._started: float | None = None  # when the first member started to train

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(escape(text), soft_wrap=True, highlight=False)

    def add(self, steps: dict[str, int], ahead: int) -> None:
        """Members that were proposed, with the updates to make; so many are still ahead."""
        self._steps += sum(made for member, made in steps.items() if member not in self._reached)
        self._each, self._ahead = steps | self._each, ahead
        for each in (self._reached, self._skipped):
            each.add(steps)
        self._count(steps, "pending")
        self._bar.update(self._task, total=self._steps + ahead)

    def status(self, members: Iterable[str], status: Status, error: str | None = None) -> None:
        """These members now have this status; a failure is said at once."""
        members = list(members)
        self._started = self._started or time.monotonic()
        self._count(members, status)
        if status in ("failed", "diverged") and members:
            self.say(f"{len(members)} {status}: {error}" if error else f"{len(members)} {status}")

    def skip(self, members: Iterable[str], step: int) -> None:
        """The first `step` updates of these members were made before."""
        self._skipped.set(members, step)

    def advance(self, members: Iterable[str], step: int) -> None:
        """These members have made `step` updates."""
        self._reached.set(members, step)
        self._bar.update(self._task, completed=self._reached.total)

    def end(self, members: Iterable[str], step: int) -> None:
        """These members are not trained beyond this step."""
        self._steps -= sum(self._each.pop(member) - step for member in members if member in self._each)
        self._bar.update(self._task, total=self._steps + self._ahead)

    def refresh(self) -> None:
        """Bring what is shown up to date."""
        text = self.text()
        self._bar.update(self._task, description=text)
        if not self.console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_EVERY
            self.say(f"{self._bar.tasks[0].percentage:3.0f}% {text}")

    def text(self) -> str:
        """`3 finished, 12 running · 10,240 updates/s · 1:23 left`."""
        parts = [", ".join(f"{self._counts[status]} {status}" for status in SHOWN if self._counts[status])]
        reached = self._reached.total
        made = reached - self._skipped.total
        if self._started and made > 0:
            speed = made / (time.monotonic() - self._started)
            left = self._steps + self._ahead - reached
            parts += [f"{speed:,.0f} updates/s", f"{duration(left / speed)} left"]
        return " · ".join(parts)

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
        """These count too, new ones from 0 on."""
        self._values = dict.fromkeys(members, 0) | self._values

    def __contains__(self, member: str) -> bool:
        return member in self._values

    def set(self, members: Iterable[str], value: int) -> None:
        """The new number of those of these members that count."""
        for member in members:
            if member in self._values:
                self.total += value - self._values[member]
                self._values[member] = value


def duration(seconds: float) -> str:
    """`1:23`, or `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def size(count: float) -> str:
    """Bytes as people read them: `1.2 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
