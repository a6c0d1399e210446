"""Episodes in memory: from arrays of one episode to columns, and what makes such columns acceptable."""

from collections.abc import Mapping
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from dr3_ray.data.columns import Column, Columns, part_column
from dr3_ray.data.number_types import Array
from dr3_ray.data.rules import Places, first_fault
from dr3_ray.data.spaces import SpaceSpec, named_parts
from dr3_ray.errors import UserError


def monte_carlo_returns(rewards: npt.ArrayLike, gamma: float) -> npt.NDArray[np.float32]:
    """Return the discounted reward-to-go G_t = r_t + γ G_{t+1} of one episode, [T] → [T], in the unit of the reward.

    The sum ends with the episode's last reward. A truncated episode is *not* bootstrapped: what would have followed the
    cut is missing from its returns.
    """
    backwards = np.asarray(rewards, dtype=np.float64)[::-1].tolist()
    # 0.1 µs a row: scipy.signal.lfilter takes a tenth of that, and 0.8 s of every process to be imported
    totals = accumulate(backwards, lambda total, reward: reward + gamma * total, initial=0.0)
    with np.errstate(over="ignore"):  # infinite ones are refused when they are written
        return np.fromiter(totals, np.float64)[:0:-1].astype(np.float32)


def episode_columns(
    observations: npt.ArrayLike | Mapping[str, npt.ArrayLike | Mapping[str, npt.ArrayLike]],
    actions: npt.ArrayLike,
    rewards: npt.ArrayLike,
    *,
    terminated: bool,
    truncated: bool,
    episode_id: int,
    gamma: float,
) -> Columns:
    """Return the columns of one complete episode of T steps.

    observations [T+1, *shape], of a Dict space a dict of such, include the final one; actions [T] or [T, A] are as
    they are stored (see `from_env_actions`); rewards [T]. The flags are those of the last step. That step keeps the
    final observation as its `next_observations` and has no valid next action (zeros stand there), terminated or
    truncated. Each part of a dict becomes a column, `observations/image` and so on.
    """
    parts = {name: np.asarray(part) for name, part in named_parts(observations).items()}
    actions, rewards = np.asarray(actions), np.asarray(rewards)
    steps = len(rewards)
    if steps == 0:
        raise UserError(f"episode {episode_id} has no steps: leave it out of the source")
    observed = {len(part) for part in parts.values()}
    if observed != {steps + 1} or len(actions) != steps:
        raise UserError(
            f"episode {episode_id} has {steps} rewards, {len(actions)} actions and "
            f"{' or '.join(map(str, sorted(observed)))} observations: "
            "it needs as many actions as rewards, and one observation more (the final one)"
        )
    last = np.arange(steps) == steps - 1
    return {
        **{part_column("observations", name): part[:-1] for name, part in parts.items()},
        "actions": actions,
        "rewards": rewards,
        "terminateds": last & terminated,
        "truncateds": last & truncated,
        **{part_column("next_observations", name): part[1:] for name, part in parts.items()},
        "next_actions": np.concatenate([actions[1:], np.zeros_like(actions[:1])]),
        "next_actions_valid": ~last,
        "monte_carlo_returns": monte_carlo_returns(rewards, gamma),
        "episode_ids": np.full(steps, episode_id),
        "timesteps": np.arange(steps),
    }


def checked(
    columns: Columns,
    layout: dict[str, Column],
    observation_space: SpaceSpec,
    action_space: SpaceSpec,
    gamma: float,
) -> Columns:
    """Return the columns of one complete episode in the types they are stored in.

    Raises:
        UserError: a column is missing, or its shape, type or values are not acceptable.
    """
    if unknown := set(columns) - set(layout):
        raise UserError(f"unknown column {sorted(unknown)[0]!r}: the columns are {', '.join(layout)}")
    if missing := set(layout) - set(columns):
        raise UserError(f"column {sorted(missing)[0]!r} is missing: `episode_columns` makes all of them")
    steps, episode = len(columns["rewards"]), np.ravel(columns["episode_ids"])[:1]
    where = f"episode {episode[0]}" if len(episode) else "an episode"
    cast = {name: _cast(f"{where}: {name}", columns[name], column, steps) for name, column in layout.items()}
    places = Places(np.full(steps, cast["episode_ids"][0]), np.arange(steps), np.full(steps, steps))
    spaces = {"observation_space": observation_space, "action_space": action_space}
    if fault := first_fault(cast, places, gamma=gamma, complete=True, **spaces):
        raise UserError(f"{where}: {fault.what}: {fault.remedy}")
    return cast


def _cast(what: str, values: npt.ArrayLike, column: Column, steps: int) -> Array:
    array = np.asarray(values)
    expected = (steps, *(column.shape or ()))
    if steps == 0 or array.shape != expected:
        raise UserError(f"{what} has shape {array.shape}, not {expected} with at least one step: correct the source")
    if not np.can_cast(array.dtype, column.dtype, "same_kind"):
        raise UserError(f"{what} has type {array.dtype}, which is not {column.dtype}: convert it before writing")
    if column.dtype.kind in "iu":
        held = np.iinfo(column.dtype)
        for extreme in (int(array.min()), int(array.max())):
            if not held.min <= extreme <= held.max:
                raise UserError(f"{what} has {extreme}, which {column.dtype} cannot hold: correct the source")
    with np.errstate(over="ignore"):
        cast: Array = array.astype(column.dtype, copy=False)
    if column.dtype.kind == "f" and (beyond := np.isinf(cast) & np.isfinite(array)).any():
        raise UserError(f"{what} has {array[beyond][0]:g}, which is beyond {column.dtype}: scale it in the source")
    return cast
