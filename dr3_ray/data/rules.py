"""What rows have to obey, when they are written and when they are verified: one function for both."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from dr3_ray.data.columns import Columns, part_column
from dr3_ray.data.number_types import Array
from dr3_ray.data.spaces import SpaceSpec

ROUNDING = 1e-6  # of the magnitudes in a sum: float32 rounds to 6e-8


Rule = tuple[Any, str, str]  # which rows break it [R], what is wrong with {step} and {length} of a row, a remedy


class Places(NamedTuple):
    """The episode id of each row, its place among that episode's stored rows, and their number; all [R]."""

    ids: Array
    positions: Array
    lengths: Array

    @property
    def last(self) -> Array:
        """Whether a row is the last stored one of its episode, [R]."""
        last: Array = self.positions == self.lengths - 1
        return last


class Fault(NamedTuple):
    """The first row that breaks a rule, what is wrong with it, and what to do about it in the source."""

    row: int
    what: str
    remedy: str


def first_fault(
    columns: Columns,
    places: Places,
    *,
    gamma: float,
    observation_space: SpaceSpec,
    action_space: SpaceSpec,
    complete: bool,
) -> Fault | None:
    """Return the first broken rule of consecutive rows; None if there is none.

    Args:
        columns: as they are stored, each [R, *shape]; dict observations as one column for each part.
        places: where the rows belong, by the table of episodes.
        gamma: the discount of the Monte-Carlo returns.
        observation_space: that of the data set.
        action_space: the same.
        complete: whether every episode is there from its first step to its last.
    """
    rules = (
        _order(columns, places, complete),
        _ends(columns, places, complete),
        _values(columns, action_space),
        _whole_numbers(columns, observation_space),
        _neighbours(columns, places, gamma),
    )
    for broken, what, remedy in chain.from_iterable(rules):
        if broken.any():
            row = int(broken.argmax())
            what = what.replace("{step}", str(columns["timesteps"][row]))
            return Fault(row, what.replace("{length}", str(places.lengths[row])), remedy)
    return None


def _order(columns: Columns, places: Places, complete: bool) -> Iterator[Rule]:
    """Check that rows lie in the order of the episodes, and each episode's in that of its time steps."""
    steps = columns["timesteps"].astype(np.int64)
    yield columns["episode_ids"] != places.ids, "its rows belong to another episode", "one write takes one episode"
    first = (places.positions == 0) & (steps != 0) if complete else steps < 0
    yield first, "its timesteps start at {step}", "one write takes one episode, its timesteps counted from 0"
    grows = np.diff(steps)
    wrong = (places.positions[1:] > 0) & ((grows != 1) if complete else (grows < 1))
    yield np.insert(wrong, 0, False), "its timesteps are out of order at {step}", "count its timesteps from 0"


def _ends(columns: Columns, places: Places, complete: bool) -> Iterator[Rule]:
    """Check that terminal flags stand at the last step of an episode alone, and no next action there."""
    flags = columns["terminateds"] | columns["truncateds"]
    early = "is terminated or truncated at step {step} but has {length} steps"
    yield flags & ~places.last, early, "split it there"
    if complete:
        none = "has no terminal flag"
        yield places.last & ~flags, none, "mark its last step as terminated or truncated in the source"
    wrong = columns["next_actions_valid"] == flags
    yield wrong, "next_actions_valid is wrong at step {step}", "it is false at terminal flags alone"


def _values(columns: Columns, action_space: SpaceSpec) -> Iterator[Rule]:
    """Check that numbers are finite, and that actions lie in their space."""
    for name, values in columns.items():
        if values.dtype.kind == "f":
            wrong = _any_element(~np.isfinite(values))
            yield wrong, f"{name} has NaN or infinite values, first at step {{step}}", "drop that episode, or repair it"
    lowest, highest = (0, action_space.n - 1) if action_space.n is not None else (-1, 1)
    for name in ("actions", "next_actions"):
        wrong = _any_element((columns[name] < lowest) | (columns[name] > highest))
        text = f"{name} outside the space, stored actions lie in [{lowest}, {highest}], first at step {{step}}"
        yield wrong, text, "convert them with `from_env_actions`"


def _whole_numbers(columns: Columns, space: SpaceSpec) -> Iterator[Rule]:
    """Check that observations are whole numbers where the environment's are."""
    for part, box in space.parts.items():
        for name in ("observations", "next_observations") if box.played_dtype.kind in "iu" else ():
            values = columns[part_column(name, part)]
            text = f"{part_column(name, part)} of {box.played_dtype} has fractions, first at step {{step}}"
            yield _any_element(values != np.rint(values)), text, "correct the space or the numbers in the source"


def _neighbours(columns: Columns, places: Places, gamma: float) -> Iterator[Rule]:
    """Check that a row repeats its next step's columns, and that its return is the reward and the discounted rest."""
    follows = ~places.last[:-1] & (np.diff(columns["timesteps"].astype(np.int64)) == 1)  # the next row is the next step
    pairs = [("next_actions", "actions")]
    pairs += [(name, name.removeprefix("next_")) for name in columns if name.startswith("next_observations")]
    for later, now in pairs:
        differs = _any_element(columns[later][:-1] != columns[now][1:])
        text = f"{later} at step {{step}} are not the {now} of the step after it"
        yield np.append(follows & differs, False), text, "shift them by one step"
    some = ~columns["next_actions_valid"] & _any_element(columns["next_actions"] != 0)
    yield some, "has a next action at step {step}, after which there is none", "zeros stand there"
    rewards, returns = (columns[name].astype(np.float64) for name in ("rewards", "monte_carlo_returns"))
    future = np.where(np.append(follows, False), gamma * np.append(returns[1:], 0.0), 0.0)
    known = np.append(follows, False) | columns["terminateds"] | columns["truncateds"]
    allowed = ROUNDING * (np.abs(rewards) + np.abs(returns) + np.abs(future)) + np.finfo(np.float32).tiny
    text = f"monte_carlo_returns at step {{step}} are not those of the rewards with gamma {gamma}"
    yield known & (np.abs(returns - rewards - future) > allowed), text, "make them with `monte_carlo_returns`"


def _any_element(values: Any) -> Any:
    """Return whether an element of each row [R, *shape] is true, [R]."""
    return values.any(axis=tuple(range(1, values.ndim)))
