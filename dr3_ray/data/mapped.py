"""Columns as they lie in a mapped file: as tensors that are no copies, and rows of them as training takes them."""

import math
import warnings

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dr3_ray.data.columns import Column
from dr3_ray.data.frames import Framed

# Row b holds the bits of byte b, lowest first, as Arrow packs them.
_BITS = torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")).float()


def as_tensor(array: pa.Array, column: Column, rows: int) -> Tensor:
    """Return the column's buffer as a tensor [rows, elements], bit rows as bytes, flags as [bytes]; not a copy.

    Raises:
        ValueError: it holds fewer values.
    """
    bits = column.dtype == np.bool_
    shape = ((rows + 7) // 8,) if bits and not column.packed else (rows, *column.row_shape)
    dtype = np.dtype(np.uint8) if bits else column.dtype
    values = np.frombuffer(array.buffers()[-1], dtype, count=math.prod(shape)).reshape(shape)
    with warnings.catch_warnings():  # torch has no read-only tensors and says so; these never leave this file
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(values)


def select(column: Column, stored: Tensor | Framed, rows: Tensor) -> Tensor:
    """Copy these rows as they lie on disk, flags as 0 or 1, observations as a column of them would."""
    if isinstance(stored, Framed):
        return stored.select(rows)
    if column.dtype != np.bool_ or column.packed:
        return stored.index_select(0, rows)
    return stored.index_select(0, rows >> 3) >> (rows & 7) & 1


def decode(name: str, column: Column, values: Tensor, lead: torch.Size) -> Tensor:
    """Return selected rows [R, …] as training takes them, [*lead, *shape]."""
    if column.packed:
        bits = _BITS.index_select(0, values.reshape(-1).int()).reshape(len(values), 8 * values.shape[1])
        values = bits[:, : column.size]
    elif column.dtype.kind == "i":
        values = values.long()
    elif column.dtype == np.bool_:
        values = values.bool() if name == "next_actions_valid" else values.float()
    return values.reshape(*lead, *(column.shape or ()))
