"""Checkpoints of packs in a sweep's storage: whole or not there at all, checked when they are read, and few.

A checkpoint is the directory `STORAGE/checkpoints/PACK/UPDATES`, which `OfflineAlgorithm.from_checkpoint` reads too.
Its manifest is written last and names every file with its digest, so that whatever a crash, a full disk or a lost
machine left half written is told from what is complete, on a local disk and in an object store alike.
"""

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.fs as pafs

from dr3_ray.errors import UserError, first_line
from dr3_ray.stores import NO_ROOM, open_store, patiently

FOLDER = "checkpoints"
OWNER = "owner.json"
MANIFEST = "manifest.json"
KEPT = 2  # the last one, and the one before in case the last is damaged


def claim(storage: str, run: str, where: str) -> None:
    """Mark a storage path as this run's, which lies at `where`. UserError: another one's, or not usable."""
    try:
        filesystem, root = _open(storage)
        owner = _read_json(filesystem, f"{root}/{OWNER}")
        if owner is None:
            filesystem.create_dir(root, recursive=True)
            with filesystem.open_output_stream(f"{root}/{OWNER}") as file:
                file.write(json.dumps({"run": run, "where": where}).encode())
    except (OSError, ValueError) as error:
        raise UserError(f"storage {storage} cannot be used: {first_line(error)}") from error
    if owner is not None and owner["run"] != run:
        raise UserError(f"storage {storage} belongs to the sweep in {owner['where']}: give this one another --storage")


class Checkpoints:
    """The checkpoints of one pack. UserError: this machine does not see the storage that the sweep claimed."""

    def __init__(self, storage: str, pack: str, run: str) -> None:
        self._filesystem, root = _open(storage)
        owner = patiently(lambda: _read_json(self._filesystem, f"{root}/{OWNER}"))
        if owner is None or owner["run"] != run:
            raise UserError(
                f"{os.uname().nodename} does not see the sweep's storage {storage}: "
                "give --storage a path or URI that all machines share, or --checkpoint-every 0"
            )
        self._folder = f"{root}/{pack}"

    def save(self, updates: int, write: Callable[[str], None], kept: int = KEPT) -> None:
        """Keep what `write` puts into the directory that it is given; of all checkpoints the last `kept` stay.

        Raises:
            UserError: no room left. The checkpoints before are untouched.
        """
        final = f"{self._folder}/{updates:010d}"
        try:
            with self._place_for(final) as directory:
                write(directory)
                files = [path for path in Path(directory).rglob("*") if path.is_file()]
                manifest = {str(path.relative_to(directory)): _digest(path) for path in files}
                (Path(directory) / MANIFEST).write_text(json.dumps(manifest))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            reason = os.strerror(error.errno)
            raise UserError(
                f"no room left for checkpoints in {self._folder} ({reason}): make some, and resume"
            ) from None
        for old in self._all()[kept:]:
            self._delete(old)

    def load(self, read: Callable[[str], None]) -> None:
        """Have the last checkpoint that is whole read; one that is not is removed. None, and nothing happens."""
        for path in self._inside(".partial"):
            self._delete(path)
        for path in self._all():
            with self._copy_of(path) as directory:
                if _is_whole(Path(directory)):
                    return read(directory)
            self._delete(path)

    def _all(self) -> list[str]:
        """Paths of checkpoints, the last one first."""
        return sorted(self._inside("0"), reverse=True)

    def _inside(self, beginning: str) -> list[str]:
        folder = pafs.FileSelector(self._folder, allow_not_found=True)
        found = patiently(lambda: self._filesystem.get_file_info(folder))
        return [info.path for info in found if info.base_name.startswith(beginning)]

    def _delete(self, path: str) -> None:
        """A worker that its machine has not yet given up on may be ahead of us: what it writes is the same."""
        with suppress(OSError):
            self._filesystem.delete_dir(path)

    @contextmanager
    def _place_for(self, final: str) -> Iterator[str]:
        """A directory to write into, which afterwards is `final`: renamed after all of it is on disk, or uploaded."""
        if self._is_local:
            partial = f"{self._folder}/.partial-{uuid.uuid4().hex[:8]}"
            try:
                os.makedirs(partial)
                yield partial
                with ThreadPoolExecutor() as pool:  # together they take a fifth of the time
                    list(pool.map(_synchronize, (*Path(partial).rglob("*"), Path(partial))))
                self._delete(final)
                os.rename(partial, final)
                _synchronize(self._folder)
            except OSError:
                self._delete(partial)
                raise
        else:
            with tempfile.TemporaryDirectory() as partial:
                yield partial
                manifest = Path(partial) / MANIFEST
                content = manifest.read_bytes()
                manifest.unlink()
                patiently(lambda: self._upload(partial, final, content))

    def _upload(self, directory: str, final: str, manifest: bytes) -> None:
        pafs.copy_files(directory, final, destination_filesystem=self._filesystem)
        with self._filesystem.open_output_stream(f"{final}/{MANIFEST}") as file:
            file.write(manifest)

    @contextmanager
    def _copy_of(self, path: str) -> Iterator[str]:
        """A directory on this machine with the contents of a checkpoint."""
        if self._is_local:
            yield path
        else:
            with tempfile.TemporaryDirectory() as directory:
                patiently(lambda: pafs.copy_files(path, directory, source_filesystem=self._filesystem))
                yield directory

    @property
    def _is_local(self) -> bool:
        return isinstance(self._filesystem, pafs.LocalFileSystem)


def _open(storage: str) -> tuple[pafs.FileSystem, str]:
    filesystem, root = open_store(storage)
    return filesystem, f"{root}/{FOLDER}"


def _read_json(filesystem: pafs.FileSystem, path: str) -> dict[str, str] | None:
    """None: there is no such file."""
    if filesystem.get_file_info(path).type == pafs.FileType.NotFound:
        return None
    with filesystem.open_input_stream(path) as file:
        document: dict[str, str] = json.loads(file.read())
    return document


def _is_whole(directory: Path) -> bool:
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        return all(_digest(directory / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synchronize(path: str | Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
