"""Numbers of an environment as numbers of the data: by which factor and type, and where there is no telling."""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dr3_ray.data import SpaceSpec
from dr3_ray.data.number_types import Array

LowHigh = tuple[Array, Array]

UNBOUNDED = 1e30  # a bound further out is none: some environments write the largest float32 for infinity
ROUNDING = 1e-5  # of a bound: what float32 and float64 make of one differs by less
OFF_GRID = 0.01  # of a byte: in float32, v / 255 · 255 is closer to v


class PartConversion(NamedTuple):
    """A conversion of one part of an observation, or of a plain one, to what the networks were trained on."""

    shape: tuple[int, ...]
    declared: np.dtype[Any]
    """The type that the environment announces."""
    trained: np.dtype[Any]
    """uint8, which networks divide by 255, or float32."""
    top: int | None
    """The data hold whole numbers from 0 to this one; None: any numbers."""
    scale: float
    """What a number of the environment is multiplied by."""

    def convert(self, values: Array) -> Array:
        """Return finite numbers [*lead, *shape] as networks take them.

        Raises:
            ValueError: the types cannot hold one of them.
        """
        known = values.dtype == self.declared and self.scale == 1.0
        if known and (self.top is None or values.dtype in (np.bool_, self.trained)):
            return values.astype(self.trained, copy=False)
        if self.declared.kind in "bui":
            info = np.iinfo(np.uint8 if self.declared.kind == "b" else self.declared)
            low, high = (0, 1) if self.declared.kind == "b" else (info.min, info.max)
            _forbid(values, (values != np.rint(values)) | (values < low) | (values > high), f"of {self.declared}")
        scaled = values if self.scale == 1.0 else values * self.scale
        if self.top is None:
            return scaled.astype(np.float32)
        whole = np.rint(scaled)
        outside = (whole < 0) | (whole > self.top)
        _forbid(values, (np.abs(whole - scaled) > OFF_GRID) | outside, "a byte" if self.top == 255 else "0 or 1")
        return whole.astype(self.trained)


def conversion_of(spec: SpaceSpec, space: gym.Space[Any] | None) -> PartConversion:
    """Return the conversion of a part.

    Raises:
        ValueError: there is none; says why.
    """
    if space is None:
        raise ValueError("one is missing")
    if not isinstance(space, spaces.Box | spaces.MultiBinary):
        raise ValueError("the kinds differ")
    if space.shape != spec.shape:
        raise ValueError("the shapes differ")
    top = {"uint8": 255, "bool": 1}.get(str(spec.dtype))
    trained = np.dtype(np.uint8 if top == 255 else np.float32)
    return PartConversion(spec.shape, np.dtype(space.dtype), trained, top, _scale(spec, space))


def _scale(spec: SpaceSpec, space: spaces.Box | spaces.MultiBinary) -> float:
    """Return the factor from numbers of the space to those of the data.

    Raises:
        ValueError: it cannot be told.
    """
    played = SpaceSpec.from_gymnasium(space)
    ours, theirs = _bounds(spec.bounds()), _bounds(played.bounds())
    equal = [np.isclose(*pair, rtol=ROUNDING, atol=0.0) for pair in zip(ours, theirs, strict=True)]
    if np.all(equal):
        return 1.0
    units = spec.dtype, played.dtype
    if (
        units == ("uint8", "float32")
        and np.dtype(space.dtype).kind == "f"
        and _are(ours, 0, 255)
        and _are(theirs, 0, 1)
    ):
        return 255.0
    if units == ("float32", "uint8") and _are(ours, 0, 1) and _are(theirs, 0, 255):
        return 1.0 / 255.0
    unknown = [np.isinf(a) | np.isinf(b) for a, b in zip(ours, theirs, strict=True)]
    if units == ("float32", "float32") and np.all(np.logical_or(equal, unknown)):
        return 1.0
    raise ValueError("the bounds differ, so that the units may")


def check_actions(spec: SpaceSpec, space: gym.Space[Any]) -> bool:
    """Return whether stored actions mean the same in both spaces.

    Raises:
        ValueError: there is no conversion; says why.
    """
    if spec.choices is not None:
        return _check_product(spec, space)
    if spec.kind == "discrete":
        if not isinstance(space, spaces.Discrete):
            raise ValueError("the kinds differ")
        if int(space.n) != spec.n:
            raise ValueError("the numbers of choices differ")
        return int(space.start) == spec.start
    kind = np.dtype(space.dtype).kind
    if spec.kind != "box" or not isinstance(space, spaces.Box) or kind not in "iuf":
        raise ValueError("the kinds differ")
    if space.shape != spec.shape:
        raise ValueError("the shapes differ")
    ours, theirs = _bounds(spec.bounds()), _bounds((space.low, space.high))
    if not np.isfinite(ours).all():
        raise ValueError("recorded ones have no bounds to be scaled back by")
    last_digits = np.spacing(np.abs(ours).astype(np.float32))  # a bound in float32 is off by no more
    spare = ROUNDING * (ours[1] - ours[0]) / 2 + last_digits
    if not ((theirs[0] <= ours[0] + spare[0]) & (theirs[1] >= ours[1] - spare[1])).all():
        raise ValueError("it does not take all of the recorded range")
    if kind in "iu" and spec.played_dtype.kind not in "iu":
        raise ValueError("it takes whole numbers alone")
    same = np.isclose(ours, theirs, rtol=ROUNDING, atol=0.0).all()
    return bool(same)


def _check_product(spec: SpaceSpec, space: gym.Space[Any]) -> bool:
    """Return whether combinations of choices are the same arrays in both spaces.

    Raises:
        ValueError: there is no conversion; says why.
    """
    if not isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        raise ValueError("the kinds differ")
    if space.shape != spec.shape:
        raise ValueError("the shapes differ")
    choices = space.nvec if isinstance(space, spaces.MultiDiscrete) else np.full(space.shape, 2)
    if choices.ravel().tolist() != list(spec.choices or ()):
        raise ValueError("the numbers of choices differ")
    return SpaceSpec.of_actions(space).starts == spec.starts


def _bounds(bounds: LowHigh) -> LowHigh:
    """Return bounds as float64, infinite where there are none."""
    low, high = (np.asarray(bound, dtype=np.float64) for bound in bounds)
    return np.where(low <= -UNBOUNDED, -np.inf, low), np.where(high >= UNBOUNDED, np.inf, high)


def _are(bounds: LowHigh, low: float, high: float) -> bool:
    return bool((bounds[0] == low).all() and (bounds[1] == high).all())


def _forbid(values: Array, wrong: Array, wanted: str) -> None:
    if wrong.any():
        raise ValueError(f"{values[wrong].flat[0]:g}, which is not {wanted},")
