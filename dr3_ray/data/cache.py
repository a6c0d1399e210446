"""Data sets from other places: each is copied once to a folder of this machine, and mapped from there.

They are kept by their fingerprints, so that a data set that lies in several places is here once.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow.fs as pafs

from dr3_ray.data.schema import MANIFEST, FileEntry, Manifest
from dr3_ray.errors import UserError, first_line
from dr3_ray.stores import NO_ROOM, below, open_store, replace_file

CACHE = "DR3_RAY_CACHE"  # the variable that names the folder
BLOCK = 1 << 20


class Cached(NamedTuple):
    """A data set in the cache: its folder, manifest, bytes, and the time of its last use in seconds since 1970."""

    path: Path
    manifest: Manifest
    size: int
    used: float


def cache_folder() -> Path:
    """Where this machine keeps its copies: `$DR3_RAY_CACHE/data`, by default below ~/.cache/dr3-ray."""
    return Path(os.environ.get(CACHE) or "~/.cache/dr3-ray").expanduser() / "data"


def cached(uri: str) -> Path:
    """The folder of this machine with the data set at `uri`, which is copied there unless it is there already.

    `URI#FINGERPRINT` means that data set and no other; if it is here, the store is not asked. Of processes that want
    the same one at once, one copies and the others wait. Every file is compared with the manifest's digest.

    Raises:
        OSError: the store does not answer.
        UserError: there is no such data set, other data lie there, a file is damaged, or there is no room.
    """
    address, _, wanted = uri.partition("#")
    if wanted and (found := find_cached(wanted)):
        return found
    filesystem, root = _open(address)
    content = _read_manifest(filesystem, root, address)
    manifest = Manifest.parse(content, address)
    if wanted not in ("", manifest.fingerprint):
        raise UserError(f"{address} holds other data: their fingerprint is {manifest.fingerprint}, not {wanted}")
    place = cache_folder() / manifest.fingerprint
    try:
        with _alone(manifest.fingerprint):
            if not find_cached(manifest.fingerprint):
                _copy(filesystem, root, manifest, content, place)
            elif (place / MANIFEST).read_bytes() != content:  # the same rows, described anew
                replace_file(place / MANIFEST, content)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(
            f"no room left in {cache_folder()} ({os.strerror(error.errno)}): "
            f"dr3-ray data cache --prune 0 makes some, or name another folder by {CACHE}"
        ) from None
    return place


def find_cached(fingerprint: str) -> Path | None:
    """The data set in the cache, which counts as used from this moment; None if it is not there, or cut short."""
    place = cache_folder() / fingerprint
    try:
        manifest = Manifest.parse((place / MANIFEST).read_bytes(), place)
        whole = all((place / entry.file).stat().st_size == entry.bytes for entry in manifest.files)
    except (OSError, UserError):
        return None
    if whole:
        os.utime(place)
    return place if whole else None


def upload(path: Path, store: str) -> str:
    """Put the data set in a folder into a store, unless it is there already; the URI that `cached` takes.

    Its manifest comes last, so that a data set that is not whole is none.
    """
    content = (path / MANIFEST).read_bytes()
    manifest = Manifest.parse(content, path)
    uri = below(store, "data", manifest.fingerprint)
    filesystem, root = open_store(uri)
    if filesystem.get_file_info(f"{root}/{MANIFEST}").type == pafs.FileType.NotFound:
        filesystem.create_dir(root, recursive=True)
        for entry in manifest.files:
            pafs.copy_files(str(path / entry.file), f"{root}/{entry.file}", pafs.LocalFileSystem(), filesystem)
        with filesystem.open_output_stream(f"{root}/{MANIFEST}") as file:
            file.write(content)
    return f"{uri}#{manifest.fingerprint}"


def contents() -> list[Cached]:
    """What is in the cache of this machine, what was used last first."""
    found = []
    for path in cache_folder().glob(f"*/{MANIFEST}"):
        manifest = Manifest.parse(path.read_bytes(), path.parent)
        size = sum(entry.bytes for entry in manifest.files)
        found.append(Cached(path.parent, manifest, size, path.parent.stat().st_mtime))
    return sorted(found, key=lambda each: -each.used)


def prune(unused: float) -> list[Cached]:
    """Remove what was not used for so many seconds, and what interrupted copies left; what was removed.

    Processes that have a data set open keep it; it is copied again when it is wanted again.
    """
    gone = [each for each in contents() if time.time() - each.used >= unused]
    for each in gone:
        with _alone(each.path.name):
            shutil.rmtree(each.path)
    for rest in cache_folder().glob(".copy-*"):
        fingerprint = rest.name.split("-")[1]
        with _alone(fingerprint):
            shutil.rmtree(rest, ignore_errors=True)
    return gone


def _open(address: str) -> tuple[pafs.FileSystem, str]:
    try:
        return open_store(address)
    except ValueError as error:
        raise UserError(f"{address} cannot be opened: {first_line(error)}") from None


def _read_manifest(filesystem: pafs.FileSystem, root: str, address: str) -> bytes:
    try:
        with filesystem.open_input_stream(f"{root}/{MANIFEST}") as file:
            return bytes(file.read())
    except FileNotFoundError:
        raise UserError(f"{address} is not a data set (it has no {MANIFEST}): name the folder that holds one") from None


def _copy(filesystem: pafs.FileSystem, root: str, manifest: Manifest, content: bytes, place: Path) -> None:
    """All of it or nothing."""
    with tempfile.TemporaryDirectory(prefix=f".copy-{place.name}-", dir=place.parent) as name:
        arrived = Path(name) / "data"
        arrived.mkdir()
        for entry in manifest.files:
            _fetch(filesystem, root, entry, arrived / entry.file)
        replace_file(arrived / MANIFEST, content)
        shutil.rmtree(place, ignore_errors=True)  # of a copy that somebody has damaged
        arrived.rename(place)


def _fetch(filesystem: pafs.FileSystem, root: str, entry: FileEntry, to: Path) -> None:
    digest = hashlib.sha256()
    with filesystem.open_input_stream(f"{root}/{entry.file}") as source, open(to, "wb") as target:
        while block := source.read(BLOCK):
            digest.update(block)
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    if digest.hexdigest() != entry.sha256:
        raise UserError(f"{root}/{entry.file} is damaged: it has another digest than the manifest says; copy it again")


@contextmanager
def _alone(fingerprint: str) -> Iterator[None]:
    """One process of this machine at a time; whoever dies lets the next one in."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".lock-{fingerprint}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
