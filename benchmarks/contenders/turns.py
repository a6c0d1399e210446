"""A contender makes so many gradient updates for every line that it reads, and answers what they took."""

import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

MARK = "TOOK "  # before an answer, because some contenders print as they go


def asked() -> dict[str, Any]:
    """Return what this process is asked for, in its only argument; see the script that starts it."""
    return json.loads(sys.argv.pop())  # some of them read the command line themselves


def load(file: Path, absent: tuple[str, ...]) -> ModuleType:
    """Return a peer's file as a module; packages that it imports and does not need to train are stood in for."""
    sys.modules |= {name: MagicMock() for name in absent}
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    sys.modules[file.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seconds(work: Callable[[], object]) -> dict[str, float]:
    """Return seconds of wall time and of this process's CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def take_turns(
    update: Callable[[int], object],
    parts: dict[str, Callable[[], object]] | None = None,
    facts: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Answer each line `n` with {"updates": n, "wall": s, "cpu": s} of `update(n)`, which returns when they are made.

    Each of the `parts` is timed once more on its own, under its name; `facts` are added as they are, and `peak_mib`,
    the most memory that the process has had.
    """
    for line in sys.stdin:
        n = int(line)
        took: dict[str, Any] = {"updates": n} | seconds(lambda n=n: update(n))
        took |= {name: seconds(part) for name, part in (parts or {}).items()} | facts()
        took["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(MARK + json.dumps(took), flush=True)
