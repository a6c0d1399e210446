"""The types of numbers that spaces have, and what each of them holds."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dr3_ray.errors import UserError

EXACT = 2**53  # float64 holds all integers up to this one
Array = npt.NDArray[Any]

Number = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"
]


def range_of(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the least and greatest finite number of a type as float64 has them."""
    if dtype.kind == "b":
        return 0.0, 1.0
    info = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return float(info.min), float(info.max)


def check_held(dtype: np.dtype[Any], bounds: Array) -> None:
    """Check that a type has these bounds; only floats have infinite ones.

    Raises:
        ValueError: it has not.
    """
    least, most = range_of(dtype)
    finite = bounds[np.isfinite(bounds)]
    held = finite if dtype.kind == "f" else bounds
    if held.min(initial=0) < least or held.max(initial=0) > most:
        raise ValueError(f"{dtype} has numbers from {least:g} to {most:g}, and the bounds lie outside")
    if dtype.kind != "f" and (finite != np.rint(finite)).any():
        raise ValueError(f"{dtype} has whole numbers, and a bound is none")


def side_by_side(parts: Sequence[Array]) -> Array:
    """Return arrays [T, N] beside each other, in one type that holds all of their numbers.

    Raises:
        UserError: there is none: float64 rounds integers beyond 2⁵³.
    """
    dtype = np.result_type(*parts)
    for part in parts:
        if part.dtype.kind in "iu" and dtype.kind == "f" and part.size and not _is_exact(part):
            raise UserError(
                f"integers from {part.min()} to {part.max()} stand beside real numbers, and float64 has not all beyond "
                "2^53: subtract an offset in the source, or make parts of them by --columns"
            )
    return np.concatenate(parts, axis=1)


def _is_exact(integers: Array) -> bool:
    """Return whether float64 holds all integers of an array that is not empty."""
    return int(integers.min()) >= -EXACT and int(integers.max()) <= EXACT


def within(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return float64 as another type; numbers beyond its integers become the last of them."""
    if dtype.kind not in "iu":
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    info = np.iinfo(dtype)
    inside = np.clip(values, float(info.min), np.nextafter(float(info.max), 0)).astype(dtype)
    return np.where(values >= float(info.max), dtype.type(info.max), inside)
