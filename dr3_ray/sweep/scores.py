"""What configurations are worth: the last measurements of their members, once all of these have ended."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dr3_ray.sweep.histories import HISTORIES, read_histories
from dr3_ray.sweep.index import FINAL, Record, Status
from dr3_ray.sweep.objective import Objective

ENDED = (*FINAL, "failed")


class Answer(NamedTuple):
    """What a searcher is told of a configuration: its scores; none if a member was lost; whether one failed."""

    scores: dict[str, float] | None
    failed: bool


class Scores:
    """Last measurements of members, and how these ended; it listens to the rows of a sweep."""

    def __init__(
        self, objectives: Sequence[Objective], records: Iterable[Record] = (), run: Path | None = None
    ) -> None:
        """`records` and `run` are those of a sweep that goes on; what failed there is tried again."""
        self._objectives = objectives
        self._ended: dict[str, Status] = {
            record["member"]: record["status"] for record in records if record["status"] in FINAL
        }
        self._last = {} if run is None else _last_rows(run, [each.metric for each in objectives])

    def row(self, member: str, step: int, measured: Mapping[str, Any]) -> None:
        """A row of a member."""
        self._last[member] = {each.metric: float(measured.get(each.metric, math.nan)) for each in self._objectives}

    def end(self, members: Iterable[str]) -> None:
        """No further rows."""

    def close(self, members: Iterable[str], status: Status) -> None:
        """These members have this status."""
        self._ended |= dict.fromkeys(members, status) if status in ENDED else {}

    def ended(self, members: Iterable[str]) -> bool:
        """Whether all of these members have ended, in whatever way."""
        return all(member in self._ended for member in members)

    def answer(self, members: Sequence[str]) -> Answer:
        """What is to be said of a configuration whose members, one a seed, have ended."""
        statuses = {self._ended[member] for member in members}
        if statuses == {"finished"}:
            values: dict[str, float] = {
                each.metric: each.score([self._last.get(member, {}).get(each.metric, math.nan) for member in members])
                for each in self._objectives
            }
            return Answer(values if all(map(math.isfinite, values.values())) else None, failed=False)
        return Answer(None, failed="failed" in statuses and not statuses & {*FINAL} - {"finished"})


def _last_rows(run: Path, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """The measurements of every member's last evaluation."""
    if not (run / HISTORIES).exists():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for row in read_histories(run, ("member", "step", *metrics)).to_pylist():
        if row["step"] >= found.get(row["member"], row)["step"]:
            found[row["member"]] = row
    return {
        member: {name: math.nan if row.get(name) is None else row[name] for name in metrics}
        for member, row in found.items()
    }
