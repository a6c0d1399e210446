"""Files, paths and URIs of folders and object stores, and patience with a store that does not answer for a while."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow.fs as pafs

T = TypeVar("T")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PATIENCE = 600.0  # seconds, for which a trial waits for a store
LONGEST_PAUSE = 20.0
# what object stores say when they may well answer later; anything else, such as a wrong key, will not get better
AWAY = ("NETWORK_CONNECTION", "SLOW_DOWN", "UNAVAILABLE", "INTERNAL_FAILURE", "THROTTLING", "TIMEOUT", "HTTP status 5")


def is_uri(source: str) -> bool:
    """Whether it is `scheme://…` rather than a path of this machine."""
    return "://" in source


def absolute(source: str) -> str:
    """A data set, path or URI that means the same in every folder of this machine."""
    return source if source.startswith("embedded:") or is_uri(source) else str(Path(source).resolve())


def below(store: str, *names: str) -> str:
    """The URI of what lies in an absolute path or URI under these names; the options of a URI stay."""
    root, mark, options = (store if is_uri(store) else Path(store).as_uri()).partition("?")
    return "/".join((root.rstrip("/"), *names)) + mark + options


def open_store(store: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and the path in it. OSError, ValueError: it cannot be used."""
    filesystem, root = pafs.FileSystem.from_uri(absolute(store))
    return filesystem, root.rstrip("/")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file of this machine as a whole or not at all. OSError: it is as it was."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def patiently(work: Callable[[], T]) -> T:
    """What `work` returns: it is tried again as long as its store does not answer. OSError: of another kind, or still.

    So that what a trial has learned is not given up for a store that is away for some minutes.
    """
    end, pause = time.monotonic() + PATIENCE, 1.0
    while True:
        try:
            return work()
        except OSError as error:
            if not any(word in str(error) for word in AWAY) or time.monotonic() >= end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
