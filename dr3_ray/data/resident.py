"""A data set's columns in the memory of a GPU, where batches are gathered without the host."""

import copy
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from dr3_ray.data.mixing import Mixing
from dr3_ray.data.n_step import Apart, Rows
from dr3_ray.data.number_types import Array
from dr3_ray.observations import Observations, each_part

AT_ONCE = 65_536  # rows that are copied at a time
USABLE = 0.5  # of the memory that is free; networks and what an update needs get the other half


class Resident:
    """Some columns of a data set on a device, as its `gather` returns them; indices have to lie on the device too.

    Numbers that are all 0 or 1 take a byte each. Indices out of bounds are not looked for.
    """

    apart: Apart | None = None

    def __init__(self, data: Rows, columns: Sequence[str], device: torch.device):
        self._data, self.device = data, device
        self._columns: dict[str, Observations] = {}
        for rows in torch.split(torch.arange(len(data)), AT_ONCE):
            for name, values in data.gather(rows, columns).items():
                if name not in self._columns:
                    self._columns[name] = each_part(self._room, values)
                at = slice(int(rows[0]), int(rows[-1]) + 1)
                self._columns[name] = each_part(partial(_fill, at), self._columns[name], values)

    def part(self, data: Rows, rows: Array | Tensor) -> "Resident":
        """Return some rows, those of `data`, of the same columns; several steps go on in all of them."""
        part = copy.copy(self)
        part._data, part.apart = data, Apart(self, torch.as_tensor(rows).to(self.device))
        return part

    def __len__(self) -> int:
        return len(self._data)

    @property
    def row_bytes(self) -> int:
        """What a row takes in the memory of the device."""
        return _row_bytes(self._columns)

    @property
    def episodes(self) -> Any:
        """One row per episode, as the data set has them."""
        return self._data.episodes  # type: ignore[attr-defined]

    @property
    def mixing(self) -> Mixing | None:
        """How batches are drawn from several data sets in one."""
        return getattr(self._data, "mixing", None)

    def gather(self, indices: Tensor, columns: Sequence[str]) -> dict[str, Any]:
        """Return columns at `indices` [*lead], each [*lead, *shape]."""
        flat = indices.reshape(-1)
        if self.apart:
            flat = torch.as_tensor(self.apart.rows).index_select(0, flat)

        def rows(column: Tensor) -> Tensor:
            values = column.index_select(0, flat)
            return (values.float() if values.dtype == torch.int8 else values).view(*indices.shape, *column.shape[1:])

        return {name: each_part(rows, self._columns[name]) for name in columns}

    def _room(self, first: Tensor) -> Tensor:
        return torch.empty(len(self), *first.shape[1:], dtype=_narrow(first).dtype, device=self.device)


def on_host(data: Rows) -> Rows:
    """Return the data set whose columns these are, which also knows its discount and manifest."""
    return data._data if isinstance(data, Resident) else data


def _narrow(values: Tensor) -> Tensor:
    """Return floats that are all 0 or 1 as int8, a type that no column has otherwise."""
    binary = values.is_floating_point() and bool(((values == 0) | (values == 1)).all())
    return values.to(torch.int8) if binary else values


def _row_bytes(columns: dict[str, Observations]) -> int:
    parts = [list(column.values()) if isinstance(column, dict) else [column] for column in columns.values()]
    return sum(part[:1].nbytes for part in chain(*parts))


def _fill(rows: slice, room: Tensor, values: Tensor) -> Tensor:
    """Put these rows into the room and return it, or another one where they are wider."""
    if room.dtype == torch.int8 and _narrow(values).dtype != torch.int8:
        room = room.to(values.dtype)
    room[rows] = values
    return room


def resident(data: Rows, columns: Sequence[str], device: torch.device, n_step: int = 1) -> Rows:
    """Return the data set in the memory of this device.

    On a CPU, for data that are there already, and where there is no room, it is the data set itself. Rows that are
    `Apart` take their whole data set there for several steps.
    """
    if device.type == "cpu" or isinstance(data, Resident):
        return data
    apart: Apart | None = getattr(data, "apart", None)
    if apart and n_step > 1:
        whole = resident(apart.whole, columns, device)
        return whole.part(data, apart.rows) if isinstance(whole, Resident) else data
    first = data.gather(torch.arange(min(AT_ONCE, len(data))), columns)
    needed = _row_bytes({name: each_part(_narrow, column) for name, column in first.items()}) * len(data)
    free, _ = torch.cuda.mem_get_info(device)
    if needed > USABLE * free:
        warnings.warn(
            f"the data set takes {needed / 2**30:.1f} GiB and the GPU has {free / 2**30:.1f} free: "
            "batches come from the host, which is slower",
            stacklevel=2,
        )
        return data
    return Resident(data, columns, device)
