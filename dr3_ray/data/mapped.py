"""Columns as they lie in a mapped file: as arrays that are no copies, and rows of them as training takes them."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from dr3_ray.data.columns import Column, Columns
from dr3_ray.data.frames import Framed
from dr3_ray.data.number_types import Array

# Row b holds the bits of byte b, lowest first, as Arrow packs them.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float32)


def as_array(array: pa.Array, column: Column, rows: int) -> Array:
    """Return the column's buffer as an array [rows, elements], bit rows as bytes, flags as [bytes]; not a copy.

    Raises:
        ValueError: it holds fewer values.
    """
    bits = column.dtype == np.bool_
    shape = ((rows + 7) // 8,) if bits and not column.packed else (rows, *column.row_shape)
    dtype = np.dtype(np.uint8) if bits else column.dtype
    return np.frombuffer(array.buffers()[-1], dtype, count=math.prod(shape)).reshape(shape)


def plain_values(array: pa.Array) -> Array:
    """Copy a column of plain values without nulls, as its `to_numpy` does, which would import pandas."""
    if not pa.types.is_boolean(array.type):
        return np.from_dlpack(array).copy()
    packed = np.frombuffer(array.buffers()[-1], np.uint8)
    return np.unpackbits(packed, count=array.offset + len(array), bitorder="little")[array.offset :].astype(bool)


def select(column: Column, stored: Array | Framed, rows: Array) -> Array:
    """Copy these rows as they lie on disk, flags as 0 or 1, observations as a column of them would."""
    if isinstance(stored, Framed):
        return stored.select(rows)
    if column.dtype != np.bool_ or column.packed:
        return stored.take(rows, 0)
    flags: Array = stored.take(rows >> 3) >> (rows & 7) & 1
    return flags


def decode(name: str, column: Column, values: Array, lead: Sequence[int]) -> Array:
    """Return selected rows [R, …] as training takes them, [*lead, *shape]."""
    if column.packed:
        bits = _BITS.take(values.reshape(-1), 0).reshape(len(values), 8 * values.shape[1])
        values = bits[:, : column.size]
    elif column.dtype.kind == "i":
        values = values.astype(np.int64, copy=False)
    elif column.dtype == np.bool_:
        values = values.astype(np.bool_ if name == "next_actions_valid" else np.float32)
    return values.reshape(*lead, *(column.shape or ()))


def routed(rows: Array, ends: Array, piece: Callable[[int, Array], Columns]) -> Columns:
    """Copy the rows [R] of what consists of pieces, one after the other, that end at `ends`.

    `piece` copies rows of the piece of a number, counted from its first.
    """
    piece_of = np.searchsorted(ends, rows, "right")
    order = piece_of.argsort()
    back = order.argsort()
    counts = np.bincount(piece_of, minlength=len(ends))
    parts = zip(np.split(rows[order], counts.cumsum()[:-1]), [0, *ends.tolist()], strict=False)
    pieces = [piece(number, part - start) for number, (part, start) in enumerate(parts) if len(part)] or [
        piece(0, rows)
    ]
    return {name: np.concatenate([rows[name] for rows in pieces]).take(back, 0) for name in pieces[0]}
