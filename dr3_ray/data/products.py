"""Product spaces: MultiDiscrete and MultiBinary actions, each combination of choices a number from 0."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dr3_ray.data.number_types import Array, range_of
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym

MOST = 512  # combinations: a network has an output for each


def product_fields(space: "gym.Space[Any]") -> dict[str, Any] | None:
    """Return the fields of a `SpaceSpec` for actions of a MultiDiscrete or MultiBinary space; None for any other.

    Raises:
        UserError: there are too many combinations.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.MultiDiscrete):
        choices, starts = space.nvec.ravel().tolist(), space.start.ravel().tolist()
    elif isinstance(space, spaces.MultiBinary):
        choices, starts = [2] * math.prod(space.shape), None
    else:
        return None
    if not choices or math.prod(choices) > MOST:
        raise UserError(
            f"a {type(space).__name__} space of {math.prod(choices):,} combinations has no column of actions: up to "
            f"{MOST} are numbered as one choice, so leave out some in the source, or use a Box there"
        )
    dtype = str(space.dtype)
    return {
        "kind": "discrete",
        "shape": space.shape,
        "dtype": "int64",
        "env_dtype": None if dtype == "int64" else dtype,
        "n": math.prod(choices),
        "choices": choices,
        "starts": starts,
    }


def check_product(
    n: int, shape: Sequence[int], choices: Sequence[int], starts: Sequence[int] | None, dtype: np.dtype[Any]
) -> None:
    """Check that the fields of a product space fit each other.

    Raises:
        ValueError: they do not.
    """
    if len(choices) != math.prod(shape) or math.prod(choices) != n or n > MOST:
        raise ValueError(f"a product of choices has one for each element of its shape, and n of up to {MOST} in all")
    if starts is None and set(choices) != {2}:
        raise ValueError("binary choices are two for each element")
    if starts is not None and len(starts) != len(choices):
        raise ValueError("a product of choices has as many starts as choices")
    least, most = range_of(dtype)
    lowest = starts or [0] * len(choices)
    if min(lowest) < least or max(map(sum, zip(lowest, choices, strict=True))) - 1 > most:
        raise ValueError(f"{dtype} has numbers from {least:g} to {most:g}, and the choices more")


def number_of(actions: Array, shape: Sequence[int], choices: Sequence[int], starts: Sequence[int] | None) -> Array:
    """Return the numbers [*lead] of actions [*lead, *shape], the last element changing fastest.

    Raises:
        UserError: they are of another shape or type, or no combination of choices.
    """
    lead = actions.ndim - len(shape)
    if lead < 0 or actions.shape[lead:] != tuple(shape) or actions.dtype.kind not in "biu":
        raise UserError(
            f"actions are {actions.dtype} of shape {actions.shape}, not integers of shape {('*', *shape)}: correct the "
            "source"
        )
    picked = actions.astype(np.int64).reshape(*actions.shape[:lead], len(choices)) - np.array(starts or 0, np.int64)
    wrong = ((picked < 0) | (picked >= np.array(choices))).any(-1)
    if wrong.any():
        first = actions[wrong][0].tolist()
        raise UserError(f"action {first} is outside the space of {list(choices)} choices: correct the source")
    return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(picked, -1, 0)), tuple(choices)), np.int64)


def combination_of(numbers: Array, shape: Sequence[int], choices: Sequence[int], starts: Sequence[int] | None) -> Array:
    """Return the actions [*lead, *shape] with these numbers [*lead]; the inverse of `number_of`."""
    picked = np.stack(np.unravel_index(numbers.astype(np.int64), tuple(choices)), axis=-1)
    actions: Array = (picked + np.array(starts or 0, np.int64)).reshape(*numbers.shape, *shape)
    return actions


def product_space(shape: Sequence[int], choices: Sequence[int], starts: Sequence[int] | None, dtype: Any) -> Any:
    """Return the Gymnasium space with these fields."""
    from gymnasium import spaces

    if starts is None:
        return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
    nvec, start = (np.array(values, np.int64).reshape(shape) for values in (choices, starts))
    return spaces.MultiDiscrete(nvec, dtype=dtype, start=start)
