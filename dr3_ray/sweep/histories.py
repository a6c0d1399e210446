"""Histories of all members in one tidy Parquet file, complete and readable at any moment."""

import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dr3_ray.errors import UserError, first_line

HISTORIES = "histories.parquet"
WRITTEN = b"written"  # in its metadata: when, in seconds since 1970, whatever a copy does to the file's own time
SHARE = 0.02  # of the time may go into rewriting the file,
PAUSE = 2.0  # and it is not done more often than so many seconds

Row = dict[str, Any]


def read_histories(run: str | os.PathLike[str], columns: Collection[str] | None = None) -> pa.Table:
    """All rows of a run directory, also while its sweep is running; of `columns` those that there are, or else of all.

    The file is opened once: `pq.read_table(path)` and `pd.read_parquet(path)` open it twice, and may find another one
    the second time. Raises what pyarrow raises for a missing or damaged file.
    """
    with pq.ParquetFile(Path(run) / HISTORIES) as file:
        return file.read(columns and [name for name in file.schema_arrow.names if name in columns])


class Listener(Protocol):
    """Is told of rows as they come."""

    def row(self, member: str, step: int, measured: Row) -> None:
        """A new row; it takes the place of those from this step on."""

    def end(self, members: Iterable[str]) -> None:
        """These members are trained to their end."""


class Histories:
    """One row for each member and evaluation: the member's hash and configuration, then what was measured.

    `configs` are those of all members, `columns` the keys of a configuration that stand in the file. Rows that are in
    the file already stay; those of a member that is trained again give way as its new ones come in.
    """

    def __init__(self, run: Path, configs: dict[str, dict[str, Any]], columns: Iterable[str]) -> None:
        self._path = run / HISTORIES
        self._configs, self._columns = configs, tuple(dict.fromkeys(columns))
        self._settled: list[pa.Table] = []  # measurements of members that will get no further rows
        self._live: dict[str, list[Row]] = {}
        self._changed, self._next = False, 0.0
        self.listeners: list[Listener] = []

    def load(self, again: Iterable[str]) -> None:
        """Take up the rows of an earlier sweep in this directory; the members `again` will be trained once more."""
        if not self._path.exists():
            return
        try:
            table = read_histories(self._path.parent)
            again = pa.array(list(again), pa.string())
            known = pc.is_in(table["member"], pa.array(list(self._configs), pa.string()))
        except (pa.ArrowException, KeyError, OSError) as error:
            reason = first_line(error)
            raise UserError(f"{self._path} is damaged ({reason}): move it away and run the command again") from error
        measured = table.select([name for name in table.column_names if name not in self._all_config_names()])
        redone = pc.is_in(table["member"], again)
        self._settled = [measured.filter(pc.and_(known, pc.invert(redone)))]
        for row in measured.filter(redone).to_pylist():
            self._live.setdefault(row["member"], []).append(row)
        self._changed = True

    def add(self, member: str, step: int, measured: Row) -> None:
        """Append one row. What the member has from this step on, from an attempt that failed, is dropped."""
        rows = self._live.setdefault(member, [])
        while rows and rows[-1]["step"] >= step:
            rows.pop()
        rows.append({"member": member, "step": step, **measured})
        self._changed = True
        for each in self.listeners:
            each.row(member, step, measured)

    def settle(self, members: Iterable[str]) -> None:
        """These members will get no further rows: they are not converted again at every flush."""
        members = list(members)
        for each in self.listeners:
            each.end(members)
        rows = [row for member in members for row in self._live.pop(member, [])]
        if rows:
            self._settled.append(pa.Table.from_pylist(rows, _schema(rows)))

    def flush(self, force: bool = True) -> bool:
        """Replace the file by one with all rows; without `force` only if that keeps within its share of the time.

        Returns whether the file is up to date.
        """
        if not self._changed:
            return True
        started = time.monotonic()
        if not force and started < self._next:
            return False
        rows = [row for live in self._live.values() for row in live]
        tables = [*self._settled, *([pa.Table.from_pylist(rows, _schema(rows))] if rows else [])]
        table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
        self._settled = self._settled and [pa.concat_tables(self._settled, promote_options="permissive")]
        partial = self._path.with_name(f".{self._path.name}.partial")
        try:
            full = self._with_configs(table).replace_schema_metadata({WRITTEN: str(time.time())})
            floats = [field.name for field in full.schema if pa.types.is_floating(field.type)]
            others = [name for name in full.column_names if name not in floats]
            # measured numbers hardly repeat, and have their bytes in common by place: a dictionary would take longer
            pq.write_table(full, partial, compression="zstd", use_byte_stream_split=floats, use_dictionary=others)
            os.replace(partial, self._path)
        finally:
            partial.unlink(missing_ok=True)
        self._changed = False
        finished = time.monotonic()
        self._next = finished + max(PAUSE, (finished - started) / SHARE)
        return True

    def _with_configs(self, table: pa.Table) -> pa.Table:
        """`member`, the columns of its configuration, `step` and `time_s`, then the measurements by name."""
        members = table["member"].combine_chunks().dictionary_encode()
        configs = [self._configs[member] for member in members.dictionary.to_pylist()]
        columns = {name: pa.array([config.get(name) for config in configs]) for name in self._columns}
        first = {"member": table["member"]} | {name: each.take(members.indices) for name, each in columns.items()}
        leading = [name for name in ("step", "time_s", "episode_return_mean", "episodes") if name in table.column_names]
        others = sorted(set(table.column_names) - {"member", *leading})
        return pa.table(first | {name: table[name] for name in (*leading, *others)})

    def _all_config_names(self) -> set[str]:
        return {name for config in self._configs.values() for name in config}


def _schema(rows: list[Row]) -> pa.Schema:
    """All names that occur: members of different algorithms have different losses."""
    values = {name: value for row in rows for name, value in row.items()}
    return pa.schema([(name, pa.scalar(value).type) for name, value in values.items()])
