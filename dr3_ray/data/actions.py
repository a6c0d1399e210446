"""Actions as the environment takes them and as they are stored."""

import numpy as np
import numpy.typing as npt

from dr3_ray.data.number_types import Array
from dr3_ray.data.products import combination_of, number_of
from dr3_ray.data.spaces import SpaceSpec, element_name
from dr3_ray.errors import UserError

WIDEST = 2.0**24  # of a component of a Box action: float32 in [-1, 1] still tells all integers of this range apart
NARROW = 1e-3  # a share of its bounds below which an action is hardly told from the middle


def from_env_actions(space: SpaceSpec, actions: npt.ArrayLike, clip: bool = False) -> Array:
    """Return actions [*lead, *shape] of the environment as stored: float32 [*lead, A] in [-1, 1], or int64 from 0.

    A is the number of elements of a Box action, of whatever shape. Rounding (1e-5 of the half width) is forgiven. With
    `clip`, an action further out is moved to the bound.

    Raises:
        UserError: an action is NaN, or out of bounds without `clip`.
    """
    array: Array = np.asarray(actions)
    if space.choices is not None:
        return number_of(array, space.shape, space.choices, space.starts)
    if space.n is not None:
        if array.dtype.kind not in "iu":
            raise UserError(f"discrete actions have to be integers, not {array.dtype}: convert the source")
        lowest, highest = (int(array.min()), int(array.max())) if array.size else (space.start, space.start)
        if lowest < space.start or highest >= space.start + space.n:
            outside = lowest if lowest < space.start else highest
            raise UserError(
                f"action {outside} is outside the space Discrete(n={space.n}, start={space.start}): correct the source"
            )
        stored: Array = array.astype(np.int64) - space.start
        return stored
    lead = array.ndim - len(space.shape)
    if lead < 0 or array.shape[lead:] != space.shape or array.dtype.kind not in "biuf":
        raise UserError(
            f"actions are {array.dtype} of shape {array.shape}, not real numbers of shape {('*', *space.shape)}: "
            "correct the source"
        )
    check_actions(space)
    low, high = space.bounds()
    centre, half = (low + high) / 2, (high - low) / 2
    values = array.astype(np.float64)
    if np.isnan(values).any():
        raise UserError("an action is NaN: drop its episode from the source")
    if space.played_dtype.kind in "iu" and (fractions := values != np.rint(values)).any():
        raise UserError(
            f"action {values[fractions][0]:g} is no whole number, as actions of a Box of {space.played_dtype} are: "
            "correct the space or the numbers in the source"
        )
    forgiven = 1e-5 * half
    far = (values < low - forgiven) | (values > high + forgiven)
    if not clip and far.any():
        worst = float(values[far][0])
        raise UserError(f"action {worst:g} is outside the action space: correct its bounds, or clip the actions")
    # where there is one value only, it is the middle of the range
    scaled = (np.clip(values, low, high) - centre) / np.where(half > 0, half, 1.0)
    clipped: Array = np.clip(scaled, -1, 1).astype(np.float32)
    return clipped.reshape(*array.shape[:lead], space.size)


def to_env_actions(space: SpaceSpec, actions: npt.ArrayLike) -> Array:
    """Return stored actions [*lead, A], or [*lead] integers, in the environment's type, shape and bounds.

    Actions of an integer Box are rounded.

    Raises:
        UserError: such an action is NaN.
    """
    array: Array = np.asarray(actions)
    if space.choices is not None:
        return combination_of(array, space.shape, space.choices, space.starts).astype(space.played_dtype)
    if space.n is not None:
        numbered: Array = (array.astype(np.int64) + space.start).astype(space.played_dtype)
        return numbered
    low, high = space.bounds()
    values = array.astype(np.float64).reshape((*array.shape[:-1], *space.shape))
    values = np.clip((low + high) / 2 + values * ((high - low) / 2), low, high)
    if space.played_dtype.kind != "f":
        if np.isnan(values).any():
            raise UserError("a policy's action is NaN, which no integer stands for: its training has diverged")
        values = np.rint(values)
    return values.astype(space.played_dtype)


def check_actions(space: SpaceSpec) -> None:
    """Check that actions of a space have a column.

    Raises:
        UserError: the space is neither Discrete, nor a Box whose bounds are not too far apart.
    """
    if space.kind == "dict":
        raise UserError("actions of a Dict space have no columns: use a Box or a Discrete space in the source")
    if space.n is not None:
        return
    if space.played_dtype == np.bool_:
        raise UserError(
            "actions of a boolean Box space have no columns: use a Discrete space (a number for each "
            "combination), a MultiBinary one or a Box of numbers in the source"
        )
    low, high = space.bounds()
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = ~((low <= high) & (high - low <= WIDEST) & np.isfinite(high))
    if space.played_dtype.kind in "iu":
        wrong |= np.maximum(abs(low), abs(high)) > 2.0**53  # float64, which the manifest keeps, rounds them
    if wrong.any():
        index = np.unravel_index(wrong.argmax(), wrong.shape)
        raise UserError(
            f"{element_name('actions', index)} lies between {low[index]:g} and {high[index]:g}, but a Box of actions "
            f"needs finite bounds, low <= high, at most {WIDEST:.0f} apart, as float32 in [-1, 1] stands for them: "
            "correct the space in the source, or take the bounds from the data with --rescale-actions"
        )


def check_spaces(observations: SpaceSpec, actions: SpaceSpec) -> None:
    """Check that two spaces have columns, when a data set is written and when it is opened.

    Raises:
        UserError: they have none (see `check_actions`).
    """
    if observations.kind == "discrete":
        raise UserError("observations of a Discrete space have no columns: encode them one-hot in the source")
    check_actions(actions)


class Used:
    """The share of its bounds that each element of Box actions takes, as they are stored."""

    def __init__(self, space: SpaceSpec) -> None:
        self._space = space
        self._low, self._high = np.full(space.size, np.inf), np.full(space.size, -np.inf)

    def add(self, stored: Array) -> None:
        """Count in rows [T, A]."""
        self.merge(stored.min(0), stored.max(0))

    def merge(self, low: Array, high: Array) -> None:
        """Count in other rows by their `state`."""
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)

    def state(self) -> tuple[Array, Array]:
        """Return the least and the greatest value of each element, [A]."""
        return self._low, self._high

    def note(self) -> str:
        """Name the element that takes least in one sentence, if that is next to nothing; empty if there is none."""
        taken = (self._high - self._low) / 2
        taken[taken == 0] = 1  # an action that never changes is what it is, whatever its bounds
        if taken[least := int(taken.argmin())] >= NARROW:
            return ""
        index = np.unravel_index(least, self._space.shape)
        low, high = (bound[index] for bound in self._space.bounds())
        return (
            f"{element_name('actions', index)} takes {taken[least]:.2g} of its bounds ({low:g} to {high:g}), so that "
            "policies hardly tell its values apart: --rescale-actions takes the bounds from the data"
        )
