"""Arrays of an .npz file, mapped: memory does not grow with the file."""

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy

from dr3_ray.data.importers.reading import reading, unreadable
from dr3_ray.data.number_types import Array
from dr3_ray.errors import UserError


class Npz(Mapping[str, Any]):
    """The arrays of a file by name, mapped; compressed ones are unpacked into a temporary file first.

    Raises:
        UserError: it is no such file, damaged, or holds Python objects and `trust` is false.
    """

    def __init__(self, path: Path, trust: bool = False) -> None:
        self._path, self._trust = path, trust
        try:
            with zipfile.ZipFile(path) as archive:
                members = [(info.filename.removesuffix(".npy"), info) for info in archive.infolist()]
        except (OSError, zipfile.BadZipFile) as error:
            raise unreadable(path, ".npz file", error) from None
        self._members = dict(members)
        names = [name for name, _ in members]
        if twice := [name for place, name in enumerate(names) if name in names[:place]]:
            raise UserError(f"{path} has {twice[0]!r} twice: save it anew, with one array of each name")
        if not self._members:
            raise UserError(f"{path} holds no arrays: save them with numpy.savez")

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, name: str) -> Any:
        info = self._members[name]
        with reading(f"{name} in {self._path}", "copy it again"):
            with zipfile.ZipFile(self._path) as archive, archive.open(info) as member:
                # reading to the end compares the checksum
                if info.compress_type == zipfile.ZIP_STORED:
                    while member.read(2**20):
                        pass
                    file: IO[bytes] = open(self._path, "rb")  # noqa: SIM115 (the map keeps it open)
                    file.seek(_start(file, info))
                else:
                    file = copied(member)
            array = Mapped(file)
        return self._unpickled(name) if array.dtype.hasobject else array

    def _unpickled(self, name: str) -> Array:
        if not self._trust:
            raise UserError(
                f"{name} in {self._path} is pickled, which can run code when it is read: give --trust if you trust "
                "its author"
            )
        remedy = "install what its author pickled it with, and save arrays of one shape"
        with reading(f"{name} in {self._path}", remedy), np.load(self._path, allow_pickle=True) as arrays:
            return np.stack(arrays[name].tolist())


def copied(stream: IO[bytes]) -> IO[bytes]:
    """Copy a stream to a temporary file, rewound; the file goes when nobody maps it."""
    file = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115 (the map keeps it open)
    copyfileobj(stream, file, 2**20)
    file.seek(0)
    return file


class Mapped:
    """The array of an .npy file, whose slices are copies, so that memory does not hold the pages of the rest."""

    def __init__(self, file: IO[bytes]) -> None:
        self.shape, fortran, self.dtype = _header(file)
        self._order: Any = "F" if fortran else "C"
        self._file, self._start = file, file.tell()
        if not self.dtype.hasobject and 0 not in self.shape:
            self._map()  # ValueError: the file is shorter than its header says

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Array:
        if 0 in self.shape:
            return np.asarray(np.empty(self.shape, self.dtype)[key])
        taken: Array = np.array(self._map()[key])
        return taken

    def _map(self) -> Array:
        return np.memmap(cast(Any, self._file), self.dtype, "r", self._start, self.shape, self._order)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[...], dtype)


def _start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Return where the content of a stored member begins: after its header and two names of their own lengths."""
    file.seek(info.header_offset + 26)
    name, extra = np.frombuffer(file.read(4), "<u2").tolist()
    return int(info.header_offset + 30 + name + extra)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in read:
        raise ValueError(f"version {version} of the format is unknown")
    shape, fortran, dtype = read[version](file)
    return shape, fortran, dtype
