"""Data sets from other places: each is copied once to a folder of this machine, and mapped from there.

They are kept by their fingerprints, so that a data set that lies in several places is here once. Where two have the
same rows and other names, environments or provenances, both are kept: opening one never changes the other. A note
says which one an address has, so that `URI#FINGERPRINT` is found without asking the store.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow.fs as pafs

from dr3_ray.data.addresses import Address
from dr3_ray.data.content import read_content
from dr3_ray.data.leftovers import WRITING, leftovers, remove
from dr3_ray.data.machine import LIMIT, alone, cache_folder, cache_limit, entries
from dr3_ray.data.schema import MANIFEST, MANIFEST_BYTES, FileEntry, Manifest
from dr3_ray.errors import UserError, first_line
from dr3_ray.process.folders import CACHE
from dr3_ray.remote import open_store
from dr3_ray.stores import NO_ROOM, below, replace_file
from dr3_ray.trust.secrets import masked

BLOCK = 1 << 20


class Cached(NamedTuple):
    """A data set in the cache: its folder, manifest, bytes, and the time of its last use in seconds since 1970."""

    path: Path
    manifest: Manifest
    size: int
    used: float


def cached(uri: str) -> Path:
    """Return the folder of this machine with the data set at `uri`, copied there unless it is there already.

    It is copied as a whole, also where `uri` names a subset. `URI#FINGERPRINT` means those data and no others; if they
    are here, the store is not asked. Of processes that want the same one at once, one copies and the others wait. Every
    file is compared with the manifest's digest, and all rows with theirs. Where the cache has a limit, what was used
    longest ago makes room.

    Raises:
        OSError: the store does not answer.
        UserError: there is no such data set, other data lie there, a file is damaged, it is larger than the limit of
            the cache, or there is no room.
    """
    if copy := find_cached(uri):
        return copy
    address = Address.parse(uri)
    filesystem, root = _open(address.place)
    content = _read_manifest(filesystem, root, address.place)
    manifest = Manifest.parse(content, address.place)
    refuse_others(manifest, address)
    try:
        with alone(manifest.fingerprint):
            place = _place(manifest)
            if _opened(place) != manifest.fingerprint:
                make_room(sum(entry.bytes for entry in manifest.files), address.place)
                _copy(filesystem, root, manifest, content, place)
            replace_file(_note(address.place), place.name.encode())
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(
            f"no room left in {cache_folder()} ({os.strerror(error.errno)}): "
            f"dr3-ray data cache --prune 0 makes some, or name another folder by {CACHE}"
        ) from None
    return place


def refuse_others(manifest: Manifest, address: Address) -> None:
    """Check that the data set found at an address has the fingerprint that the address ends in, if any.

    Raises:
        UserError: it has another one.
    """
    wanted, where = address.fingerprint, str(address._replace(fingerprint=None))
    known, *old = map(address.identity, manifest.identities)
    if wanted and wanted in old and wanted != known:
        of = "was of files and not of rows" if wanted == old[0] else "left out spaces and gamma"
        raise UserError(
            f"{wanted[:16]}… is the fingerprint of {where} by the rule of an older version, which {of}: "
            f"write {where}#{known}"
        )
    if wanted and wanted != known:
        raise UserError(f"{where} holds other data: their fingerprint is {known}, not {wanted}")


def find_cached(uri: str) -> Path | None:
    """Return the folder of `URI#FINGERPRINT` without asking the store; None: it is not here, or cut short."""
    try:
        address = Address.parse(uri)
    except UserError:
        return None
    known = _noted(address.place) if address.fingerprint else None
    here = known and _opened(known)
    return known if here and address.identity(here) == address.fingerprint else None


def _opened(place: Path) -> str | None:
    """Return the fingerprint of the data set in a folder of the cache, which counts as used from now on.

    None: none is there as a whole.
    """
    try:
        manifest = Manifest.read(place)
        whole = all((place / entry.file).stat().st_size == entry.bytes for entry in manifest.files)
    except (OSError, UserError):
        return None
    if not whole:
        return None
    os.utime(place)
    return manifest.fingerprint


def _place(manifest: Manifest) -> Path:
    """Return the folder of a data set: its fingerprint, and its digest if the rows are there by another name."""
    plain = cache_folder() / manifest.fingerprint
    try:
        there = Manifest.read(plain)
    except (OSError, UserError):
        return plain
    return plain if there.digest == manifest.digest else plain.with_name(f"{plain.name}.{manifest.digest[:16]}")


def _note(address: str) -> Path:
    """Return the file that names the folder of an address; the address may hold keys and is not written down."""
    return cache_folder() / f".at-{hashlib.sha256(address.encode()).hexdigest()}"


def _noted(address: str) -> Path | None:
    """Return the folder that was noted for an address; None: none was, or it is gone."""
    try:
        place = cache_folder() / _note(address).read_text()
    except OSError:
        return None
    return place if place.parent == cache_folder() and place.is_dir() else None


def upload(path: Path, store: str) -> str:
    """Put the data set in a folder into a store, unless it is there already; return its URI, which `cached` takes.

    Its manifest comes last, so that a half-written copy is no data set.
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
    """Return the data sets in the cache of this machine, last used first; anything else is left out."""
    copies = []
    for path in entries():
        with suppress(OSError, UserError):
            manifest = Manifest.read(path)
            size = sum(entry.bytes for entry in manifest.files)
            copies.append(Cached(path, manifest, size, path.stat().st_mtime))
    return sorted(copies, key=lambda copy: -copy.used)


