"""A contender makes so many gradient updates for every line that it reads, and answers what they took."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

MARK = "TOOK "  # before an answer, because some contenders print as they go


def asked() -> dict[str, Any]:
    """What this process is asked for, in its only argument; see `speed.py`."""
    return json.loads(sys.argv.pop())  # some of them read the command line themselves


def take_turns(update: Callable[[int], object]) -> None:
    """Answer each line `n` with {"wall": s, "cpu": s} of n updates; `update(n)` returns when they are made."""
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        update(int(line))
        took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(MARK + json.dumps(took), flush=True)
