"""Observations: one tensor, or the named parts of a dict observation."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

Observations = Tensor | dict[str, Tensor]  # [K, B, *shape], of each part
Shape = tuple[int, ...] | dict[str, tuple[int, ...]]


def each_part(function: Callable[..., Any], *observations: Any) -> Any:
    """The function of a tensor, or of the parts of equal name: {name: function(part, …)}."""
    first = observations[0]
    if not isinstance(first, dict):
        return function(*observations)
    return {name: function(*(parts[name] for parts in observations)) for name in first}


def parts_of(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The shapes by name; a plain observation's only part has the name ""."""
    return shape if isinstance(shape, dict) else {"": shape}


def is_image(shape: tuple[int, ...]) -> bool:
    """Height, width and channels, in one of the two usual orders."""
    return len(shape) == 3


def size_of(shape: Shape) -> int:
    """The number of components of a flattened observation."""
    return sum(map(math.prod, parts_of(shape).values()))
