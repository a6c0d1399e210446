"""How a sweep is doing, from its run directory alone: while it runs, after a crash, or in a copy on another machine."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from dr3_ray.process.stopping import resuming
from dr3_ray.runs.directory import check_run, read_run
from dr3_ray.runs.health import READ, Flag, flag_sentences, health_of
from dr3_ray.runs.histories import WRITTEN, histories_of, lacks_rows, rows_are_lost
from dr3_ray.runs.index import FINAL, Record, current, longer_twins, read_index
from dr3_ray.runs.records import Status

SHOWN: tuple[Status, ...] = ("finished", "running", "pending", "cut", "diverged", "failed")
EVERY = 2.0  # seconds between two looks
SILENT, TIMES = 120.0, 5.0  # seconds without a line, and how many times as long as usual, are worth a word


class RunStatus(NamedTuple):
    """A summary of the files of a run directory; updates are those of all members together."""

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
    """`failed: REASON`, or another status with its reason or what is waited for, and how many members of each."""
    lacking: int
    """Members that have ended without rows up to their end."""
    flags: dict[str, list[Flag]]
    """What is wrong with members, by member; those that diverged are among the counts."""

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
    check_run(run)
    info, known = read_run(run), read_index(run)
    records = current(known)
    columns = ("member", "step", "time_s")
    table = histories_of(run, (*columns, *READ), any(record["status"] in FINAL for record in known))
    histories = table.select([name for name in columns if name in table.column_names]).to_pydict()
    written = json.loads((table.schema.metadata or {}).get(WRITTEN, b"0"))
    reached: dict[str, int] = {}
    times: dict[str, list[float]] = {}
    taken = histories.get("time_s") or [0.0] * len(table)
    for member, step, seconds in zip(histories["member"], histories["step"], taken, strict=True):
        reached[member] = max(reached.get(member, 0), step)
        times.setdefault(member, []).append(seconds)
    packs: dict[str, list[Record]] = {}
    for record in records:
        if record["status"] == "running" and record["member"] in reached:
            packs.setdefault(record["pack"], []).append(record)
    speed = usual = 0.0
    for pack in packs.values():
        moments = sorted(times[pack[0]["member"]])
        speed += sum(reached[record["member"]] for record in pack) / moments[-1] if moments[-1] else 0.0
        usual = max([usual, *(after - before for before, after in zip([0.0, *moments], moments, strict=False))])
    healths = health_of(
        table, [record for record in records if record["status"] != "diverged"], info.get("rewards", {})
    )
    counts = Counter(record["status"] for record in records)
    ahead = max(0, info.get("foreseen", 0) - len(known))
    twins = longer_twins(known)
    begun = dict(reached)  # a longer member has made what the shorter one has
    for shorter, longer in twins.items():
        begun[longer] = max(begun.get(longer, 0), reached.get(shorter, 0))
    steps = [
        (record["config"].get("steps", 0), begun.get(record["member"], 0), record["status"] in ("running", "pending"))
        for record in records
        if record["member"] not in twins
    ]
    return RunStatus(
        name=info.get("name", run.resolve().name),
        counts={status: counts[status] for status in SHOWN},
        made=sum(made if going else planned for planned, made, going in steps),
        planned=sum(planned for planned, _, _ in steps) + ahead * (steps[0][0] if steps else 0),
        speed=speed,
        written=max([written, *(record["time"] for record in known)]),
        usual=usual,
        ahead=ahead,
        errors=dict(
            Counter(
                _told(record)
                for record in records
                if record["error"] and record["status"] in ("failed", "running", *FINAL)
            ).most_common()
        ),
        lacking=sum(lacks_rows(record, reached) for record in records),
        flags={member: flags.flags for member, flags in healths.items() if flags.flags},
    )


def sentences(status: RunStatus, run: Path, now: float) -> list[str]:
    """Return the sentences about a run at this time, one line each."""
    counts = ", ".join(f"{count} {name}" for name, count in status.counts.items() if count) or "no members yet"
    share = status.made / status.planned if status.planned else 0.0
    parts = [f"{share:.0%}", counts, *([f"{status.ahead} to be proposed"] if status.ahead else [])]
    silence = max(0.0, now - status.written)
    again = f"{resuming(run)} goes on"
    said = []
    if status.counts["running"]:
        if status.left is not None:
            parts += [f"{status.speed:,.0f} updates/s", f"{duration(status.left)} left"]
        parts.append(f"written {duration(silence)} ago")
        if silence > max(SILENT, TIMES * status.usual):
            said.append(f"nothing was written for {duration(silence)}: if the sweep was stopped, {again}")
    elif not status.over:
        said.append(f"nothing is running: it is starting, or it was stopped and {again}")
    if status.lacking:
        said.append(rows_are_lost(status.lacking, run))
    said += [f"{count} {error}" for error, count in status.errors.items()]
    said += flag_sentences(status.flags, sum(status.counts.values()))
    return [" · ".join(parts), *said]


def _told(record: Record) -> str:
    """Return what went wrong; of a member that is running, what it waits for."""
    if record["status"] != "running":
        return f"{record['status']}: {record['error']}"
    return f"running: member {record['member']}: {record['error']}: it is waited for"


def status_view(status: RunStatus, run: Path, now: float) -> Group:
    """Return the status as people read it."""
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


def duration(seconds: float) -> str:
    """Format seconds as `1:23`, or `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
