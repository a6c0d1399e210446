"""Observations of another library's spaces as named arrays, or as one vector."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dr3_ray.data.number_types import Array, side_by_side
from dr3_ray.data.spaces import SpaceSpec, named_parts
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym


def observations_of(space: "gym.Space[Any]", flatten: bool) -> tuple[SpaceSpec, Callable[[Any], dict[str, Array]], str]:
    """Return our space, what turns observations into named arrays [T+1, *shape], and the order of a flattened one."""
    from gymnasium import spaces

    if isinstance(space, spaces.Tuple) or (flatten and isinstance(space, spaces.Dict)):
        return _flattened(space)
    spec = SpaceSpec.from_gymnasium(space)
    bits = {name for name, part in spec.parts.items() if part.dtype == "bool"}

    def by_name(values: Any) -> dict[str, Array]:
        parts = named_parts(values)
        return {name: _bits(name, part) if name in bits else np.asarray(part) for name, part in parts.items()}

    return spec, by_name, ""


def _bits(name: str, values: Any) -> Array:
    """Return zeros and ones as booleans; those of a MultiBinary space are int8."""
    array = np.asarray(values)
    if array.dtype.kind not in "biu" or not np.isin(array, (0, 1)).all():
        raise UserError(
            f"{name or 'an observation'} has other values than 0 and 1 in a binary space: correct the source"
        )
    return array.astype(bool)


def _flattened(space: "gym.Space[Any]") -> tuple[SpaceSpec, Callable[[Any], dict[str, Array]], str]:
    from gymnasium import spaces
    from gymnasium.spaces.utils import flatten_space

    parts = list(leaves_of(space, "", ()))
    for part_name, part, _ in parts:
        if not isinstance(part, spaces.Box):
            raise UserError(
                f"observation {part_name!r} is a {type(part).__name__} space: only a dict or tuple of Box spaces can "
                "be flattened, so leave it out in the source"
            )

    def concatenate(values: Any) -> dict[str, Array]:
        """Return all parts beside each other, in the order of their keys."""
        arrays = []
        for _, part, keys in parts:
            array = values
            for key in keys:
                array = array[key]
            arrays.append(np.asarray(array).reshape(len(array), math.prod(part.shape or ())))
        return {"": side_by_side(arrays)}

    order = ", ".join(f"{part_name}[{math.prod(part.shape or ())}]" for part_name, part, _ in parts)
    return SpaceSpec.from_gymnasium(flatten_space(space)), concatenate, order


def leaves_of(
    space: "gym.Space[Any]", name: str, keys: tuple[Any, ...]
) -> Iterator[tuple[str, "gym.Space[Any]", tuple[Any, ...]]]:
    """Yield the leaves of a nested space in Gymnasium's order: dotted name, space, keys that lead to the values."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in inner:
            yield from leaves_of(part, f"{name}.{key}" if name else str(key), (*keys, key))
    else:
        yield name, space, keys
