"""A storage of checkpoints: where it is, and which sweep it belongs to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs as pafs

from dr3_ray.errors import UserError, first_line
from dr3_ray.remote import UNUSABLE, open_store
from dr3_ray.stores import NO_ROOM, make_folder, write_file

FOLDER = "checkpoints"
OWNER = "owner.json"
RUN = "run.json"  # beside the checkpoints, where a storage has a copy of the run or is the run directory
DAMAGED: dict[str, str] = {}  # what a file says of an owner that a full disk left empty


def open_storage(storage: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a storage, and the path of its checkpoints there.

    Raises:
        OSError: it cannot be used.
        ValueError: it cannot be used.
    """
    filesystem, root = open_store(storage)
    return filesystem, f"{root}/{FOLDER}"


def claim(storage: str, run: str, where: str) -> None:
    """Mark a storage path as this run's, which lies at `where`.

    Raises:
        UserError: it is another one's, or not usable.
    """
    mine = {"run": run, "where": where}
    if check_owner(storage, run) == mine:
        return
    with _used(storage):
        filesystem, root = open_storage(storage)
        _make_folder(filesystem, root)
        write_file(filesystem, f"{root}/{OWNER}", json.dumps(mine).encode())


def check_owner(storage: str, run: str) -> dict[str, str] | None:
    """Return whose a storage is that may be this run's; None: nobody's.

    Raises:
        UserError: it is another one's, or not usable.
    """
    with _used(storage):
        filesystem, root = open_storage(storage)
        owner = read_owner(filesystem, root)
        is_unknown = owner == DAMAGED and not _may_be_taken_over(filesystem, root, run)
    if is_unknown:
        raise UserError(
            f"storage {storage} does not say whose it is ({root}/{OWNER} is damaged): remove that file if no other "
            "sweep keeps its checkpoints there, or give another --storage"
        )
    if owner and owner["run"] != run:
        raise UserError(f"storage {storage} belongs to the sweep in {owner['where']}: give this one another --storage")
    return owner


@contextmanager
def _used(storage: str) -> Iterator[None]:
    """Name a storage in errors about it.

    Raises:
        UserError: it cannot be used.
    """
    try:
        yield
    except UNUSABLE as error:
        room = ": make room, and resume" if getattr(error, "errno", None) in NO_ROOM else ""
        raise UserError(f"storage {storage} cannot be used ({first_line(error)}){room}") from error


def _may_be_taken_over(filesystem: pafs.FileSystem, root: str, run: str) -> bool:
    """Return whether a storage of an unknown owner holds nothing of anybody, or a copy of this very run."""
    if all(info.base_name == OWNER for info in filesystem.get_file_info(pafs.FileSelector(root))):
        return True
    return (_read_json(filesystem, f"{root.removesuffix(FOLDER)}{RUN}") or {}).get("id") == run


def read_owner(filesystem: pafs.FileSystem, root: str) -> dict[str, str] | None:
    """Return whose a storage is, `DAMAGED` if the file does not say it; None: nobody's."""
    owner = _read_json(filesystem, f"{root}/{OWNER}")
    whole = owner is None or all(isinstance(owner.get(name), str) for name in ("run", "where"))
    return owner if whole else DAMAGED


def owner_of(storage: str) -> dict[str, str] | None:
    """Return the sweep that a storage belongs to: `run`, its id, and `where` it lies; None: nothing to read."""
    try:
        filesystem, root = open_storage(storage)
        return read_owner(filesystem, root) or None
    except (OSError, ValueError):
        return None


def has_checkpoints(storage: str) -> bool:
    """Return whether there is a folder of checkpoints, whoever's."""
    filesystem, root = open_storage(storage)
    return bool(filesystem.get_file_info(root).type != pafs.FileType.NotFound)


def _read_json(filesystem: pafs.FileSystem, path: str) -> dict[str, str] | None:
    """Return the mapping in a file, `DAMAGED` if it holds none; None: there is no such file."""
    info = filesystem.get_file_info(path)
    if not info.is_file:
        return None if info.type == pafs.FileType.NotFound else DAMAGED
    with filesystem.open_input_stream(path) as file:
        content = file.read()
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return DAMAGED
    return document if isinstance(document, dict) else DAMAGED


def _make_folder(filesystem: pafs.FileSystem, path: str) -> None:
    if isinstance(filesystem, pafs.LocalFileSystem):
        make_folder(Path(path))
    else:
        filesystem.create_dir(path, recursive=True)
