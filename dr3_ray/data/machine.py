"""The folder in which this machine keeps its copies of data sets, and who may write to it."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dr3_ray.errors import UserError
from dr3_ray.process.folders import CACHE, cache_home

LIMIT = "DR3_RAY_CACHE_LIMIT"
UNITS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def cache_folder() -> Path:
    """Return where this machine keeps its copies: `$DR3_RAY_CACHE/data`, by default below ~/.cache/dr3-ray."""
    return cache_home() / "data"


def cache_limit() -> int | None:
    """Return how many bytes of data sets are kept here, by `$DR3_RAY_CACHE_LIMIT`; None: as many as there are.

    Raises:
        UserError: that is no size.
    """
    asked = os.environ.get(LIMIT, "").strip()
    size = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?) ?([kMGT]?)B?", asked)
    if asked and not size:
        raise UserError(f"{LIMIT}={asked[:40]} is no size: write 50GB, say, or unset it to keep all")
    return int(float(size[1]) * UNITS[size[2]]) if size else None


def entries() -> list[Path]:
    """Return what is in the folder, by name.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return sorted(cache_folder().iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"the cache {cache_folder()} cannot be read ({error.strerror}): name another folder by {CACHE}"
        ) from None


@contextmanager
def alone(fingerprint: str, wait: bool = True) -> Iterator[None]:
    """Let one process of this machine in at a time; whoever dies lets the next one in.

    Raises:
        BlockingIOError: another one is in, without `wait`.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".lock-{fingerprint}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
