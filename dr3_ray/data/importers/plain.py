"""Plain tables in files: CSV, Parquet, Arrow, .npz and HDF5, with a row for each step."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from dr3_ray.data.importers.columns import mapped
from dr3_ray.data.importers.files import SUFFIXES, arrow_data, existing, hdf5, hdf5_keys
from dr3_ray.data.importers.npz import Npz
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import ArrayTable, ArrowTable, Table, names_of
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError

CSV = re.compile(r"\.(csv|tsv)(\.(gz|bz2|zst))?$")
REAL = ("observations", "next_observations", "rewards")  # columns of a CSV file that are real, whatever its first rows


def csv_source(path: str, options: Options) -> Source:
    """Return the episodes of a CSV file with a line of names."""
    file = existing(path)
    parsing, point = dialect(file)
    reading: dict[str, Any] = {"decimal_point": point, "true_values": _spaced("true"), "false_values": _spaced("false")}
    data = arrow_data(file, "csv", parse_options=parsing, convert_options=pacsv.ConvertOptions(**reading))
    columns = mapped(data.schema.names, options.columns)
    if any(pa.types.is_binary(data.schema.field(name).type) for theirs in columns.values() for name in theirs):
        raise UserError(f"{path} is not UTF-8: save it as UTF-8")
    types = {
        name: pa.float64()
        for ours, theirs in columns.items()
        if ours.partition("/")[0] in REAL
        for name in theirs
        if pa.types.is_integer(data.schema.field(name).type)
    } | {name: pa.string() for name in columns.get("episode_ids", ())}  # 7 and 007 are two names, as are large numbers
    converting = pacsv.ConvertOptions(column_types=types, **reading)
    data = arrow_data(file, "csv", parse_options=parsing, convert_options=converting)
    return _source(path, ArrowTable(data, columns), options, data.schema.names)


def parquet_source(path: str, options: Options) -> Source:
    """Return the episodes of a Parquet file, or of all of a folder in the order of their names."""
    return _arrow(path, "parquet", options)


def arrow_source(path: str, options: Options) -> Source:
    """Return the episodes of a file of Arrow, which others call feather, or of a folder that `datasets` saved."""
    return _arrow(path, "ipc", options)


def _arrow(path: str, kind: str, options: Options) -> Source:
    data = arrow_data(existing(path), kind)
    names = names_of(data.schema)
    return _source(path, ArrowTable(data, mapped(names, options.columns)), options, names)


def hdf5_source(path: str, options: Options) -> Source:
    """Return the episodes of the arrays of an HDF5 file; those in groups are called group/array."""
    file = hdf5(existing(path))
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if getattr(item, "shape", ()) else None)
    return _source(path, ArrayTable(file, mapped(names, options.columns)), options, names)


def npz_source(path: str, options: Options) -> Source:
    """Return the episodes of an .npz file of arrays with a row for each step."""
    arrays = Npz(existing(path), options.trust)
    table = ArrayTable(arrays, mapped(arrays, options.columns))
    return _source(path, table, options, arrays)


def _source(path: str, table: Table, options: Options, names: Iterable[str]) -> Source:
    about: dict[str, Any] = {"name": Path(path).stem, "provenance": Provenance(source=path)}
    return table_source(table, options, names=names, guessed=True, **about)


def _spaced(word: str) -> list[str]:
    """Return a flag as it is written, also behind a comma and a space."""
    return [f"{space}{form}" for form in (word, word.title(), word.upper()) for space in ("", " ")]


def dialect(path: Path) -> tuple[pacsv.ParseOptions, str]:
    """Return how a CSV file is to be parsed, by what stands between the names at its top, and its decimal point."""
    with pa.input_stream(str(path)) as stream:  # unpacked, by its suffix
        head = stream.read(2**16).decode("utf-8", "replace")
    names, _, rows = head.partition("\n")
    bare = re.sub(r'"[^"]*"', "", names)
    between = max(",;\t|", key=bare.count)  # of equally many, the first
    comma = between != "," and re.search(rf"(^|[{between}])-?\d+,\d+([{between}\r\n]|$)", rows) is not None
    return pacsv.ParseOptions(delimiter=between), "," if comma else "."


def is_csv(path: Path) -> bool:
    """Return whether a path looks like a CSV file."""
    return path.is_file() and bool(CSV.search(path.name.lower()))


def is_arrow(path: Path) -> bool:
    """Return whether a path looks like a file of Arrow, or a folder with such."""
    if path.is_dir():
        return any(file.suffix in SUFFIXES["ipc"] for file in path.iterdir())
    return path.suffix.lower() in SUFFIXES["ipc"]


def is_hdf5(path: Path) -> bool:
    """Return whether a file is one of HDF5, whatever is in it."""
    return bool(hdf5_keys(path))


def is_parquet(path: Path) -> bool:
    """Return whether a path looks like a Parquet file, or a folder with such, in `data` or `column=value` as well."""
    if path.is_dir():
        return any(any(path.glob(pattern)) for pattern in ("*.parquet", "data/*.parquet", "*=*/**/*.parquet"))
    return path.suffix.lower() == ".parquet"


def is_npz(path: Path) -> bool:
    """Return whether a path looks like an .npz file."""
    return path.suffix.lower() == ".npz" and path.is_file()
