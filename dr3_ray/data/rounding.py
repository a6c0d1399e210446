"""What the types on disk cannot hold: how far each element of a column was moved when it was written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dr3_ray.data.number_types import Array
from dr3_ray.data.spaces import element_name

EPSILON = float(np.finfo(np.float32).eps)
LONE = 1e-3  # of a number that never changes: nothing tells what is small of it
EXACT = 2.0**24  # float32 holds all integers up to this one
NAMED = 3  # elements that a note names, those that were moved furthest


@dataclass
class _Moved:
    """The range of values of each element of a column, and by how much one was moved at most."""

    low: Array
    high: Array
    error: Array
    beyond: Array  # whether an integer, or a number beyond 2^24, is another number now
    types: set[str]


class Rounding:
    """A comparison of values with what is stored of them, column by column.

    A loss is worth a note where it is more than float32's relative precision of the element's range, or changes an
    integer or a number beyond 2^24. Of an element that never changes, it is worth one where it is a thousandth.
    """

    def __init__(self) -> None:
        self._columns: dict[str, _Moved] = {}

    def add(self, column: str, values: Array, stored: Array) -> None:
        """Count in the rows `values` [T, *shape] and what is `stored` of them; both are finite."""
        if values.dtype.itemsize > 8:  # a longdouble, which JSON has not
            values = values.astype(np.float64)
        # float64 does not hold all integers of 64 bits
        exact: Any = np.longdouble if values.dtype.kind in "iu" and values.dtype.itemsize == 8 else np.float64
        error = abs(stored.astype(exact) - values.astype(exact))
        changed = (error > 0) & ((abs(values.astype(exact)) > EXACT) | (values.dtype.kind in "iu"))
        furthest = error.max(0).astype(np.float64)
        self._merge(column, _Moved(values.min(0), values.max(0), furthest, changed.any(0), {str(values.dtype)}))

    def state(self) -> dict[str, Any]:
        """Return what was counted, as `merge` takes it."""
        return {
            name: {key: sorted(value) if key == "types" else np.asarray(value) for key, value in vars(moved).items()}
            for name, moved in self._columns.items()
        }

    def merge(self, state: Mapping[str, Any]) -> None:
        """Count in other rows by their `state`."""
        for column, moved in state.items():
            self._merge(column, _Moved(**{**moved, "types": set(moved["types"])}))

    def _merge(self, column: str, new: _Moved) -> None:
        moved = self._columns.setdefault(column, new)
        moved.low, moved.high = np.minimum(moved.low, new.low), np.maximum(moved.high, new.high)
        moved.error = np.maximum(moved.error, new.error)
        moved.beyond = moved.beyond | new.beyond
        moved.types |= new.types

    def note(self) -> str:
        """Name the elements that lost more than rounding does, in one sentence; empty if there are none."""
        lost = sorted(
            (
                (-float(moved.error[index] / spread if (spread := _spread(moved, index)) else np.inf), name, index)
                for name, moved in self._columns.items()
                for index in np.ndindex(moved.low.shape)
                if moved.error[index] > _allowed(moved, index) or moved.beyond[index]
            ),
            key=lambda pair: pair[0],
        )
        if not lost:
            return ""
        named = [
            f"{element_name(name, index)} by up to {float(self._columns[name].error[index]):.3g}"
            + (f" ({-share:.2g} of its range)" if np.isfinite(share) else "")
            for share, name, index in lost[:NAMED]
        ]
        more = f" and {len(lost) - NAMED} more elements by less of their range" if len(lost) > NAMED else ""
        return (
            f"float32 has rounded {', '.join(named)}{more}: if that matters, subtract an offset in the source, or "
            "split the number in two"
        )

    def details(self) -> str:
        """Name each rounded column with the furthest that a value of it was moved; empty without any."""
        return ", ".join(
            f"{name} ({' and '.join(sorted(moved.types))}) by up to {float(np.max(moved.error)):.2g}"
            for name, moved in self._columns.items()
            if np.max(moved.error) > 0
        )


def _allowed(moved: _Moved, index: tuple[int, ...]) -> float:
    return EPSILON * _spread(moved, index) or LONE * abs(float(moved.low[index]))


def _spread(moved: _Moved, index: tuple[int, ...]) -> float:
    return float(np.longdouble(moved.high[index]) - np.longdouble(moved.low[index]))
