"""Files, paths and URIs of folders and object stores."""

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow.fs as pafs

from dr3_ray.errors import UserError, unusable
from dr3_ray.remote import SYNONYMS
from dr3_ray.uris import is_local, is_uri, local_path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST_NAME, LONGEST_PATH = 200, 1000  # bytes: file systems take 255 and 4096, and a partial file has a longer name


def below(store: str, *names: str) -> str:
    """Return the URI of what lies in an absolute path or URI under these names; the options of a URI stay."""
    root, mark, options = (store if is_uri(store) else Path(store).as_uri()).partition("?")
    return "/".join((root.rstrip("/"), *names)) + mark + options


def check_folder(path: Path) -> None:
    """Check that a folder of this machine can be made, if it is not there, and written.

    Raises:
        UserError: it cannot.
    """
    try:
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{path} cannot be a folder to write in ({error.strerror}): choose another one") from None


def check_room(folder: Path, size: int) -> None:
    """Check that a file of so many bytes finds room in a folder of this machine: HDF5 would end the process else.

    Raises:
        OSError: it does not, by the disk, a quota or a limit of this process.
    """
    if size:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)


def content_of(path: Path) -> bytes:
    """Return the content of a file of this machine. Every file that a run, a population or a user keeps is read here.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is a folder or a pipe, say, or another user's.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # which may never end
            raise OSError(errno.EINVAL, "it is a pipe or a device")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(unusable(path, error)) from None


def read_bytes(path: Path) -> bytes:
    """Return the content of a file of this machine, nothing if there is none.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return content_of(path)
    except FileNotFoundError:
        return b""


def same_place(one: str, other: str) -> bool:
    """Return whether two paths or URIs are one folder, however they are written and whatever leads there."""
    return names_below(one, other) == ()


def names_below(outer: str, inner: str) -> tuple[str, ...] | None:
    """Return the names that lead from one folder to another in it: () to itself, None to one elsewhere.

    Folders of this machine are compared by what they are, so that links, bind mounts, `..` and `file://` make no
    difference, nor does it matter whether they exist already. In an object store, credentials, region and empty names
    make none.
    """
    (place, names), (other, others) = _whereabouts(outer), _whereabouts(inner)
    if is_local(outer) and is_local(inner):
        for folder, below in _ways(inner):
            if _whereabouts(str(folder)) == (place, names):
                return below
        return None
    return others[len(names) :] if place == other and others[: len(names)] == names else None


