"""What a manifest tells of rows, counted while they pass by: run by run, each of consecutive episodes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dr3_ray.data.actions import Used
from dr3_ray.data.columns import EPISODE_SCHEMA, Columns
from dr3_ray.data.content import content_of
from dr3_ray.data.moments import described
from dr3_ray.data.rounding import Rounding
from dr3_ray.data.schema import Counts
from dr3_ray.data.spaces import SpaceSpec

EPISODE = tuple(EPISODE_SCHEMA.names)


class Tally:
    """Counts, the table of episodes, statistics, and what rounding lost."""

    def __init__(self, observation_space: SpaceSpec, action_space: SpaceSpec) -> None:
        self.rounding = Rounding()
        self.used = Used(action_space) if action_space.kind == "box" else None
        self.complete = True
        self._terminateds = self._truncateds = 0
        self._rows = 0
        self._episodes: list[tuple[int, int, int, float, bool]] = []
        self._digests: list[str] = []
        self._moments = described(observation_space)

    def add(self, columns: Columns, keep: Any = None) -> Columns:
        """Count in one complete episode, or of its rows those that `keep` [T] names; return these rows."""
        if self.used:
            self.used.add(columns["actions"])
        number, steps = int(columns["episode_ids"][0]), len(columns["rewards"])
        total, terminated = float(columns["rewards"].sum(dtype=np.float64)), bool(columns["terminateds"][-1])
        if keep is not None:
            columns = {name: values[keep] for name, values in columns.items()}
        rows = len(columns["rewards"])
        self.complete &= rows == steps
        self._episodes.append((number, self._rows, rows, total, terminated))
        self._rows += rows
        self._terminateds += int(columns["terminateds"].sum())
        self._truncateds += int(columns["truncateds"].sum())
        for name, moments in self._moments.items():
            moments.add(np.asarray(total) if name == "episode_returns" else columns[name])
        return columns

    def digest(self, digest: bytes) -> None:
        """Note the digest of the episode that was added last."""
        self._digests.append(digest.hex())

    def state(self) -> dict[str, Any]:
        """Return all counts, as `merge` and `states.dump` take them."""
        return {
            "episodes": self._episodes,
            "digests": self._digests,
            "ends": [self._terminateds, self._truncateds],
            "complete": self.complete,
            "moments": {name: moments.state() for name, moments in self._moments.items()},
            "rounding": self.rounding.state(),
            "used": self.used.state() if self.used else None,
        }

    def merge(self, state: Mapping[str, Any], shift: int = 0) -> None:
        """Count in the rows that follow; `shift` is added to the numbers of their episodes."""
        self._episodes += [(number + shift, offset + self._rows, *rest) for number, offset, *rest in state["episodes"]]
        self._digests += state["digests"]
        self._rows += sum(rows for _, _, rows, *_ in state["episodes"])
        self._terminateds += state["ends"][0]
        self._truncateds += state["ends"][1]
        self.complete &= state["complete"]
        for name, moments in self._moments.items():
            moments.merge(*state["moments"][name])
        self.rounding.merge(state["rounding"])
        if self.used:
            self.used.merge(*state["used"])

    @property
    def last_episode(self) -> int:
        """The number of the last episode; -1 without any."""
        return self._episodes[-1][0] if self._episodes else -1

    def counts(self) -> Counts:
        """Return the counts; at least one row was counted."""
        return Counts(
            rows=self._rows,
            episodes=len(self._episodes),
            terminateds=self._terminateds,
            truncateds=self._truncateds,
        )

    def episodes(self) -> Columns:
        """Return the table of episodes, [E] each."""
        return dict(zip(EPISODE, map(np.asarray, zip(*self._episodes, strict=True)), strict=True))

    def content(self) -> str:
        """Return the digest of all rows and episodes."""
        return content_of(self.episodes(), map(bytes.fromhex, self._digests))

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of each column that has some."""
        return {name: moments.result() for name, moments in self._moments.items()}
