"""A disk without room, as this process sees it."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file that is written here, or by processes that start here, grow beyond `size` bytes.

    Python writes no bytecode meanwhile: what is imported for the first time would stay in its folder cut off, and
    every later import of it would fail.
    """
    limits, writes = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    variable = os.environ.get(NO_BYTECODE)
    sys.dont_write_bytecode, os.environ[NO_BYTECODE] = True, "1"
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sys.dont_write_bytecode = writes
        if variable is None:
            del os.environ[NO_BYTECODE]
        else:
            os.environ[NO_BYTECODE] = variable
