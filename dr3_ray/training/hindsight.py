"""Hindsight relabelling: rows of goal data get a goal that their own episode reached, each time that they are drawn.

Andrychowicz et al., arXiv 1707.01495. Observations have the parts of Gymnasium-Robotics, `achieved_goal` and
`desired_goal`. The goals are drawn as in Stable-Baselines3's `HerReplayBuffer`: what the next observation of a step
achieved, of this step or a later one of the episode (`future`), or of the last one (`final`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dr3_ray.data.n_step import Rows
from dr3_ray.errors import UserError
from dr3_ray.observations import parts_of
from dr3_ray.options import Options
from dr3_ray.types import Spaces

ACHIEVED, DESIRED = "achieved_goal", "desired_goal"
NOISE = "hindsight"  # two uniform numbers a row: whether it is relabelled, and which step's goal it gets
ROWS_AT_ONCE = 65_536
OUTCOMES = ("rewards", "terminateds")


class Hindsight:
    """The goals, rewards and ends of rows that are drawn from `data`, by the stacked options of K members.

    For all rows alike, relabelled or not: a step reaches its goal where the next observation's achieved goal is no
    farther from it than the threshold; the reward is 0 there and −1 elsewhere. It is terminal if it was recorded as
    such elsewhere than at the recorded goal, and, with `hindsight_terminal`, where it reaches its goal.
    """

    def __init__(self, data: Rows, options: Any, columns: Sequence[str]) -> None:
        self._columns, self._final = columns, options.hindsight == "final"
        self._ratio = options.hindsight_ratio.view(-1, 1)
        self._counts = any(name in columns for name in OUTCOMES)  # whether a goal is reached
        if self._counts:
            self._threshold: float = options.hindsight_threshold or recorded_threshold(data)
            self._terminal: bool = options.hindsight_terminal
        episodes = data.episodes  # type: ignore[attr-defined]
        self._starts = torch.as_tensor(episodes["offsets"]).long()
        self._lasts = self._starts + torch.as_tensor(episodes["lengths"]) - 1

    @property
    def wanted(self) -> list[str]:
        """The columns that are read for those that are asked for."""
        return sorted({*self._columns, "observations", "next_observations"})

    def to(self, device: torch.device) -> "Hindsight":
        """Move to a device."""
        for name in ("_ratio", "_starts", "_lasts"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def relabel(
        self, data: Rows, columns: dict[str, Any], indices: Tensor, uniform: Tensor | None, members: slice
    ) -> dict[str, Any]:
        """Return the columns of rows `indices` [*lead, K, B] with other goals, and what follows from these.

        `columns` are those that are `wanted`; `uniform` [*lead, K, B, 2] is in [−1, 1). Without it the recorded goals
        stay.
        """
        seen, after = columns["observations"], columns["next_observations"]
        recorded = goals = seen[DESIRED]
        if uniform is not None:
            chosen, place = ((uniform + 1.0) / 2.0).unbind(-1)
            relabelled = (chosen < self._ratio[members]).unsqueeze(-1)
            reached = data.gather(self._goal_rows(indices, place), ("next_observations",))["next_observations"]
            goals = torch.where(relabelled, reached[ACHIEVED].to(recorded.dtype), recorded)
            columns["observations"] = seen | {DESIRED: goals}
            columns["next_observations"] = after | {DESIRED: torch.where(relabelled, goals, after[DESIRED])}
        if self._counts:
            success = self._success(after, goals)
            if "rewards" in columns:
                columns["rewards"] = success.to(columns["rewards"].dtype) - 1.0
            if "terminateds" in columns:
                recorded_end = (columns["terminateds"] > 0) & ~self._success(after, recorded)
                ends = recorded_end | success if self._terminal else recorded_end
                columns["terminateds"] = ends.to(columns["terminateds"].dtype)
        return {name: columns[name] for name in self._columns}

    def _goal_rows(self, indices: Tensor, place: Tensor) -> Tensor:
        """Return the rows of the same episodes that give the goals; `place` [*indices] is in [0, 1)."""
        episode = torch.searchsorted(self._starts, indices.contiguous(), right=True) - 1
        last: Tensor = self._lasts[episode]
        if self._final:
            return last
        # in float64: 2²⁴ steps and more keep their places
        return torch.minimum(indices + (place.double() * (last - indices + 1)).long(), last)

    def _success(self, after: dict[str, Tensor], goals: Tensor) -> Tensor:
        return distance(after[ACHIEVED], goals) <= self._threshold


def distance(achieved: Tensor, desired: Tensor) -> Tensor:
    """Return the Euclidean distance ‖achieved − desired‖ [*lead] of goals [*lead, G], in float32."""
    far: Tensor = torch.linalg.vector_norm(achieved.float() - desired.float(), dim=-1)
    return far


def recorded_threshold(data: Rows) -> float:
    """Return the distance at which the recorded rewards change: between the farthest success and the nearest failure.

    Raises:
        UserError: the rewards are not of two values, or no distance parts them.
    """
    distances, rewards = [], []
    for rows in torch.split(torch.arange(len(data)), ROWS_AT_ONCE):
        columns = data.gather(rows, ("observations", "next_observations", "rewards"))
        distances.append(distance(columns["next_observations"][ACHIEVED], columns["observations"][DESIRED]))
        rewards.append(columns["rewards"])
    far, reward = torch.cat(distances), torch.cat(rewards)
    success = reward == reward.max()
    if success.all() or (reward[~success] != reward.min()).any():
        raise _untold("they do not have two values")
    reached, missed = float(far[success].max()), float(far[~success].min())
    if reached >= missed:
        raise _untold(f"a goal counts as reached at {reached:.4g} and as missed at {missed:.4g}")
    return (reached + missed) / 2.0


def _untold(why: str) -> UserError:
    return UserError(
        f"the recorded rewards do not tell at which distance a goal is reached, as {why}: give hindsight_threshold "
        "(0.05 in Fetch, 0.45 in PointMaze)"
    )


def check_hindsight(options: Options, spaces: Spaces) -> None:
    """Check that these observations have the goals that the options ask for.

    Raises:
        UserError: they have none, or another option excludes other goals.
    """
    if (asked := getattr(options, "hindsight", "none")) == "none":
        return
    shapes = parts_of(spaces.observation_shape)
    goals = [shapes.get(name) for name in (ACHIEVED, DESIRED)]
    if goals[0] is None or goals[0] != goals[1] or len(goals[0]) != 1:
        there = ", ".join(f"{name or 'no parts'} {shape}" for name, shape in shapes.items())
        raise UserError(
            f"hindsight = {asked} needs observations with the parts {ACHIEVED} and {DESIRED}, vectors of one length, "
            f"and these have {there}: leave it out"
        )
    usual: dict[str, Any] = {"n_step": 1, "reward_scaling": "none"}
    for name, only in usual.items():
        if (value := getattr(options, name, only)) != only:
            raise UserError(
                f"{name} = {value} counts recorded rewards, and other goals have others: leave out hindsight"
            )
