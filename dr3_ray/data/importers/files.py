"""Files of this machine that sources lie in, opened with one line for what is wrong with them."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr3_ray.data.importers.reading import unreadable
from dr3_ray.errors import UserError
from dr3_ray.uris import path_here

if TYPE_CHECKING:
    import h5py
    import pyarrow.dataset as pads

WORDS = {"ipc": "Arrow"}  # for people
SUFFIXES = {"parquet": (".parquet",), "ipc": (".arrow", ".feather", ".ipc")}  # of files in a folder


def existing(path: str) -> Path:
    """Return the path of a file or folder.

    Raises:
        UserError: nothing is there, or it is the URI of something elsewhere.
    """
    there = path_here(path)
    if not there or not there.exists():
        raise UserError(f"{path} does not exist: check the path")
    return there


def hdf5(path: Path) -> "h5py.File":
    """Open an HDF5 file for reading.

    Raises:
        UserError: it is none, or cut off.
    """
    import h5py

    try:
        file = h5py.File(path, "r", rdcc_nbytes=2**24)
    except OSError as error:
        raise unreadable(path, "HDF5 file", error) from None
    file.visititems(lambda name, item: _check_sources(path, name, item))
    return file


def _check_sources(path: Path, name: str, item: Any) -> None:
    """Check that the files of a virtual data set are there: HDF5 shows zeros in the place of a missing one."""
    for source in item.virtual_sources() if getattr(item, "is_virtual", False) else ():
        if source.file_name != "." and "%" not in source.file_name and not (path.parent / source.file_name).is_file():
            raise UserError(f"{path}: {name} lies in {source.file_name}, which is not there: copy that file as well")


def hdf5_keys(path: Path) -> set[str]:
    """Return the names at the top of an HDF5 file; none if it is another file.

    Raises:
        UserError: it is cut off.
    """
    import h5py

    if not path.is_file() or not h5py.is_hdf5(path):
        return set()
    with hdf5(path) as file:
        return set(file)


def natural(name: str | Path) -> list[str | int]:
    """Return a key by which obs_2 comes before obs_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(name))]


def _of_all(schemas: Sequence[Any]) -> Any:
    """Return one schema with every column of several, in a type that holds the numbers of all of them.

    Arrow takes that of the first: it cuts the numbers of others to its types, and leaves out their columns. Where there
    is no such type, Arrow says when it reads what does not fit into the first.
    """
    import pyarrow as pa

    fields: dict[str, Any] = {}
    for schema in dict.fromkeys(schema.remove_metadata() for schema in schemas):
        for field in schema:
            with suppress(pa.ArrowTypeError):
                both = [pa.schema([form]) for form in (fields.get(field.name, field), field)]
                fields[field.name] = pa.unify_schemas(both, promote_options="permissive").field(0)
    return pa.schema(fields.values())


def _begins(file: Path, mark: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(mark)) == mark


def _streamed(file: Path) -> Any:
    """Return the table that Arrow, or the package `datasets`, wrote as a stream; it is mapped."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_stream(source).read_all()


def arrow_data(path: Path, kind: str, **options: Any) -> "pads.Dataset":
    """Open a table in CSV, Parquet or Arrow's format ("ipc"), or a folder of files in the order of their names.

    Raises:
        UserError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.dataset as pads

    try:
        inside = (file for file in path.rglob("*") if file.suffix in SUFFIXES.get(kind, ()))
        files = sorted(inside, key=natural) if path.is_dir() else [path]
        if kind == "ipc" and not all(_begins(file, b"ARROW1") for file in files):
            return pads.dataset(pa.concat_tables(map(_streamed, files), promote_options="permissive"))
        named = any("=" in file.relative_to(path).parent.as_posix() for file in files)  # episode=7/part.parquet
        form: Any = pads.CsvFileFormat(**options) if kind == "csv" else kind
        how = {"format": form, "partitioning": "hive" if named else None}
        data = pads.dataset(files, **how)
        schema = _of_all([data.schema, *(file.physical_schema for file in data.get_fragments() if len(files) > 1)])
        return data if schema == data.schema else pads.dataset(files, schema, **how)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, f"{WORDS.get(kind, kind)} table", error) from None