def foreign() -> list[Path]:
    """Return the files in the cache that are not ours: they stay."""
    ours = {copy.path for copy in contents()}
    return [
        path
        for path in entries()
        if path not in ours and not path.name.startswith((".lock-", ".copy-", ".at-", WRITING))
    ]


def prune(unused: float) -> list[Cached]:
    """Remove data sets unused for so many seconds, and what interrupted copies and imports left; return the former.

    Processes that have a data set open keep it; it is copied again at its next use.

    Raises:
        UserError: something cannot be removed, when all else is.
    """
    gone: list[Cached] = []
    kept: list[str] = []
    for copy in contents():
        if time.time() - copy.used >= unused:
            with _failures_in(kept, copy.path), alone(copy.path.name.partition(".")[0]):
                shutil.rmtree(copy.path)
                gone.append(copy)
    for left in leftovers():
        with _failures_in(kept, left.path):
            remove(left)
    if kept:
        raise UserError(f"removed {len(gone)} data sets, but not {', '.join(kept)}: change permissions, or remove it")
    return gone


def make_room(size: int, what: str) -> None:
    """Remove the data sets that were used longest ago, until one of `size` bytes stays below the limit of the cache.

    Processes that have one open keep it; it is copied again at its next use.

    Raises:
        UserError: it is larger than the limit.
    """
    limit = cache_limit()
    if limit is None:
        return
    if size > limit:
        raise UserError(
            f"{masked(what)} has {size / 1e6:,.1f} MB, and the cache of this machine may have {limit / 1e6:,.1f}: "
            f"raise {LIMIT}, or unset it"
        )
    kept = contents()
    while sum(copy.size for copy in kept) + size > limit:
        oldest = kept.pop()
        with suppress(BlockingIOError), alone(oldest.path.name.partition(".")[0], wait=False):  # else it is arriving
            shutil.rmtree(oldest.path)


@contextmanager
def _failures_in(kept: list[str], path: Path) -> Iterator[None]:
    """Add a path to those that stay if removing it fails."""
    try:
        yield
    except OSError as error:
        kept.append(f"{path} ({error.strerror})")


def _open(address: str) -> tuple[pafs.FileSystem, str]:
    try:
        return open_store(address)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{address} cannot be opened: {first_line(error)}") from None


def _read_manifest(filesystem: pafs.FileSystem, root: str, address: str) -> bytes:
    try:
        with filesystem.open_input_stream(f"{root}/{MANIFEST}") as file:
            return bytes(file.read(MANIFEST_BYTES + 1))
    except FileNotFoundError:
        raise UserError(f"{address} is not a data set (it has no {MANIFEST}): name the folder that holds one") from None


def _copy(filesystem: pafs.FileSystem, root: str, manifest: Manifest, content: bytes, place: Path) -> None:
    """Copy all of a data set, or nothing."""
    from dr3_ray.data.reader import Dataset  # which opens what is in the cache

    with tempfile.TemporaryDirectory(prefix=f".copy-{place.name}-", dir=place.parent) as name:
        arrived = Path(name) / "data"
        arrived.mkdir()
        for entry in manifest.files:
            _fetch(filesystem, root, entry, arrived / entry.file)
        replace_file(arrived / MANIFEST, content)
        if manifest.content is not None and read_content(Dataset(arrived)) != manifest.content:
            raise UserError(f"{root} is damaged: its rows have another digest than the manifest says; copy it again")
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
