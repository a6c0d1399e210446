"""Histories of all members in one tidy Parquet file, complete and readable at any moment."""

import os
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dr3_ray.errors import UserError, first_line
from dr3_ray.runs.columns import Row, config_column, measured, measured_table, measurements
from dr3_ray.runs.index import FINAL, Record, repair
from dr3_ray.stores import replacing

HISTORIES = "histories.parquet"
WRITTEN = b"written"  # in its metadata: when, in seconds since 1970, whatever a copy does to the file's own time
SHARE = 0.02  # of the time may go into rewriting the file,
PAUSE = 2.0  # and it is not done more often than so many seconds


def read_histories(run: str | os.PathLike[str], columns: Collection[str] | None = None) -> pa.Table:
    """Return all rows of a run directory, also while its sweep is running, with all `columns` that there are.

    The file is opened once: `pq.read_table(path)` and `pd.read_parquet(path)` open it twice, and may find another one
    the second time. Raises what pyarrow raises for a missing or damaged file.
    """
    with pq.ParquetFile(Path(run) / HISTORIES, page_checksum_verification=True) as file:
        return file.read(columns and [name for name in file.schema_arrow.names if name in columns])


def written_at(run: str | os.PathLike[str]) -> float:
    """Return when the histories of a run were written, in seconds since 1970; 0 if they are missing or damaged."""
    try:
        return float((pq.read_metadata(Path(run) / HISTORIES).metadata or {}).get(WRITTEN, 0.0))
    except (pa.ArrowException, OSError, ValueError):
        return 0.0


def lacks_rows(record: Record, reached: Mapping[str, int]) -> bool:
    """Return whether a member has ended without rows up to its end, where `reached` holds members' last steps.

    Version 0.1 did not write down where members ended; a member that was cut or diverged then needs any row.
    """
    least = record.get("end") or (record["config"].get("steps", 1) if record["status"] == "finished" else 1)
    return record["status"] in FINAL and reached.get(record["member"], 0) < least


def rows_are_lost(count: int, run: str | os.PathLike[str]) -> str:
    """Say that so many members lack rows, and what brings them back."""
    return f"{count} runs that have ended lack rows: {repair(run, 'brings them back, or trains again')}"


def histories_of(run: str | os.PathLike[str], columns: Collection[str] | None, ended: bool) -> pa.Table:
    """Return these columns of a run directory, or all of them, for a reader.

    Without the file there are no rows, unless members have ended.

    Raises:
        UserError: the file is damaged, or lost although members have `ended`; says what brings the rows back.
    """
    path = Path(run) / HISTORIES
    if not path.exists() and not ended:
        return measured_table([])
    try:
        return measurements(read_histories(run, columns))
    except FileNotFoundError:
        problem = "is missing"
    except (pa.ArrowException, OSError) as error:
        problem = f"is damaged ({first_line(error)})"
    raise UserError(f"{path} {problem}: {repair(run, 'rebuilds it from the checkpoints')}")


class Listener(Protocol):
    """An object that is told of rows as they come."""

    def row(self, member: str, step: int, values: Row) -> None:
        """Take a new row; it takes the place of those from this step on."""

    def end(self, members: Iterable[str]) -> None:
        """Note that these members are trained to their end."""


