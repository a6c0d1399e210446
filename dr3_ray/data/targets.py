"""The directory that a data set is written to: all of it is there at once, or nothing.

Until then the files lie in a directory of their own, which the cache knows: what a killed process leaves behind can be
found and removed there.
"""

import fcntl
import glob
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dr3_ray.data.leftovers import announce
from dr3_ray.data.schema import MANIFEST, PARTIAL
from dr3_ray.errors import UserError
from dr3_ray.stores import synchronize
from dr3_ray.uris import NAMED, names_folder, path_here

NAME = 200  # bytes of a folder's name in that of the folder where its files lie first; both fit below 255


class Target:
    """A directory `path` to be written, new or empty; a link means where it leads.

    An empty directory stays the one that it is, a mount point say: the files move into it, the manifest last. Otherwise
    the directory appears as a whole. With a `purpose`, what a killed process wrote for the same is there again.
    """

    def __init__(self, path: str | os.PathLike[str], purpose: str | None = None) -> None:
        key = uuid.uuid4().hex if purpose is None else hashlib.sha256(purpose.encode()).hexdigest()
        name = self._name = f"{key[:8]}{PARTIAL}"
        self.path = check_target(path, arriving=f".{name}")
        self._into = os.path.isdir(self.path)
        self.partial = (
            self.path / f".{name}" if self._into else self.path.with_name(f".{_beginning(self.path.name)}.{name}")
        )
        self._told: IO[str] | None = None
        self._lock: int | None = None

    def open(self) -> bool:
        """Make the directory `partial`, to which the files are written; return whether all of them are there.

        Raises:
            UserError: another process is writing there, the same or something else; or the place takes no files.
        """
        try:
            self.partial.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.partial.parent, wait=True):  # of two that begin at once, one is the first
                self._refuse_others()
                with suppress(OSError, UserError):  # a home that cannot be written is no reason to write nothing
                    self._told = announce(self.partial)  # first: whatever is made here is known, whenever this ends
                self.partial.mkdir(exist_ok=True)
                self._lock = _lock(self.partial)
        except OSError as error:  # what nobody can see before: too long a name, or a file system of the kernel's
            self._take_back()
            raise UserError(f"cannot write {self.path}: {error.strerror}, so choose another place") from None
        return (self.partial / MANIFEST).exists()

    def _refuse_others(self) -> None:
        """Check that nobody else writes to this place.

        Raises:
            UserError: somebody does.
        """
        beside = f"{glob.escape(self.partial.name.removesuffix(self._name))}????????{PARTIAL}"
        try:
            for other in self.partial.parent.glob(beside):
                with suppress(FileNotFoundError), _locked(other):
                    pass
        except BlockingIOError:
            raise UserError(f"another process is writing to {self.path}: wait for it, or end it") from None

    def commit(self) -> None:
        """Put the files where they belong; they are on disk already."""
        synchronize(self.partial)
        check_target(self.path, arriving=self.partial.name)
        if self._into:
            names = sorted(os.listdir(self.partial), key=lambda name: name == MANIFEST)
            for name in names:
                (self.partial / name).rename(self.path / name)
        else:
            self.partial.rename(self.path)
        synchronize(self.path if self._into else self.path.parent)

    def close(self, keep: bool = False) -> None:
        """Remove what was not committed, unless it is to `keep`."""
        if self._lock is None:
            return
        if not keep:
            shutil.rmtree(self.partial, ignore_errors=True)
        os.close(self._lock)
        self._lock = None
        if not keep:
            self._take_back()
        elif self._told:
            self._told.close()

    def _take_back(self) -> None:
        """Tell the cache of nothing."""
        if self._told:
            with suppress(OSError):
                os.unlink(self._told.name)
            self._told.close()


class FileTarget(Target):
    """File `path`, which is not there yet."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if names_folder(os.fspath(path)):
            raise UserError(f"{path} is a folder's name: give that of a file in it")
        here = path_here(path)
        if here and os.path.isfile(here):
            raise UserError(f"{path} exists: name another file, or remove it first")
        super().__init__(path)
        if self._into:
            raise UserError(f"{path} is a directory: name the file to write")

    def commit(self) -> None:
        """Give the one file its name; it is on disk already."""
        synchronize(self.partial)
        check_target(self.path)
        (self.partial / self.path.name).rename(self.path)
        synchronize(self.path.parent)


def _lock(folder: Path, wait: bool = False) -> int:
    """Open a folder and lock it until it is closed.

    Raises:
        BlockingIOError: another process has it, and is not to be waited for.
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(opened)
        raise
    except OSError:
        pass  # a file system without locks
    return opened


@contextmanager
def _locked(folder: Path, wait: bool = False) -> Iterator[None]:
    opened = _lock(folder, wait)
    try:
        yield
    finally:
        os.close(opened)


def check_target(path: str | os.PathLike[str], size: int = 0, arriving: str | None = None) -> Path:
    """Return where `path` leads, after checking that a data set of `size` bytes can be written there.

    Nothing is there, or an empty directory; it can be written; and there is room. The URI of a folder of this machine
    is that folder. A directory to which the files in its folder `arriving` were moving counts as empty.

    Raises:
        UserError: a data set cannot be written there.
    """
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(given, str) or not given or "\0" in given:
        raise UserError(f"cannot write to {path!r}: give the path of a new or empty directory")
    if given.startswith(NAMED):
        raise UserError(
            f"cannot write to {path}, by which other data are named: write ./{path}, or choose another name"
        )
    target = Path(os.path.realpath(path_here(path) or ""))
    halfway = arriving is not None and os.path.exists(target / arriving / MANIFEST)
    if os.path.islink(target) or (os.path.lexists(target) and not halfway and not _is_empty_directory(target)):
        raise UserError(f"{path} exists and is not an empty directory: choose another one, or remove it first")
    above = next(folder for folder in (target, *target.parents) if os.path.lexists(folder))
    if not above.is_dir():
        raise UserError(f"cannot write {path}: {above} is not a directory, so choose another place")
    if len(os.fsencode(target.name)) > os.pathconf(above, "PC_NAME_MAX"):
        raise UserError(f"cannot write {path}: the name is too long for {above}, so choose another one")
    if not os.access(above, os.W_OK | os.X_OK):
        reason = "the file system is read-only" if _is_read_only(above) else "permission denied"
        raise UserError(f"cannot write {path}: {reason} in {above}, so choose another place or change its permissions")
    if (free := shutil.disk_usage(above).free) < size:
        raise UserError(
            f"cannot write {path}: it takes about {size / 1e6:,.0f} MB, but {free / 1e6:,.0f} MB are free in {above}: "
            "make room, or choose another place"
        )
    return target


def _beginning(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:NAME])


def _is_empty_directory(path: Path) -> bool:
    """Return whether a directory is empty but for what is being written there, or was left."""
    try:
        return all(name.startswith(".") and name.endswith(PARTIAL) for name in os.listdir(path))
    except NotADirectoryError:
        return False
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}, so choose another place") from None


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
