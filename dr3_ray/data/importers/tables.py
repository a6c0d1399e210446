"""Tables of transitions, in memory or in files, read batch by batch by the names of our columns."""

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.columns import NAMES
from dr3_ray.data.importers.layout import Layout, check_batch, layout_of
from dr3_ray.data.importers.reading import items_of
from dr3_ray.data.importers.rows import FLAGS, Batch
from dr3_ray.data.number_types import Array, side_by_side
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    import pyarrow.dataset as pads

PICTURES = (b"\x89PNG", b"\xff\xd8\xff")  # how files of images begin
NO_ROWS = "there are no rows to write: an empty data set is of no use, check the source"
OF_ANY_TYPE = (*FLAGS, "episode_ids")  # columns that are looked at row by row
WHOLE = {name for key, (_, names) in NAMES.items() if not key.endswith("observation") for name in names}
BATCH_BYTES = 2**24  # of rows that are looked at together


class Table(Protocol):
    """Rows by the names of our columns, which can be read more than once."""

    rows: int
    layout: Layout
    columns: dict[str, list[str]]
    flat: bool
    """Whether next observations may have been made of the row after, which may be another episode's."""

    ranged: bool
    """Whether reading some of the rows takes about their share of the time."""

    def batches(
        self, names: Iterable[str], findings: Findings | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        """Yield the rows of these columns in order, and count what had to be mended; only a ranged table has ranges."""


class ArrayTable:
    """Arrays [N, *shape] with the same N: of numpy, mapped, or of h5py.

    Several columns for one of ours are numbers that stand beside each other; none are zeros.
    """

    flat = ranged = True

    def __init__(self, arrays: Mapping[str, Any], columns: dict[str, list[str]]) -> None:
        self._arrays = {ours: [arrays[name] for name in theirs] for ours, theirs in columns.items()}
        self.columns = columns
        lengths = {name: _length(name, arrays[name]) for theirs in columns.values() for name in theirs}
        if len(set(lengths.values())) != 1:
            said = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
            raise UserError(f"the lengths differ: {said}: give as many of each")
        self.rows = next(iter(lengths.values()))
        if not self.rows:
            raise UserError(NO_ROWS)
        self.layout = {ours: _stacked_layout(ours, parts) for ours, parts in self._arrays.items()}

    def batches(
        self, names: Iterable[str], findings: Findings | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        """Yield slices of the arrays."""
        return items_of(self._slices(list(names), start, self.rows if stop is None else stop), "the table")

    def _slices(self, names: list[str], first: int, stop: int) -> Iterator[Batch]:
        row_bytes = sum(self.layout[name][0].itemsize * math.prod(self.layout[name][1]) for name in names)
        step = max(1, BATCH_BYTES // max(1, row_bytes))
        for start in range(first, stop, step):
            rows = slice(start, min(start + step, stop))
            yield {name: _stacked([part[rows] for part in self._arrays[name]], rows.stop - start) for name in names}


class BatchTable:
    """Rows that a function yields batch by batch; `columns` says what of the source they are.

    Every batch has the columns and shapes of the first. One without rows, as an episode without steps, is passed over.
    """

    flat = ranged = False

    def __init__(self, read: Callable[[Findings], Iterator[Batch]], columns: dict[str, list[str]], rows: int = 0):
        self._read, self.rows = read, rows
        self.layout: Layout = {}
        head = next(self._batches(Findings()), None)
        if head is None:
            raise UserError(NO_ROWS)
        self.layout = layout_of(head)
        self.columns = {name: columns.get(name, [name]) for name in head}

    def batches(
        self, names: Iterable[str], findings: Findings | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of the function."""
        names = list(names)
        return ({name: batch[name] for name in names} for batch in self._batches(findings or Findings()))

    def _batches(self, findings: Findings) -> Iterator[Batch]:
        for number, batch in enumerate(items_of(self._read(findings), "the table")):
            check_batch(batch, self.layout, f"episode {next(iter(batch['episode_ids']), number)}")
            if len(batch["rewards"]):
                yield batch


class ArrowTable:
    """Columns of an Arrow data set: CSV and Parquet files, or a frame of pandas or polars; none are zeros."""

    flat = True

    def __init__(self, data: "pads.Dataset", columns: dict[str, list[str]]) -> None:
        self._data, self.columns = data, columns
        self._fields = {name: _field(data.schema, name) for theirs in columns.values() for name in theirs}
        self.ranged = getattr(getattr(data, "format", None), "default_extname", "") == "parquet"
        self.rows = data.count_rows()
        head = data.head(1, columns=self._fields)
        if not head.num_rows:
            raise UserError(NO_ROWS)
        first = head.to_batches()[0]
        self.layout = layout_of(self._batch(first, columns, 0))
        for ours, theirs in columns.items():
            if self.layout[ours][0].kind == "O" and ours not in OF_ANY_TYPE:
                column = first.column(theirs[0])
                raise UserError(
                    f"{theirs[0]} holds {column.type}, such as {str(column[0])[:30]!r}, and {ours} are numbers: "
                    "convert it in the source, or name another column"
                )

    def batches(
        self, names: Iterable[str], findings: Findings | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        """Yield record batches, in order."""
        return items_of(self._batches(names, start, self.rows if stop is None else stop), "the table")

    def _batches(self, names: Iterable[str], start: int, stop: int) -> Iterator[Batch]:
        chosen = {name: self.columns[name] for name in names}
        row_bytes = sum(math.prod(self.layout[name][1]) * 8 for name in chosen)
        theirs = {column: self._fields[column] for columns in chosen.values() for column in columns}
        options = {"columns": theirs, "batch_size": max(1, BATCH_BYTES // max(1, row_bytes))}
        for row, batch in self._within(start, stop, options):
            begin, end = max(start - row, 0), min(stop - row, batch.num_rows)
            if begin < end:
                yield self._batch(batch.slice(begin, end - begin), chosen, row + begin)

    def _within(self, start: int, stop: int, options: dict[str, Any]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the record batches that have rows of a range, each with the number of its first row."""
        row, some = 0, (start, stop) != (0, self.rows)
        options |= {"schema": self._data.schema} if some else {}  # of all files, with what their folders are called
        for piece, rows in self._groups if some else ((self._data, self.rows),):
            if row < stop and row + rows > start:
                for batch in piece.to_batches(**options):
                    yield row, batch
                    row += batch.num_rows
            else:
                row += rows

    @cached_property
    def _groups(self) -> list[tuple[Any, int]]:
        """The row groups of Parquet files, each with its number of rows."""
        groups = (group for file in self._data.get_fragments() for group in file.split_by_row_group())
        return [(group, group.count_rows()) for group in groups]

    def _batch(self, batch: pa.RecordBatch, columns: dict[str, list[str]], row: int) -> Batch:
        return {
            ours: _stacked([from_arrow(batch.column(name), name, row) for name in theirs], batch.num_rows)
            for ours, theirs in columns.items()
        }


def names_of(schema: Iterable[pa.Field], within: str = "") -> list[str]:
    """Return the names of the columns of a schema, those in structs as `observation/position`.

    A struct with a name that actions, rewards or ends have stays whole.
    """
    return [
        name
        for field in schema
        for name in (
            names_of(field.type, f"{within}{field.name}/")
            if pa.types.is_struct(field.type) and not _is_picture(field.type) and field.name not in WHOLE
            else [f"{within}{field.name}"]
        )
    ]


def _is_picture(kind: pa.DataType) -> bool:
    """Return whether a struct is an image as the package `datasets` keeps it."""
    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def _field(schema: pa.Schema, name: str) -> Any:
    """Return what stands for a column, or for what lies in a struct, when rows are read."""
    import pyarrow.dataset as pads

    return pads.field(name) if name in schema.names else pads.field(*name.split("/"))


def _length(name: str, array: Any) -> int:
    if getattr(array, "dtype", None) is None or not array.shape:
        raise UserError(f"{name} is no array with a row for each step: leave it out")
    if array.dtype.hasobject:
        raise UserError(
            f"{name} holds Python objects, not numbers: convert it, or read it with --trust if it is pickled"
        )
    return int(array.shape[0])


def _stacked_layout(ours: str, parts: list[Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    if len(parts) == 1:
        return parts[0].dtype, tuple(parts[0].shape[1:])
    if not parts:
        return np.dtype(np.float32), ()
    if any(len(part.shape) != 1 for part in parts):
        raise UserError(f"{ours} is put together of {len(parts)} arrays, which are not all one number a row: name one")
    return np.result_type(*(part.dtype for part in parts)), (len(parts),)


def _stacked(parts: list[Array], rows: int) -> Array:
    if not parts:
        return np.zeros(rows, np.float32)
    if len(parts) == 1:
        return np.asarray(parts[0])
    return side_by_side([np.asarray(part)[:, np.newaxis] for part in parts])


def from_arrow(array: pa.Array, name: str, row: int, width: int = 1) -> Array:
    """Return a column as numpy has it, `width` numbers a row; lists of one length as another dimension.

    Images in files, as the package `datasets` keeps them, are bytes [height, width, channel].
    """
    if array.null_count:
        at = int(np.flatnonzero(array.is_null())[0]) // width
        raise UserError(f"{name} is empty at row {row + at}: drop that episode, or repair it")
    if isinstance(array.type, pa.FixedShapeTensorType):
        if array.type.permutation:
            raise UserError(f"{name} is a tensor whose dimensions are permuted: write it in the order of its shape")
        return from_arrow(array.storage, name, row, width).reshape(len(array), *array.type.shape)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        lengths = set(array.value_lengths().to_pylist())
        if len(lengths) > 1:
            raise UserError(f"{name} has lists of {min(lengths)} to {max(lengths)} numbers: they have to be as long")
        inner = from_arrow(array.flatten(), name, row, width * max(1, *lengths))
        return inner.reshape(len(array), -1, *inner.shape[1:])
    if _is_picture(array.type):
        return _pictures(array.field("bytes"), name, row)
    if pa.types.is_binary(array.type) and len(array) and array[0].as_py().startswith(PICTURES):
        return _pictures(array, name, row)
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    values: Array = array.to_numpy(zero_copy_only=False)
    return values.view(np.int64) if values.dtype.kind in "mM" else values


def _pictures(files: pa.Array, name: str, row: int) -> Array:
    """Return images that are stored as files, PNG for one, as [R, height, width, channel]."""
    from PIL import Image

    def picture(content: bytes) -> Array:
        """Return one, with channels of its own."""
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "1") else image)
        return pixels if pixels.ndim > 2 else pixels[..., np.newaxis]

    if files.null_count:
        at = int(np.flatnonzero(files.is_null())[0])
        raise UserError(f"{name} names a file at row {row + at}, and does not hold it: store the images in the table")
    pictures = [picture(file) for file in files.to_pylist()]
    if other := next((place for place, image in enumerate(pictures) if image.shape != pictures[0].shape), 0):
        raise UserError(
            f"{name} has an image of shape {pictures[other].shape} at row {row + other}, and of {pictures[0].shape} at "
            f"row {row}: make them of one size"
        )
    return np.stack(pictures)
