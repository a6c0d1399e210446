"""The schedule of a population on disk: one line for each member and interval, as it comes."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from dr3_ray.stores import content_of

SCHEDULE = "schedule.jsonl"
RESULTS = "trials/*/result.json"  # what Tune writes of every trial, a line for each interval

Entry = dict[str, Any]


class Measured(BaseModel, strict=True):
    """What the report shows of a member's measurements; whatever else was measured may be anything."""

    episode_return_mean: float | None = None
    dot_product: float | None = None


class Line(BaseModel, strict=True):
    """The types of an entry's fields."""

    member: Annotated[str, Field(min_length=1)]
    step: Annotated[int, Field(ge=0, lt=2**53)]
    measured: Measured
    copied_from: str
    numbers: dict[str, float]


def run_of(trial: Any) -> Path:
    """Return the directory of the population that a trial belongs to, wherever it was moved."""
    return Path(trial.storage.storage_fs_path)


def checkpoint_in(trials: Path, path: str) -> Path:
    """Return where a member's checkpoint lies in the folder of all trials, wherever that was when it was written."""
    moved = trials.joinpath(*Path(path).parts[-2:])
    return moved if moved.exists() else Path(path)


def entry(trial: Any, result: dict[str, Any]) -> Entry:
    """Return the line of the schedule for a member's result."""
    kept = {"member": str(trial), "step": result["num_updates"], "measured": result["members"]["000"]}
    return kept | {name: result[name] for name in ("copied_from", "numbers")}


def entries(path: Path) -> Iterator[Entry]:
    """Yield all lines of the file that are whole: a driver may be killed while it writes one."""
    return filter(is_entry, _lines(path))


def is_entry(line: Entry) -> bool:
    """Return whether every field of a line of the schedule has its type."""
    try:
        Line.model_validate(line)
    except ValidationError:
        return False
    return True


def known(run: Path) -> list[Entry]:
    """Return the last entry of every member and interval; where a line is lost, by Tune's results."""
    schedule: dict[tuple[str, int], Entry] = {}
    for file in run.glob(RESULTS):
        for result in _lines(file):
            try:
                row = entry(file.parent.name, result)
            except (KeyError, TypeError):
                continue
            if is_entry(row):
                schedule[row["member"], row["step"]] = row
    if (run / SCHEDULE).exists():
        schedule |= {(entry["member"], entry["step"]): entry for entry in entries(run / SCHEDULE)}
    return list(schedule.values())


def lacking(schedule: Iterable[Entry]) -> int:
    """Count the intervals that are not known, though later ones of the same member are."""
    steps: dict[str, set[int]] = {}
    for entry in schedule:
        steps.setdefault(entry["member"], set()).add(entry["step"])
    every = set().union(*steps.values())
    return sum(step not in own for own in steps.values() for step in every if step < max(own))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in content_of(path).splitlines():
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            yield document