def safe_name(name: str) -> str:
    """Return the name of something in a folder, with / between its parts, as it is.

    Every name that comes from a store, a manifest, an index or an archive passes here before a path is made of it.

    Raises:
        UserError: it may lead out of the folder, or no file can have it.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        sizes = [0]
    unsafe = any(part in ("", ".", "..") or re.search(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:", part) for part in parts)
    if unsafe or 0 in sizes or max(sizes) > LONGEST_NAME or sum(sizes) + len(sizes) > LONGEST_PATH:
        raise UserError(
            f"{_shown(name)} may lead out of its folder, or no file can have that name: do not trust what it comes from"
        )
    return name


def inside(folder: str | os.PathLike[str], name: str) -> Path:
    """Return the path in a folder of this machine of what somebody else calls `name` there, with / between its parts.

    Raises:
        UserError: it would lie elsewhere: by the name (`safe_name`), or by a link in the folder.
    """
    path = Path(folder)
    for part in safe_name(name).split("/"):
        path /= part
        if path.is_symlink():
            raise UserError(f"{path} is a link, which may lead out of {os.fspath(folder)}: remove it first")
    return path


def write_file(filesystem: pafs.FileSystem, path: str, content: bytes) -> None:
    """Write a file of a store as a whole or not at all; its folder exists.

    Raises:
        OSError: it cannot be written.
    """
    if isinstance(filesystem, pafs.LocalFileSystem):
        replace_file(Path(path), content)
        return
    with filesystem.open_output_stream(path) as file:  # there once it is closed
        file.write(content)


# How everything that a run keeps on this machine comes to its disk: a power cut leaves it as it was, or as it is to be.


def synchronize(path: str | Path) -> None:
    """Wait until a file or folder is on the disk: what it holds, not its own name in the folder above."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file at, which then takes its place.

    Raises:
        OSError: `path` is as it was, also where it is a folder, a pipe or a device.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a pipe or a device", os.fspath(path))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        synchronize(partial)
        partial.replace(path)
        synchronize(path.parent)
    except OSError as error:
        if error.filename == os.fspath(partial):  # a name that nobody has given
            error.filename = os.fspath(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file of this machine as a whole or not at all.

    Raises:
        OSError: it is as it was.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a file in one step by a JSON document."""
    replace_file(path, (json.dumps(document, indent=1) + "\n").encode())


def rename_folder(partial: Path, path: Path) -> None:
    """Rename a folder within the folder where it lies, once all that it holds is on the disk."""
    with ThreadPoolExecutor() as pool:  # together they take a fifth of the time
        list(pool.map(synchronize, (*partial.rglob("*"), partial)))
    partial.rename(path)
    synchronize(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless they are there."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for parent in missing:
        synchronize(parent.parent)


def append(file: int, content: bytes) -> None:
    """Write at the end of an open file: all of it or nothing.

    A full disk must not leave half a line in the middle.

    Raises:
        OSError: the file is as it was.
    """
    end = os.lseek(file, 0, os.SEEK_END)
    try:
        while content:
            content = content[os.write(file, content) :]
        os.fsync(file)
    except OSError:
        os.ftruncate(file, end)
        raise


def append_line(path: Path, line: str) -> None:
    """Write one line at the end of a file, which need not be there, on a line of its own whatever a crash left before.

    Raises:
        OSError: the file is as it was.
    """
    is_new = not path.exists()
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        end = os.lseek(file, 0, os.SEEK_END)
        broken = end > 0 and os.pread(file, 1, end - 1) != b"\n"
        append(file, b"\n" * broken + line.encode() + b"\n")
    finally:
        os.close(file)
    if is_new:
        synchronize(path.parent)


def aside(path: Path) -> Path:
    """Return the path at which a damaged file is kept, `NAME.damaged-1` or the next number: nothing of it is lost."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return kept


def set_aside(path: Path) -> Path:
    """Rename a damaged file to the path where it is kept, and return that."""
    kept = aside(path)
    path.rename(kept)
    synchronize(path.parent)
    return kept


def tells_of_no_room(text: str) -> bool:
    """Return whether an error's text is that of a full disk, wherever it was raised."""
    return any(os.strerror(number) in text for number in NO_ROOM)


def _whereabouts(store: str) -> tuple[tuple[object, ...], tuple[str, ...]]:
    """Return what identifies a folder, and the names that lead on from there.

    A folder of this machine is identified by the last one on the way that exists, a store's by its address.
    """
    if is_local(store):
        for folder, names in _ways(store):
            try:
                stat = folder.stat()
            except OSError:
                continue
            return (stat.st_dev, stat.st_ino), names
    parts = urlsplit(store)
    options = parse_qs(parts.query)
    endpoint = options.get("endpoint_override", [""])[0].rpartition("://")[2].rstrip("/").lower()
    scheme, bucket = parts.scheme.lower(), parts.netloc.rpartition("@")[2]
    names = tuple(name for name in unquote(parts.path).split("/") if name)
    return (SYNONYMS.get(scheme, scheme), bucket, endpoint), names


def _ways(store: str) -> list[tuple[Path, tuple[str, ...]]]:
    """Return a folder of this machine, then each that it lies in; with the names that lead from there to it."""
    path = local_path(store)
    return [(folder, path.parts[len(folder.parts) :]) for folder in (path, *path.parents)]


def _shown(name: object) -> str:
    """Return as much of a name as a line has room for."""
    text = ascii(name)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
