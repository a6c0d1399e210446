"""The lock of a run directory: who writes in it holds its index, in this process and on this machine."""

import fcntl
import os
from pathlib import Path

from dr3_ray.errors import UserError


def lock(index: Path) -> int:
    """Open the index of a run directory, made if it is not there, and lock it until the descriptor is closed.

    Raises:
        UserError: somebody else has it locked.
        OSError: it cannot be opened.
    """
    while True:
        file = os.open(index, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)  # a link may lead anywhere
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(index)):
                return file
        except FileNotFoundError:  # as below
            pass
        except BlockingIOError:
            os.close(file)
            run = index.parent
            raise UserError(f"a sweep is running in {run}: wait for its end, or use another directory") from None
        os.close(file)  # it was replaced before it was locked: the lock of the old file keeps nobody out


def is_locked(index: Path) -> bool:
    """Return whether somebody writes in the run directory of an index; nobody where there is none."""
    if not index.is_file():
        return False
    try:
        os.close(lock(index))
    except UserError:
        return True
    return False
