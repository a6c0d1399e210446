"""The folder in which this machine keeps its copies of data sets, and who may write to it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dr3_ray.errors import UserError
from dr3_ray.process.folders import CACHE, cache_home


def cache_folder() -> Path:
    """Return where this machine keeps its copies: `$DR3_RAY_CACHE/data`, by default below ~/.cache/dr3-ray."""
    return cache_home() / "data"


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
