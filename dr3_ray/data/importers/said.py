"""Spaces of actions as the user says them: `box:LOW,HIGH` or `discrete:N`."""

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from dr3_ray.data.number_types import range_of
from dr3_ray.data.spaces import CHOICES
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym

NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)"


def space_said(said: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> "gym.Space[Any]":
    """Return the space of actions of a shape and type.

    Raises:
        UserError: it is written otherwise, or holds no action.
    """
    from gymnasium import spaces

    found = re.fullmatch(rf"discrete:(\d+)|box:{NUMBER},{NUMBER}", said) if isinstance(said, str) else None
    if not found:
        raise UserError(f"{said!r} is no space of actions: write box:LOW,HIGH or discrete:N")
    if found[1]:
        if not 1 <= int(found[1]) <= CHOICES:
            raise UserError(f"{said!r} is no space of actions: give discrete:N with N from 1 to {CHOICES:,}")
        return spaces.Discrete(int(found[1]))
    low, high = float(found[2]), float(found[3])
    if not low <= high or not math.isfinite(low) or not math.isfinite(high):
        raise UserError(f"{said!r} is no space of actions: give finite bounds, the lower one first")
    least, most = range_of(dtype)
    if low < least or high > most or (dtype.kind in "biu" and not (low.is_integer() and high.is_integer())):
        raise UserError(f"{said!r} has bounds that actions of {dtype} cannot have: give those of the recorded actions")
    return spaces.Box(low, high, shape, dtype.type)
