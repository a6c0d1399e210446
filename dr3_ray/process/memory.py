"""How much memory a process may use: the machine's, or less where a control group of Linux has a limit.

And how often Python looks for what it may give back.
"""

import atexit
import gc
import os
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
NO_LIMIT = 2**60  # bytes; version 1 says the largest number of pages where there is none
NEW = (20_000, 5, 5)  # objects, and searches among them, before Python looks for cycles; its own are 700, 10 and 10


def memory_limit(groups: Path = GROUPS, own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return how many bytes of memory this process may use, with the pages of files; None: not known.

    Args:
        groups: where control groups are mounted, of either version.
        own: the file that says in which groups the process is.
    """
    limits = [_number(path) for path in _limits(groups, own)]
    with suppress(ValueError, OSError, AttributeError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((limit for limit in limits if limit is not None and limit < NO_LIMIT), default=None)


def seldom_search_for_cycles() -> None:
    """Have this process look for cycles of garbage less often, and not at its end.

    torch and Ray make a million objects that stay. Python would search them while it imports, a sixth of the CPU time
    of `import dr3_ray.rllib`, and once more when it ends, as much again.
    """
    if gc.get_threshold() != NEW:
        gc.set_threshold(*NEW)
        atexit.register(gc.freeze)


def _limits(groups: Path, own: Path) -> list[Path]:
    """Return the files with the limits of the process's groups and of those around them."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    paths = []
    for line in lines:
        if len(line) < 3 or (line[1] and "memory" not in line[1].split(",")):
            continue
        top, name = (groups / "memory", "memory.limit_in_bytes") if line[1] else (groups, "memory.max")
        inside = Path(line[2].lstrip("/"))
        paths += [top / folder / name for folder in (inside, *inside.parents)]
    return paths


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # `max`, or a group that is not visible from within a container
        return None
