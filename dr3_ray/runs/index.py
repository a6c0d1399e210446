"""The index of a run directory: what is known of each member, one JSON line for every change.

Lines are only ever appended; the last one of a member holds, and the first one alone has its configuration. A line that
a crash cut short is ignored.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from dr3_ray.errors import UserError
from dr3_ray.process.stopping import resuming
from dr3_ray.runs.identity import but_for_length, goes_on
from dr3_ray.runs.lock import lock
from dr3_ray.runs.records import Status, check_line
from dr3_ray.stores import append, aside, content_of, read_bytes, replace_file, replacing, synchronize
from dr3_ray.trust.text import printable_json

INDEX = "index.jsonl"
FETCHED = ".fetched"  # in a directory that is a copy of a run, which a later one may replace: what brought it
BEFORE = ("run.json", "keys.json")  # what is in a run directory before there is an index

MOST = 5  # numbers of damaged lines that are told
FINAL = ("finished", "diverged", "cut")  # training is deterministic: what diverged would diverge again
LOST = ("failed", "diverged")  # statuses of members that have no result
Record = dict[str, Any]


def read_index(run: str | os.PathLike[str]) -> list[Record]:
    """Return the last record of every member of a run directory, in the order in which the members were first named.

    A record is {"member", "status", "config", "error", "pack", "time"}; `pack` is the one that the member was last
    trained in. A member that has ended has its `end`, too: the step of its last row. A run that is about to begin has
    no records.

    Raises:
        UserError: the index is damaged, or lost.
    """
    path = Path(run) / INDEX
    if is_lost(path):
        raise UserError(f"{path} is {'empty' if path.exists() else 'missing'}: {repair(run, 'rebuilds it')}")
    records, damaged = _records(read_bytes(path), {})
    if damaged:
        raise UserError(f"{path} is damaged at {_lines(damaged)}: {repair(run, 'mends it')}")
    return list(records.values())


def longer_twins(records: Iterable[Record]) -> dict[str, str]:
    """Return, of each member that a longer one takes up, the longest such; see `identity.goes_on`."""
    records = list(records)
    if len({record["config"].get("steps") for record in records}) < 2:
        return {}
    kinds: dict[str, list[Record]] = {}
    for record in records:
        kinds.setdefault(but_for_length(record["config"]), []).append(record)
    twins_of: dict[str, str] = {}
    for twins in kinds.values():
        twins.sort(key=lambda record: record["config"].get("steps", 0))
        for place, shorter in enumerate(twins):
            for longer in twins[place + 1 :]:
                if goes_on(shorter["config"], longer["config"]):
                    twins_of[shorter["member"]] = longer["member"]
    return twins_of


def check_members(run: Path, records: Collection[Record]) -> None:
    """Check that a run has members.

    Raises:
        UserError: it has none.
    """
    if not records:
        raise UserError(f"{run} has no member in its index.jsonl: no sweep got as far as starting there, run it again")


def lost(statuses: Iterable[str]) -> str:
    """Return how many members were lost, by status, where all were: `2 failed`; else nothing."""
    counts = Counter(statuses)
    return " and ".join(f"{counts[name]} {name}" for name in counts) if counts.keys() <= {*LOST} else ""


def current(records: Iterable[Record]) -> list[Record]:
    """Return the records without those of members that a longer one has taken up, whose rows hold theirs.

    A member that has ended stays until the longer one has, too.
    """
    known = {record["member"]: record for record in records}
    gone = set()
    for shorter, longer in longer_twins(known.values()).items():
        over, status = known[shorter]["status"] in FINAL, known[longer]["status"]
        if status in FINAL or (not over and status == "running"):
            gone.add(shorter)
    return [record for member, record in known.items() if member not in gone]


def is_lost(index: Path) -> bool:
    """Return whether the index of a run directory is gone or empty, and not still to come."""
    if not index.parent.is_dir() or (index.exists() and (index.is_dir() or index.stat().st_size > 0)):
        return False
    known = (*BEFORE, index.name)
    return any(not name.startswith(".") and name not in known for name in os.listdir(index.parent))


def is_hurt(index: Path) -> bool:
    """Return whether the index of a run directory is lost, or has damaged lines."""
    return is_lost(index) or bool(_records(read_bytes(index), {})[1])


def repair(run: str | os.PathLike[str], does: str) -> str:
    """Return the command for a damaged file of a run directory, and what it `does`; a copy is fetched anew."""
    return brought_again(run) or f"`{resuming(Path(run))}` {does}"


def brought_again(run: str | os.PathLike[str]) -> str:
    """Return the command that brings a copy of a run again; empty for a run directory that is no copy."""
    fetched = Path(run) / FETCHED
    if not fetched.exists():
        return ""
    command = content_of(fetched).decode(errors="replace").strip()
    return f"`{command}` brings it again" if command else "this is a copy, fetch it again"


def _lines(numbers: list[int]) -> str:
    """Write `line 3, 4, 5 and 20 more`."""
    more = f" and {len(numbers) - MOST} more" if len(numbers) > MOST else ""
    return f"line {', '.join(map(str, numbers[:MOST]))}{more}"


def readable(run: Path) -> list[Record]:
    """Return the last records as far as they can be read."""
    path = run / INDEX
    return list(_records(read_bytes(path), {})[0].values())


def _records(content: bytes, configs: Mapping[str, dict[str, Any]]) -> tuple[dict[str, Record], list[int]]:
    """Return the last records by member, and the numbers of the lines without a record.

    These are damaged, or need a configuration that is lost. `configs` are those that are known from elsewhere. A last
    line without its end was cut short by a crash; if it can be read it counts, and else it was never written.
    """
    records: dict[str, Record] = {}
    damaged: list[int] = []
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            record = printable_json(line)
            check_line(record)
            known = records.get(record["member"])
            config = known["config"] if known else record["config"] if "config" in record else configs[record["member"]]
            records[record["member"]] = {"error": None, "pack": None, "time": 0.0, **record, "config": config}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            if number < len(lines) or line.endswith(b"\n"):
                damaged.append(number)
    return records, damaged


def knows_more(index: bytes, other: bytes) -> bool:
    """Return whether an index has members that another one lacks, or later records of them.

    Damaged lines and lines that were cut short do not count, and neither does how a line is written down.
    """
    ours, theirs = _records(index, {})[0], _records(other, {})[0]
    return any(member not in theirs or record["time"] > theirs[member]["time"] for member, record in ours.items())


class Index:
    """The one writer of a run directory's index, while it is open.

    A damaged index is put aside, and goes on without its damaged lines: what these said of a member is what the lines
    before them said, with its configuration from `configs`, or what is later in the index that `kept` brings from
    elsewhere. So does one that was lost. `say` is told.

    Raises:
        UserError: another process has it open.
    """

    def __init__(
        self,
        run: Path,
        configs: Mapping[str, dict[str, Any]] = MappingProxyType({}),
        say: Callable[[str], None] = lambda text: None,
        kept: Callable[[], bytes] = lambda: b"",
    ) -> None:
        path = run / INDEX
        how = "empty" if path.exists() else "missing"
        # the copy counts before there was anything else to tell by
        lost = how if is_lost(path) or (not path.exists() and kept()) else ""
        self._file = lock(path)
        try:
            synchronize(run)
            self._take_up(path, lost, configs, say, kept)
        except BaseException:
            if lost:
                path.unlink(missing_ok=True)  # an empty one would hide that it is lost
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def status(self, member: str) -> Status | None:
        """Return the last status of a member; None if it was never named."""
        return self.records[member]["status"] if member in self.records else None

    def write(
        self,
        members: Iterable[str],
        status: Status,
        *,
        error: str | None = None,
        pack: str | None = None,
        configs: dict[str, dict[str, Any]] | None = None,
        end: int | None = None,
    ) -> None:
        """Append one record for each member; a member that is new needs its configuration in `configs`.

        Without `pack` it stays in the one that it was in. Members that have ended have their last row at step `end`.
        """
        now = round(time.time(), 3)
        lines: list[str] = []
        records: dict[str, Record] = {}
        for member in members:
            known = self.records.get(member)
            line: Record = {"member": member, "status": status}
            if known is None:
                line["config"] = (configs or {})[member]
            line |= {"error": error, "pack": pack or (known or {}).get("pack"), "time": now}
            line |= {} if end is None else {"end": end}
            lines.append(json.dumps(line) + "\n")
            records[member] = {"config": known["config"], **line} if known else line
        try:
            append(self._file, "".join(lines).encode())
        except Exception:
            raise
        except BaseException:  # a signal, which comes behind the write, too: what is there is not written again
            self.records |= records
            raise
        self.records |= records

    def _take_up(
        self,
        path: Path,
        lost: str,
        configs: Mapping[str, dict[str, Any]],
        say: Callable[[str], None],
        kept: Callable[[], bytes],
    ) -> None:
        """Read the records, and leave a file to which whole lines can be appended."""
        content = path.read_bytes()
        self.records, damaged = _records(content, configs)
        if damaged or lost:
            later = {
                member: record
                for member, record in _records(kept(), configs)[0].items()
                if member not in self.records or record["time"] >= self.records[member]["time"]
            }
            self.records |= later
            copy = "from the copy in the storage" if later else "from the checkpoints, where there are some"
        if lost:
            say(f"{path} was {lost}: it goes on {copy}")
            if later:
                self._renew(path, b"")
        elif damaged:
            order = [*(member for member in configs if member in self.records), *self.records]
            self.records = {member: self.records[member] for member in order}  # by which packs have their names
            self._renew(path, content)
            say(
                f"{path} was damaged at {_lines(damaged)}, and goes on "
                f"{copy if later else 'without'}: what was there is kept beside"
            )
        else:
            self._mend(content)

    def _renew(self, path: Path, content: bytes) -> None:
        """Put the index aside, and go on with a new file of the records that could be read."""
        with replacing(path) as partial:
            lines = "".join(json.dumps(record) + "\n" for record in self.records.values())
            partial.write_text(lines)
            file = lock(partial)
            if content:
                replace_file(aside(path), content)
        os.close(self._file)
        self._file = file

    def _mend(self, content: bytes) -> None:
        """End the file with a whole line, so that the next one starts on its own."""
        end = content.rfind(b"\n") + 1
        if end == len(content):
            return
        try:
            json.loads(content[end:])
        except ValueError:
            os.ftruncate(self._file, end)
        else:
            append(self._file, b"\n")
