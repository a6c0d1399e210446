"""Spaces of actions as the user says them: `box:LOW,HIGH`, `discrete:N,FIRST` or `multidiscrete:N,N`."""

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from dr3_ray.data.number_types import range_of
from dr3_ray.data.spaces import CHOICES
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
FORMS = (
    r"discrete:(?P<n>\d{1,1000})(?:,(?P<first>-?\d{1,9}))?|multidiscrete:(?P<choices>\d{1,9}(?:,\d{1,9})*)"
    rf"|box:(?P<low>{NUMBER}),(?P<high>{NUMBER})"
)


def space_said(said: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> "gym.Space[Any]":
    """Return the space of actions of a shape and type.

    Raises:
        UserError: it is written otherwise, or holds no action.
    """
    from gymnasium import spaces

    match = re.fullmatch(FORMS, said) if isinstance(said, str) else None
    if not match:
        raise UserError(f"{said!r} is no space of actions: write box:LOW,HIGH, discrete:N or multidiscrete:N,N,…")
    if match["choices"]:
        counts = [int(count) for count in match["choices"].split(",")]
        if (len(counts),) != shape or min(counts) < 1:
            raise UserError(
                f"{said!r} has {len(counts)} numbers, and an action {shape}: give how many choices each has"
            )
        return spaces.MultiDiscrete(counts)
    if match["n"]:
        if not 1 <= int(match["n"]) <= CHOICES:
            raise UserError(f"{said!r} is no space of actions: give discrete:N with N from 1 to {CHOICES:,}")
        return spaces.Discrete(int(match["n"]), start=int(match["first"] or 0))
    low, high = float(match["low"]), float(match["high"])
    if not low <= high or not math.isfinite(low) or not math.isfinite(high):
        raise UserError(f"{said!r} is no space of actions: give finite bounds, the lower one first")
    least, most = range_of(dtype)
    if low < least or high > most or (dtype.kind in "biu" and not (low.is_integer() and high.is_integer())):
        raise UserError(f"{said!r} has bounds that actions of {dtype} cannot have: give those of the recorded actions")
    return spaces.Box(low, high, shape, dtype.type)
