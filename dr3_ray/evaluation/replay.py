"""The replay of an online learner: all that it saw, in memory."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dr3_ray.data import episode_columns
from dr3_ray.data.columns import Columns
from dr3_ray.data.number_types import Array
from dr3_ray.evaluation.contract import Contract
from dr3_ray.observations import Observations


class Replay:
    """All transitions of up to `steps` steps, in memory and in the environment's types; a learner's data as they grow.

    `ends` has the number of rows behind each episode, and whether it terminated.
    """

    def __init__(self, steps: int, contract: Contract):
        self.rows, self.ends = 0, list[tuple[int, bool]]()
        self._parts = contract.parts
        self._action_space = contract.recorded.actions
        shape = () if self._action_space.n else (self._action_space.size,)
        self.observations, self.next_observations = (
            {name: np.zeros((steps, *part.shape), part.declared) for name, part in self._parts.items()} for _ in "12"
        )
        self.numbers = {
            "actions": np.zeros((steps, *shape), self._action_space.dtype),
            "rewards": np.zeros(steps, np.float32),
            "terminateds": np.zeros(steps, np.float32),
        }

    def __len__(self) -> int:
        return self.rows

    @property
    def columns(self) -> list[Array]:
        """All columns, each [steps, …]; the first `rows` rows are known."""
        return [
            values for column in (self.observations, self.next_observations, self.numbers) for values in column.values()
        ]

    def append(self, observation: dict[str, Array], next_observation: dict[str, Array], **numbers: Any) -> None:
        """Add one transition between the parts of two observations of the environment."""
        for column, given in self._with(observation, next_observation, numbers):
            for name, values in column.items():
                values[self.rows] = given[name]
        self.rows += 1

    def has(self, row: int, observation: dict[str, Array], next_observation: dict[str, Array], **numbers: Any) -> bool:
        """Return whether a row is this transition, as `append` would store it."""
        return all(
            np.array_equal(values[row], np.asarray(given[name]).astype(values.dtype))
            for column, given in self._with(observation, next_observation, numbers)
            for name, values in column.items()
        )

    def _with(self, *given: dict[str, Any]) -> Iterator[tuple[dict[str, Array], dict[str, Any]]]:
        """Yield the columns, with what is given for each of them."""
        return zip((self.observations, self.next_observations, self.numbers), given, strict=True)

    def gather(self, indices: Tensor, columns: Sequence[str]) -> dict[str, Any]:
        """Return columns at `indices`, each [*indices, ...]; observations as networks take them."""
        rows = indices.numpy()
        return {name: self._column(name, rows) for name in columns}

    def _column(self, name: str, rows: Array) -> Observations:
        if name in self.numbers:
            return torch.from_numpy(self.numbers[name][rows])
        column: dict[str, Array] = getattr(self, name)
        seen = {name: torch.from_numpy(part.convert(column[name][rows])) for name, part in self._parts.items()}
        return seen.get("", seen)

    def episodes(self, gamma: float, first: int = 0, last: int | None = None) -> Iterator[Columns]:
        """Yield the columns of each episode from row `first` on, and up to `last`, which may cut the last one."""
        start, last = 0, self.rows if last is None else last
        for number, (stop, terminated) in enumerate(self.ends):
            if first <= start < last:
                yield self._episode(number, start, min(stop, last), terminated and stop <= last, gamma)
            start = stop

    def _episode(self, number: int, start: int, stop: int, terminated: bool, gamma: float) -> Columns:
        rows = slice(start, stop)
        seen = {
            name: np.concatenate([values[rows], self.next_observations[name][stop - 1 : stop]])
            for name, values in self.observations.items()
        }
        return episode_columns(
            seen.get("", seen),
            self.numbers["actions"][rows],
            self.numbers["rewards"][rows],
            terminated=terminated,
            truncated=not terminated,
            episode_id=number,
            gamma=gamma,
        )
