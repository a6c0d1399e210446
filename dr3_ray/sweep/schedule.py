"""The schedule of a population on disk: one line for each member and interval, as it comes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEDULE = "schedule.jsonl"


def entry(trial: Any, result: dict[str, Any]) -> dict[str, Any]:
    """What the schedule keeps of a member's result."""
    kept = {"member": str(trial), "step": result["num_updates"], "measured": result["members"]["000"]}
    return kept | {name: result[name] for name in ("copied_from", "numbers")}


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """All lines of the file that are whole: a driver may be killed while it writes one."""
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue
