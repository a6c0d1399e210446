"""Checkpoints of packs in a sweep's storage: whole or not there at all, checked when they are read, and few.

A checkpoint is the directory `STORAGE/checkpoints/PACK/UPDATES`, which `OfflineAlgorithm.from_checkpoint` reads too.
Its manifest is written last and names every file with its digest, so that whatever a crash, a full disk or a lost
machine left half written is told from what is complete, on a local disk and in an object store alike.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pyarrow.fs as pafs

from dr3_ray.errors import UserError
from dr3_ray.remote import patiently
from dr3_ray.runs.digests import MANIFEST, is_whole, read_manifest, write_manifest
from dr3_ray.runs.storage import OWNER, open_storage, read_owner
from dr3_ray.stores import (
    NO_ROOM,
    inside,
    make_folder,
    rename_folder,
    safe_name,
    write_file,
)

CHECKPOINT = re.compile(r"\d{10}")  # the name of one: its updates
PARTIAL = re.compile(r"\.partial-[0-9a-f]{8}")
KEPT = 2  # the last one, and the one before in case the last is damaged


def packs_kept(storage: str) -> set[str]:
    """Return the packs that have a checkpoint in a storage, whole or not.

    Raises:
        OSError: it cannot be read.
        ValueError: it cannot be read.
    """
    filesystem, root = open_storage(storage)
    folder = pafs.FileSelector(root, allow_not_found=True, recursive=True)
    parts = [info.path.removeprefix(f"{root}/").split("/") for info in filesystem.get_file_info(folder)]
    return {pack for pack, *names in parts if names and CHECKPOINT.fullmatch(names[0])}


def _updates_of(path: str) -> int:
    return int(path.rpartition("/")[2])


class Checkpoints:
    """The checkpoints of one pack.

    Raises:
        UserError: this machine does not see the storage that the sweep claimed.
    """

    def __init__(self, storage: str, pack: str, run: str) -> None:
        self._filesystem, root = open_storage(storage)
        owner = patiently(lambda: read_owner(self._filesystem, root))
        if not owner or owner["run"] != run:
            state = "that of another sweep" if owner else "missing or damaged, which --resume of the sweep mends"
            raise UserError(
                f"{os.uname().nodename} does not see the sweep's storage {storage} ({OWNER} is {state}): "
                "give --storage a path or URI that all machines share, or --checkpoint-every 0"
            )
        self._folder = f"{root}/{safe_name(pack)}"

    def save(self, updates: int, write: Callable[[str], None], kept: int = KEPT, stay: Collection[int] = ()) -> None:
        """Write a checkpoint by `write`, which is given a directory, and delete all but the last `kept`.

        Those after so many updates as `stay` names are not deleted.

        Raises:
            UserError: no room left. The checkpoints before are untouched.
        """
        final = f"{self._folder}/{updates:010d}"
        try:
            with self._place_for(final) as directory:
                write(directory)
                write_manifest(Path(directory))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            reason = os.strerror(error.errno)
            raise UserError(
                f"no room left for checkpoints in {self._folder} ({reason}): make some, and resume"
            ) from None
        for old in self._all()[kept:]:
            if _updates_of(old) not in stay:
                self._delete(old)

    def load(self, read: Callable[[str], None], mend: bool = True) -> int | None:
        """Have `read` read the last checkpoint that is whole, and return its updates; without one nothing happens.

        To `mend`, those that are not whole are removed.
        """
        for path in self._named(PARTIAL) if mend else []:
            self._delete(path)
        for path in self._all():
            with self._copy_of(path) as directory:
                if is_whole(Path(directory)):
                    read(directory)
                    return _updates_of(path)
            if mend:
                self._delete(path)
        return None

    def updates(self) -> list[int]:
        """Return after how many updates there are checkpoints, whole or not, the first one first."""
        return sorted(map(_updates_of, self._all()))

    def adopt(self, other: "Checkpoints", stay: Collection[int], name: Callable[[str], None]) -> None:
        """Copy the last checkpoint of another pack, and those after so many updates as `stay` names, as our own.

        `name` writes into the folder of each whose it is. The last one comes last: with it, all of them are here.
        """
        whole: list[tuple[str, Path]] = []
        with ExitStack() as copies:
            for path in other._all():
                if not whole or _updates_of(path) in stay:
                    copy = Path(copies.enter_context(other._copy_of(path)))
                    whole += [(path, copy)] if is_whole(copy) else []
            for path, copy in reversed(whole):
                self.save(_updates_of(path), partial(_copied, copy, name), stay=stay)

    def load_at(self, updates: int, read: Callable[[str], None]) -> None:
        """Have `read` read the checkpoint after so many updates; without a whole one nothing happens."""
        for path in self._all():
            if _updates_of(path) == updates:
                with self._copy_of(path) as directory:
                    if is_whole(Path(directory)):
                        read(directory)

    def read(self, *names: str) -> dict[str, bytes] | None:
        """Return these files of the last checkpoint where they are whole, as far as it has them; None without one."""
        for path in self._all():
            with suppress(FileNotFoundError, IsADirectoryError, ValueError, TypeError, RecursionError):
                manifest = json.loads(self._content(f"{path}/{MANIFEST}"))
                contents = {name: self._content(f"{path}/{name}") for name in names if name in manifest}
                if all(hashlib.sha256(content).hexdigest() == manifest[name] for name, content in contents.items()):
                    return contents
        return None

    def _content(self, path: str) -> bytes:
        def read() -> bytes:
            if self._is_local:
                return Path(path).read_bytes()
            with self._filesystem.open_input_stream(path) as file:
                return bytes(file.read())

        return patiently(read)

    def _all(self) -> list[str]:
        """Return paths of checkpoints, the last one first."""
        return sorted(self._named(CHECKPOINT), reverse=True)

    def _named(self, pattern: re.Pattern[str]) -> list[str]:
        folder = pafs.FileSelector(self._folder, allow_not_found=True)
        status = patiently(lambda: self._filesystem.get_file_info(folder))
        return [info.path for info in status if pattern.fullmatch(info.base_name)]

    def _delete(self, path: str) -> None:
        """Delete a checkpoint, if it is there still.

        A worker that its machine has not yet given up on may be ahead of us: it writes the same.
        """
        with suppress(OSError):
            self._filesystem.delete_dir(path)

    @contextmanager
    def _place_for(self, final: str) -> Iterator[str]:
        """Yield a directory to write into, which is `final` afterwards: renamed once it is on disk, or uploaded."""
        if self._is_local:
            partial = f"{self._folder}/.partial-{uuid.uuid4().hex[:8]}"
            try:
                make_folder(Path(partial))
                yield partial
                self._delete(final)
                rename_folder(Path(partial), Path(final))
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
        write_file(self._filesystem, f"{final}/{MANIFEST}", manifest)

    def _download(self, path: str, directory: Path) -> None:
        """Download the files that the manifest names, and only those."""
        info = self._filesystem.get_file_info(f"{path}/{MANIFEST}")
        if not info.is_file:
            return
        pafs.copy_files(info.path, str(directory / MANIFEST), self._filesystem, pafs.LocalFileSystem())

        def fetch(name: str) -> None:
            target = inside(directory, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # then it is not whole
                pafs.copy_files(f"{path}/{name}", str(target), self._filesystem, pafs.LocalFileSystem())

        with ThreadPoolExecutor() as pool:
            list(pool.map(fetch, read_manifest(directory) or ()))

    @contextmanager
    def _copy_of(self, path: str) -> Iterator[str]:
        """Yield a directory on this machine with the contents of a checkpoint."""
        if self._is_local:
            yield path
        else:
            with tempfile.TemporaryDirectory() as directory:
                patiently(lambda: self._download(path, Path(directory)))
                yield directory

    @property
    def _is_local(self) -> bool:
        return isinstance(self._filesystem, pafs.LocalFileSystem)


def _copied(source: Path, name: Callable[[str], None], directory: str) -> None:
    shutil.copytree(source, directory, dirs_exist_ok=True)
    name(directory)
