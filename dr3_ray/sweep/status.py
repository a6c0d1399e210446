"""How a sweep is doing, from its run directory alone: while it runs, after a crash, or in a copy on another machine."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from dr3_ray.errors import UserError, first_line
from dr3_ray.sweep.directory import is_run, read_run
from dr3_ray.sweep.histories import HISTORIES, WRITTEN, read_histories
from dr3_ray.sweep.index import Record, read_index
from dr3_ray.sweep.progress import SHOWN, duration

EVERY = 2.0  # seconds between two looks
SILENT, TIMES = 120.0, 5.0  # seconds without a line, and how many times as long as usual, are worth a word


class RunStatus(NamedTuple):
    """What the files of a run directory say. Updates are those of all members together."""

    name: str
    counts: dict[str, int]
    """Members by status."""
    made: int
    """Updates so far, of members that are over all that they will get."""
    planned: int
    speed: float
    """Updates a second of what is running, its evaluations included; 0 if nothing is, or nothing is known yet."""
    written: float
    """When something was last written, in seconds since 1970."""
    usual: float
    """The longest time between two evaluations of a pack that is running, in seconds."""
    ahead: int
    """Members that a search has still to propose."""
    errors: dict[str, int]
    """What members failed of, and how many of each."""

    @property
    def over(self) -> bool:
        """Whether all members are finished, cut, diverged or failed."""
        return not (self.counts["running"] or self.counts["pending"] or self.ahead)

    @property
    def left(self) -> float | None:
        """Seconds until the end at this speed."""
        return (self.planned - self.made) / self.speed if self.speed else None


def read_status(run: Path) -> RunStatus:
    """Read a run directory; nothing is written or locked.

    Raises:
        UserError: it is not a run directory, or a file of it is damaged.
    """
    if not is_run(run):
        raise UserError(f"{run} is not a run directory: give the --out of a sweep")
    info, records = read_run(run), read_index(run)
    histories, written = _read(run)
    reached: dict[str, int] = {}
    times: dict[str, list[float]] = {}
    for member, step, seconds in zip(*(histories[name] for name in ("member", "step", "time_s")), strict=True):
        reached[member] = max(reached.get(member, 0), step)
        times.setdefault(member, []).append(seconds)
    packs: dict[str, list[Record]] = {}
    for record in records:
        if record["status"] == "running" and record["member"] in reached:
            packs.setdefault(record["pack"], []).append(record)
    speed = usual = 0.0
    for pack in packs.values():
        each = sorted(times[pack[0]["member"]])
        speed += sum(reached[record["member"]] for record in pack) / each[-1] if each[-1] else 0.0
        usual = max([usual, *(after - before for before, after in zip([0.0, *each], each, strict=False))])
    counts = Counter(record["status"] for record in records)
    ahead = max(0, info.get("foreseen", 0) - len(records))
    steps = [
        (record["config"]["steps"], reached.get(record["member"], 0), record["status"] in ("running", "pending"))
        for record in records
    ]
    return RunStatus(
        name=info.get("name", run.resolve().name),
        counts={status: counts[status] for status in SHOWN},
        made=sum(made if going else planned for planned, made, going in steps),
        planned=sum(planned for planned, _, _ in steps) + ahead * (steps[0][0] if steps else 0),
        speed=speed,
        written=max([written, *(record["time"] for record in records)]),
        usual=usual,
        ahead=ahead,
        errors=dict(Counter(record["error"] for record in records if record["status"] == "failed").most_common()),
    )


def _read(run: Path) -> tuple[dict[str, list], float]:
    """Member, step and time of every row, and when they were written; without a file there are none."""
    try:
        table = read_histories(run, ("member", "step", "time_s"))
    except FileNotFoundError:
        return {"member": [], "step": [], "time_s": []}, 0.0
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{run / HISTORIES} cannot be read ({first_line(error)}): copy it again") from error
    return table.to_pydict(), json.loads((table.schema.metadata or {}).get(WRITTEN, b"0"))


def sentences(status: RunStatus, run: Path, now: float) -> list[str]:
    """What is to be said at this time, one line each."""
    counts = ", ".join(f"{count} {name}" for name, count in status.counts.items() if count) or "no members yet"
    share = status.made / status.planned if status.planned else 0.0
    parts = [f"{share:.0%}", counts, *([f"{status.ahead} to be proposed"] if status.ahead else [])]
    silence = max(0.0, now - status.written)
    again = f"dr3-ray sweep --resume {run} goes on"
    said = []
    if status.counts["running"]:
        if status.left is not None:
            parts += [f"{status.speed:,.0f} updates/s", f"{duration(status.left)} left"]
        parts.append(f"written {duration(silence)} ago")
        if silence > max(SILENT, TIMES * status.usual):
            said.append(f"nothing was written for {duration(silence)}: if the sweep was stopped, {again}")
    elif not status.over:
        said.append(f"nothing is running: it is starting, or it was stopped and {again}")
    said += [f"{count} failed: {error}" for error, count in status.errors.items()]
    return [" · ".join(parts), *said]


def status_view(status: RunStatus, run: Path, now: float) -> Group:
    """The status as people read it."""
    table = Table.grid(padding=(0, 2))
    table.add_row(f"[bold]{escape(status.name)}", ProgressBar(max(1, status.planned), status.made, width=40))
    return Group(table, *(escape(line) for line in sentences(status, run, now)))


def watch(run: Path, console: Console, pause: Callable[[float], None] = time.sleep) -> None:
    """Show the status until no member is running or waiting; outside a terminal, a line for every change."""
    status, shown = read_status(run), ""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not status.over:
            if console.is_terminal:
                live.update(status_view(status, run, time.time()), refresh=True)
            elif (line := sentences(status._replace(written=time.time()), run, time.time())[0]) != shown:
                console.print(shown := line, soft_wrap=True, highlight=False, markup=False)
            pause(EVERY)
            status = read_status(run)
    console.print(status_view(status, run, time.time()), soft_wrap=True, highlight=False)
