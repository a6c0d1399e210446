"""Observations: one tensor, or the named parts of a dict observation."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dr3_ray.errors import UserError

Observations = Tensor | dict[str, Tensor]  # [K, B, *shape], of each part
Shape = tuple[int, ...] | dict[str, tuple[int, ...]]


def each_part(function: Callable[..., Any], *observations: Any) -> Any:
    """Return the function of a tensor, or of the parts of equal name: {name: function(part, …)}."""
    first = observations[0]
    if not isinstance(first, dict):
        return function(*observations)
    return {name: function(*(parts[name] for parts in observations)) for name in first}


def check_bytes(observations: Observations, stored: dict[str, bool]) -> None:
    """Check types against `stored`, which parts the data hold as bytes; a plain observation has the name "".

    Raises:
        UserError: networks would divide a part by 255 that they were not trained on so, or the other way round.
    """
    for name, part in (observations if isinstance(observations, dict) else {"": observations}).items():
        if name in stored and (part.dtype == torch.uint8) != stored[name]:
            wanted = "bytes: give torch.uint8, from 0 to 255" if stored[name] else "numbers: give torch.float32"
            raise UserError(f"observations{name and f' {name!r}'} are {part.dtype}, and in the data {wanted}")


def parts_of(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the shapes by name; a plain observation's only part has the name ""."""
    return shape if isinstance(shape, dict) else {"": shape}


def is_image(shape: tuple[int, ...]) -> bool:
    """Return whether a shape is height, width and channels, in one of the two usual orders."""
    return len(shape) == 3


def size_of(shape: Shape) -> int:
    """Return the number of components of a flattened observation."""
    return sum(map(math.prod, parts_of(shape).values()))
