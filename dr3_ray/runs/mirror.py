"""What a sweep keeps of itself in its storage: a copy of the run, for when the run directory is lost or far away."""

import json
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from dr3_ray.errors import UserError, first_line
from dr3_ray.remote import UNUSABLE, open_store
from dr3_ray.runs.directory import RUN, STUDIES, is_run, read_run
from dr3_ray.runs.histories import HISTORIES
from dr3_ray.runs.index import INDEX, is_hurt, knows_more
from dr3_ray.runs.lock import is_locked
from dr3_ray.runs.storage import FOLDER, check_owner
from dr3_ray.stores import check_folder, names_below, read_bytes, same_place, write_file
from dr3_ray.uris import is_local, local_path

EVERY = 30.0  # seconds between two copies of a run that is going on
SNAPSHOT = "studies.snapshot.db"  # the studies of a search between two transactions, which any copy leaves whole
OWN = (FOLDER, "trials", "logs", "report")  # folders of a run directory
SHARED = (FOLDER, "data")  # and of a storage


def check_storage(out: Path, storage: str | None) -> None:
    """Make sure that a sweep in `out` can keep its checkpoints, and copies of its files, in a storage.

    The storage may be the run directory itself, or a folder of its own in it.

    Raises:
        UserError: the two are in each other's way, or the storage holds another run, or more of this one than `out`,
            or cannot be used.
    """
    check_folder(out.resolve())
    if storage is None or (below := names_below(str(out), storage)) == ():
        return
    above = names_below(storage, str(out))
    if (below and below[0] in OWN) or (above and above[0] in SHARED):
        raise UserError(f"--storage {storage} and --out {out} lie in each other's folders: keep them apart")
    if is_local(storage):
        check_folder(local_path(storage))
    theirs, index = described(storage).get("id"), _content(storage, INDEX)
    ours = read_run(out).get("id") if is_run(out) else None
    if theirs not in (None, ours):
        raise UserError(
            f"--storage {storage} holds another run than {out}: "
            f"`dr3-ray sweep --resume {storage}` goes on with that one, or give this one another --storage"
        )
    lost = is_hurt(out / INDEX) or (ours is not None and theirs == ours and not (out / INDEX).exists())
    if knows_more(index, read_bytes(out / INDEX)) and not lost:
        raise UserError(
            f"--storage {storage} knows more of this run than {out}: "
            f"`dr3-ray fetch {storage} --out ANOTHER` brings it, and `dr3-ray sweep --resume ANOTHER` goes on"
        )
    if is_local(storage) and is_locked(local_path(storage) / INDEX):
        raise UserError(f"a sweep is running in --storage {storage}: give another one")
    check_owner(storage, ours or "")


def kept_index(out: Path, storage: str | None) -> bytes:
    """Return the index that a storage keeps of the run in `out`; empty where it keeps none.

    Raises:
        UserError: it cannot be used.
    """
    if storage is None or not is_run(out) or described(storage).get("id") != read_run(out).get("id"):
        return b""
    return _content(storage, INDEX)


@contextmanager
def mirrored(run: Path, storage: str | None, say: Callable[[str], None]) -> Iterator[None]:
    """Copy what is known of a run to its storage, now and then and at the end, for `fetch` to find it there.

    So no result is lost with the machine that runs the sweep. Studies in the run directory are copied beside it, also
    where there is no storage, or it is the run directory itself. `say` is told when a copy fails; the sweep goes on.
    """
    if storage is not None and _is_seen_in(storage, run):
        storage = None
    if storage is None and not (run / STUDIES).exists():
        yield
        return
    over = threading.Event()

    def keep_copying() -> None:
        """Copy every `EVERY` seconds and once at the end, and say once that it fails."""
        failed = False
        while True:
            last = over.wait(EVERY)
            try:
                _publish(run, storage)
                failed = False
            except (OSError, sqlite3.Error) as error:
                if not failed or last:
                    say(f"the results could not be copied to {storage or run / SNAPSHOT}: {first_line(error)}")
                failed = True
            if last:
                return

    thread = threading.Thread(target=keep_copying, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _publish(run: Path, storage: str | None) -> None:
    index = (run / INDEX).read_bytes()  # before histories and studies: it must not run ahead of them
    if (run / STUDIES).exists():
        partial = run / f".{SNAPSHOT}.partial"
        partial.unlink(missing_ok=True)  # a driver may have been killed while it wrote one
        copy_database(run / STUDIES, partial)
        partial.replace(run / SNAPSHOT)
    if storage is None:
        return
    filesystem, root = opened(storage)
    filesystem.create_dir(root, recursive=True)
    for name in (RUN, HISTORIES, SNAPSHOT):
        if (run / name).exists():
            write_file(filesystem, f"{root}/{name}", (run / name).read_bytes())
    write_file(filesystem, f"{root}/{INDEX}", index)


def _is_seen_in(storage: str, run: Path) -> bool:
    """Return whether a storage is the run directory itself, even where only a file in both tells, as over NFS."""
    if same_place(storage, str(run)):
        return True
    mark = run / f".seen-{secrets.token_hex(4)}"
    with suppress(OSError, UserError):
        filesystem, root = opened(storage)
        mark.touch()
        try:
            return bool(filesystem.get_file_info(f"{root}/{mark.name}").is_file)
        finally:
            mark.unlink()
    return False  # whatever is wrong with it is said when it is written to


def _content(storage: str, name: str) -> bytes:
    """Return the content of a file of a store, nothing if there is none.

    Raises:
        UserError: the store cannot be used.
    """
    filesystem, root = opened(storage)
    try:
        if not filesystem.get_file_info(path := f"{root}/{name}").is_file:
            return b""
        with filesystem.open_input_stream(path) as file:
            return bytes(file.read())
    except UNUSABLE as error:
        raise UserError(f"{storage} cannot be used: {first_line(error)}") from error


def described(run: str) -> dict[str, Any]:
    """Return `run.json` at a path or URI; nothing where there is none, or a damaged one.

    Raises:
        UserError: the store cannot be used.
    """
    content = _content(run, RUN)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def copy_database(source: Path, target: Path) -> None:
    """Copy a database between two transactions, whoever writes to it.

    Raises:
        sqlite3.Error: it cannot be read or written.
    """
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


def opened(storage: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a storage, and the path in it.

    Raises:
        UserError: it cannot be used.
    """
    try:
        return open_store(storage)
    except UserError:
        raise
    except UNUSABLE as error:
        raise UserError(f"{storage} cannot be used: {first_line(error)}") from error
