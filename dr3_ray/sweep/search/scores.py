"""What configurations are worth: the last measurements of their members, once all of these have ended."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dr3_ray.runs.histories import histories_of
from dr3_ray.runs.index import FINAL, Record
from dr3_ray.runs.records import Status
from dr3_ray.sweep.spec.objective import Criterion

ENDED = (*FINAL, "failed")


class Answer(NamedTuple):
    """An answer to a searcher about a configuration: its scores, none if a member was lost; whether one failed."""

    scores: dict[str, float] | None
    failed: bool


class MemberScores:
    """Last measurements of members, and how these ended; it listens to the rows of a sweep."""

    def __init__(
        self, objectives: Sequence[Criterion], records: Iterable[Record] = (), run: Path | None = None
    ) -> None:
        """Take up a sweep that goes on by its `records` and `run`; members that failed there are tried again."""
        self._objectives = objectives
        self._ended: dict[str, Status] = {
            record["member"]: record["status"] for record in records if record["status"] in FINAL
        }
        self._last = {} if run is None else _last_rows(run, [objective.metric for objective in objectives])

    def row(self, member: str, step: int, measured: Mapping[str, Any]) -> None:
        """Take a row of a member."""
        self._last[member] = {
            objective.metric: float(measured.get(objective.metric, math.nan)) for objective in self._objectives
        }

    def end(self, members: Iterable[str]) -> None:
        """Do nothing: the end of rows has no status, which `close` is told."""

    def close(self, members: Iterable[str], status: Status) -> None:
        """Note that these members have this status."""
        self._ended |= dict.fromkeys(members, status) if status in ENDED else {}

    def ended(self, members: Iterable[str]) -> bool:
        """Return whether all of these members have ended, in whatever way."""
        return all(member in self._ended for member in members)

    def answer(self, members: Sequence[str]) -> Answer:
        """Return the answer about a configuration whose members, one a seed, have ended."""
        statuses = {self._ended[member] for member in members}
        if statuses == {"finished"}:
            values: dict[str, float] = {
                objective.metric: objective.score(
                    [self._last.get(member, {}).get(objective.metric, math.nan) for member in members]
                )
                for objective in self._objectives
            }
            return Answer(values if all(map(math.isfinite, values.values())) else None, failed=False)
        return Answer(None, failed="failed" in statuses and not statuses & {*FINAL} - {"finished"})


def _last_rows(run: Path, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the measurements of every member's last evaluation."""
    rows: dict[str, dict[str, Any]] = {}
    for row in histories_of(run, ("member", "step", *metrics), ended=False).to_pylist():
        if row["step"] >= rows.get(row["member"], row)["step"]:
            rows[row["member"]] = row
    return {
        member: {name: math.nan if row.get(name) is None else row[name] for name in metrics}
        for member, row in rows.items()
    }
