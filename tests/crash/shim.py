"""Records or disturbs what processes do to the files below a folder: a library that is loaded before libc.

Four modes, which may be joined, are chosen by the environment of the processes (workers inherit it):

    journal = tmp_path / "journal"  # outside of the folder that is watched
    env = os.environ | watched(run, journal)                              # record every operation with its contents
    env = os.environ | watched(run, journal, die_at=17)                   # the 17th kills its process (SIGKILL)
    env = os.environ | watched(run, journal, signal_at=17, signal=SIGTERM)  # the 17th sends its process a signal
    env = os.environ | watched(run, journal, full_at=17)                  # no room from the 17th on (ENOSPC)
    env = os.environ | watched(run, journal, full_at=17, full_for=5)      # … and again after five more
    subprocess.run([sys.executable, "-m", "dr3_ray", "sweep", …], env=env)
    operations = read_journal(journal)

All processes count together. What counts are creations, writes, truncations, renames, removals, links and
synchronisations; half of a write that kills its process is done. `count(journal)` is how many there were: draw the next
`die_at` below it. In a process that is watched, `mark("finished a")` says what it has acknowledged, at its place in the
journal. `tests/crash/replay.py` builds from a journal what a power cut may leave.

Not seen: writes to memory that is mapped, and those of C's own streams (fwrite); nothing of a sweep writes in these
ways. Synchronisations are recorded and not made, as the disk of a test need not wait for them.
"""

import ctypes
import functools
import hashlib
import os
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("shim.c")
HEAD = struct.Struct("<IIQqII")  # struct record


class Operation(NamedTuple):
    """One operation. Paths are relative to the folder; "" is the folder itself, or elsewhere."""

    kind: str
    """create, mkdir, write, truncate, rename, unlink, link, sync or mark."""
    inode: int
    path: str = ""
    """What is created, removed, renamed or linked; the text of a mark."""
    target: str = ""
    """What it is renamed to, or linked at."""
    offset: int = 0
    """Of a write; the size of a truncation."""
    content: bytes = b""
    """Of a write."""


KINDS = {
    "c": "create", "m": "mkdir", "w": "write", "t": "truncate", "r": "rename", "u": "unlink", "l": "link",
    "s": "sync", "!": "mark",
}  # fmt: skip


@functools.cache
def library() -> Path:
    """The library, compiled by gcc unless this version of it is there."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"dr3-crash-{os.getuid()}-{digest}.so"
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-o", str(partial), str(SOURCE)]
        subprocess.run([*command, "-ldl", "-lpthread"], check=True)
        partial.replace(path)
    return path


def watched(
    folder: Path,
    journal: Path,
    die_at: int | None = None,
    full_at: int | None = None,
    full_for: int | None = None,
    signal_at: int | None = None,
    signal: int | None = None,
) -> dict[str, str]:
    """Environment variables for processes whose work on `folder`, which exists, is to go to a new `journal`."""
    journal.unlink(missing_ok=True)
    journal.with_name(f"{journal.name}.shared").unlink(missing_ok=True)
    numbers = {"CRASH_DIE_AT": die_at, "CRASH_FULL_AT": full_at, "CRASH_FULL_FOR": full_for}
    numbers |= {"CRASH_SIGNAL_AT": signal_at, "CRASH_SIGNAL": signal and int(signal)}
    return {
        "LD_PRELOAD": str(library()),
        "CRASH_ROOT": str(folder.resolve(strict=True)),
        "CRASH_JOURNAL": str(journal.resolve()),
        **{name: str(value) for name, value in numbers.items() if value is not None},
    }


def mark(text: str) -> None:
    """Say in a watched process what is acknowledged; elsewhere nothing happens."""
    if "CRASH_JOURNAL" in os.environ:
        ctypes.CDLL(None).crash_mark(text.encode())


def count(journal: Path) -> int:
    """How many operations counted."""
    return int.from_bytes(journal.with_name(f"{journal.name}.shared").read_bytes()[-8:], "little")


def read_journal(journal: Path) -> list[Operation]:
    """All operations in order."""
    content, at, found = journal.read_bytes(), 0, []
    while at < len(content):
        size, kind, inode, offset, first, second = HEAD.unpack_from(content, at)
        body = content[at + HEAD.size : at + size]
        assert len(body) == first + second, "a record of the journal is not whole"
        one, other = body[:first], body[first:]
        if (name := KINDS[chr(kind)]) == "write":
            found.append(Operation(name, inode, offset=offset, content=one))
        else:
            found.append(Operation(name, inode, one.decode(), other.decode(), offset))
        at += size
    return found
