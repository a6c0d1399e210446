"""Plain tables in files: CSV, Parquet and .npz, with a row for each step."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from dr3_ray.data.importers.columns import mapped
from dr3_ray.data.importers.files import arrow_data, existing
from dr3_ray.data.importers.npz import Npz
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import ArrayTable, ArrowTable, Table
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError

REAL = ("observations", "next_observations", "rewards")  # columns of a CSV file that are real, whatever its first rows


def csv_source(path: str, options: Options) -> Source:
    """Return the episodes of a CSV file with a line of names."""
    file = existing(path)
    data = arrow_data(file, "csv")
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
    data = arrow_data(file, "csv", convert_options=pacsv.ConvertOptions(column_types=types))
    return _source(path, ArrowTable(data, columns), options, data.schema.names)


def parquet_source(path: str, options: Options) -> Source:
    """Return the episodes of a Parquet file, or of all of a folder in the order of their names."""
    data = arrow_data(existing(path), "parquet")
    return _source(path, ArrowTable(data, mapped(data.schema.names, options.columns)), options, data.schema.names)


def npz_source(path: str, options: Options) -> Source:
    """Return the episodes of an .npz file of arrays with a row for each step."""
    arrays = Npz(existing(path), options.trust)
    table = ArrayTable(arrays, mapped(arrays, options.columns))
    return _source(path, table, options, arrays)


def _source(path: str, table: Table, options: Options, names: Iterable[str]) -> Source:
    about: dict[str, Any] = {"name": Path(path).stem, "provenance": Provenance(source=path)}
    return table_source(table, options, names=names, guessed=True, **about)


def is_csv(path: Path) -> bool:
    """Return whether a path looks like a CSV file."""
    return path.suffix.lower() == ".csv" and path.is_file()


def is_parquet(path: Path) -> bool:
    """Return whether a path looks like a Parquet file, or a folder with nothing else."""
    if path.is_dir():
        return any(path.glob("*.parquet"))
    return path.suffix.lower() == ".parquet"


def is_npz(path: Path) -> bool:
    """Return whether a path looks like an .npz file."""
    return path.suffix.lower() == ".npz" and path.is_file()
