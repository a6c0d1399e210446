"""What killed processes leave on this machine: whoever writes a data set anywhere says so in the cache's folder."""

import fcntl
import os
import re
import shutil
import socket
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from dr3_ray.data.machine import alone, cache_folder, entries
from dr3_ray.data.schema import MANIFEST, PARTIAL, Manifest
from dr3_ray.errors import UserError

COPY = re.compile(r"\.copy-([0-9a-f]{64})[-.].+")  # a directory to which a data set is being copied
WRITING = ".writing-"  # a file that names a directory to which a data set is being written, locked by who writes
PARTIAL_PATH = re.compile(rf"/(.*/)?\.[^/]*[0-9a-f]{{8}}{re.escape(PARTIAL)}")  # what may be removed


class Leftover(NamedTuple):
    """A directory that an interrupted process left, and the file in the cache that tells of it, or itself."""

    path: Path
    told: Path


def leftovers() -> list[Leftover]:
    """Return what interrupted copies and imports left on this machine; nothing that a living process writes."""
    known, busy = [], set[Path]()
    for path in entries():
        with suppress(OSError):
            if (copy := COPY.fullmatch(path.name)) and path.is_dir():
                with alone(copy[1], wait=False):
                    known.append(Leftover(path, path))
            elif path.name.startswith(WRITING):
                with open(path, encoding="utf-8", errors="replace") as told:
                    free = _is_free(told)
                    host, _, written = told.read().partition("\n")
                if not free:
                    busy.add(Path(written))
                elif not host or (host == socket.gethostname() and PARTIAL_PATH.fullmatch(written)):
                    known.append(Leftover(Path(written or path), path))
    return [left for left in known if left.path not in busy]


def _is_free(told: IO[str]) -> bool:
    """Return whether nobody living holds a file."""
    try:
        fcntl.flock(told, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def announce(path: Path) -> IO[str]:
    """Note in the cache that this process is writing to a directory, until the returned file is removed.

    Raises:
        OSError: there is no cache to write to.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for left in leftovers():
        if left.path == path and left.told != path:  # of a process that was killed, whose work goes on
            left.told.unlink(missing_ok=True)
    while True:
        file = open(folder / f"{WRITING}{uuid.uuid4().hex}", "w", encoding="utf-8")  # noqa: SIM115 - whoever writes closes it
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:  # nobody has pruned it before it was locked
            try:
                file.write(f"{socket.gethostname()}\n{path}")
                file.flush()
            except OSError:
                os.unlink(file.name)
                with suppress(OSError):
                    file.close()
                raise
            return file
        file.close()


def remove(left: Leftover) -> None:
    """Remove a directory, and the files that an import without a manifest had moved into an existing one."""
    with suppress(OSError, UserError):
        files = Manifest.read(left.path).files
        for entry in files if left.told != left.path and not (left.path.parent / MANIFEST).exists() else ():
            if not (left.path / entry.file).exists():
                (left.path.parent / entry.file).unlink(missing_ok=True)
    if left.path.is_dir():
        shutil.rmtree(left.path)
    left.told.unlink(missing_ok=True)