class Histories:
    """One row for each member and evaluation: the member's hash and configuration, then what was measured.

    `configs` are those of all members, `columns` the keys of a configuration that stand in the file, `types` those of
    options (`dr3_ray.sweep.spec.names.option_types`). Rows that are in the file already stay; those of a member that
    is trained again give way as its new ones come in.
    """

    def __init__(
        self,
        run: Path,
        configs: dict[str, dict[str, Any]],
        columns: Iterable[str],
        types: Mapping[str, pa.DataType],
    ) -> None:
        self._path = run / HISTORIES
        self._configs, self._columns, self._types = configs, tuple(dict.fromkeys(columns)), types
        self._settled: list[pa.Table] = []  # measurements of members that will get no further rows
        self._live: dict[str, list[Row]] = {}
        self._changed, self._next = False, 0.0
        self.listeners: list[Listener] = []

    def load(self, again: Iterable[str]) -> None:
        """Take up the rows of an earlier sweep in this directory; the members `again` will be trained once more.

        Raises:
            pa.ArrowException: the file is damaged; see `dr3_ray.sweep.recovery`.
            OSError: the file cannot be read.
        """
        if not self._path.exists():
            return
        table = measurements(read_histories(self._path.parent), self._all_config_names())
        table = table.filter(pc.is_in(table["member"], pa.array(list(self._configs), pa.string())))
        redone = pc.is_in(table["member"], pa.array(list(again), pa.string()))
        self._settled = [table.filter(pc.invert(redone))]
        for row in table.filter(redone).to_pylist():
            self._live.setdefault(row["member"], []).append({"member": row.pop("member")} | measured(row))
        self._changed = True

    @property
    def reached(self) -> dict[str, int]:
        """The last step of each member that is being trained, or will be again."""
        return {member: rows[-1]["step"] for member, rows in self._live.items() if rows}

    def add(self, member: str, step: int, values: Row) -> None:
        """Append one row, and drop the member's rows from this step on, of an attempt that failed.

        What the member has from this step on, from an attempt that failed, is dropped.
        """
        rows = self._live.setdefault(member, [])
        while rows and rows[-1]["step"] >= step:
            rows.pop()
        rows.append({"member": member, "step": step} | measured(values))
        self._changed = True
        for listener in self.listeners:
            listener.row(member, step, values)

    def settle(self, members: Iterable[str]) -> None:
        """Note that these members get no further rows, and convert theirs for the last time."""
        members = list(members)
        for listener in self.listeners:
            listener.end(members)
        rows = [row for member in members for row in self._live.pop(member, [])]
        if rows:
            self._settled.append(measured_table(rows))

    def flush(self, force: bool = True) -> bool:
        """Replace the file by one with all rows, and return whether it is up to date.

        Without `force` only if that keeps within its share of the time.
        """
        if not self._changed:
            return True
        started = time.monotonic()
        if not force and started < self._next:
            return False
        rows = [row for live in self._live.values() for row in live]
        table = pa.concat_tables([*self._settled, measured_table(rows)], promote_options="default").combine_chunks()
        self._settled = self._settled and [pa.concat_tables(self._settled, promote_options="default")]
        full = self._with_configs(table).replace_schema_metadata({WRITTEN: str(time.time())})
        floats = [field.name for field in full.schema if pa.types.is_floating(field.type)]
        others = [name for name in full.column_names if name not in floats]
        with replacing(self._path) as partial:
            # measured numbers hardly repeat, and have their bytes in common by place: a dictionary would take longer
            layout = {"use_byte_stream_split": floats, "use_dictionary": others, "write_page_checksum": True}
            pq.write_table(full, partial, compression="zstd", **layout)
        self._changed = False
        finished = time.monotonic()
        self._next = finished + max(PAUSE, (finished - started) / SHARE)
        return True

    def _with_configs(self, table: pa.Table) -> pa.Table:
        """Return `member`, the columns of its configuration, `step` and `time_s`, then the measurements by name."""
        members = table["member"].combine_chunks().dictionary_encode()
        configs = [self._configs[member] for member in members.dictionary.to_pylist()]
        columns = {name: config_column(name, configs, self._types) for name in self._columns}
        first = {"member": table["member"]} | {name: column.take(members.indices) for name, column in columns.items()}
        leading = [name for name in ("step", "time_s", "episode_return_mean", "episodes") if name in table.column_names]
        others = sorted(set(table.column_names) - {"member", *leading})
        return pa.table(first | {name: table[name] for name in (*leading, *others)})

    def _all_config_names(self) -> set[str]:
        return {name for config in self._configs.values() for name in config}
