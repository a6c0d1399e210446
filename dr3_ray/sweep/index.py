"""The index of a run directory: what is known of each member, one JSON line for every change.

Lines are only ever appended; the last one of a member holds, and the first one alone has its configuration. A line that
a crash cut short is ignored.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from dr3_ray.errors import UserError

INDEX = "index.jsonl"

Status = Literal["pending", "running", "finished", "failed", "diverged", "cut"]
FINAL = ("finished", "diverged", "cut")  # training is deterministic: what diverged would diverge again
Record = dict[str, Any]


def read_index(run: str | os.PathLike[str]) -> list[Record]:
    """The last record of every member of a run directory, in the order in which the members were first named.

    A record is {"member", "status", "config", "error", "pack", "time"}; `pack` is the one that the member was last
    trained in. No index, no records. UserError: damaged.
    """
    path = Path(run) / INDEX
    lines = path.read_bytes().splitlines() if path.exists() else []
    records: dict[str, Record] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            known = records.get(record["member"])
            records[record["member"]] = record | {"config": known["config"] if known else record["config"]}
        except (ValueError, TypeError, KeyError):
            if number < len(lines):
                raise UserError(f"{path} is damaged at line {number}: remove that line, or the directory") from None
    return list(records.values())


class Index:
    """The one writer of a run directory's index, while it is open. UserError: another process has it open."""

    def __init__(self, run: Path) -> None:
        path = run / INDEX
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise UserError(f"a sweep is running in {run}: wait for its end, or use another directory") from None
        self.records = {record["member"]: record for record in read_index(run)}
        self._mend(path.read_bytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def status(self, member: str) -> Status | None:
        """The last status of a member; None if it was never named."""
        return self.records[member]["status"] if member in self.records else None

    def write(
        self,
        members: Iterable[str],
        status: Status,
        *,
        error: str | None = None,
        pack: str | None = None,
        configs: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """Append one record for each member; a member that is new needs its configuration in `configs`.

        Without `pack` it stays in the one that it was in.
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
            lines.append(json.dumps(line) + "\n")
            records[member] = {"config": known["config"], **line} if known else line
        self._append("".join(lines).encode())
        self.records |= records

    def _append(self, lines: bytes) -> None:
        """All of it or nothing: a full disk must not leave half a line in the middle of the file."""
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            while lines:
                lines = lines[os.write(self._file, lines) :]
        except OSError:
            os.ftruncate(self._file, end)
            raise

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
            self._append(b"\n")
