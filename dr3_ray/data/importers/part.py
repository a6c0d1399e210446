"""Episodes of a source on their way into shards: how one part of an import is written, by whichever process."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np

from dr3_ray.data.actions import from_env_actions, to_env_actions
from dr3_ray.data.checks import Findings
from dr3_ray.data.columns import Columns
from dr3_ray.data.episodes import episode_columns
from dr3_ray.data.frames import Stack
from dr3_ray.data.importers.observations import observations_of
from dr3_ray.data.importers.reading import items_of, reading
from dr3_ray.data.importers.source import Episode, Read, Source
from dr3_ray.data.number_types import Array
from dr3_ray.data.shard_files import ShardFiles
from dr3_ray.data.spaces import SpaceSpec
from dr3_ray.errors import UserError

State = dict[str, Any]
"""What is known of a part that is on disk, as JSON: its `files`, and what `tally`, `findings` and `moved` counted."""


Spread = Callable[[Callable[[], Source], "Plan", list[int], int], Iterator[tuple[int, State]]]
"""Has parts of these numbers written by so many at once, and yields number and state of each as it is on disk."""


@dataclass(frozen=True)
class Plan:
    """How all parts of an import are written."""

    folder: Path
    observation_space: SpaceSpec
    action_space: SpaceSpec
    gamma: float
    clip_actions: bool
    flatten: bool
    rows_per_shard: int
    stack: Stack | None = None


class Moved:
    """Counts of actions that were moved to their bounds, and how far."""

    def __init__(self) -> None:
        self._count, self._furthest = 0, 0.0

    def clip(self, space: SpaceSpec, given: Array) -> Array:
        """Return actions [T, *shape] within the bounds of their space."""
        inside: Array = np.clip(given.astype(np.float64), *space.bounds())
        self.merge(
            int((inside != given).any(tuple(range(1, given.ndim))).sum()), float(abs(inside - given).max(initial=0))
        )
        return inside

    def state(self) -> tuple[int, float]:
        """Return the number of actions, and how far one was moved at most."""
        return self._count, self._furthest

    def merge(self, count: int, furthest: float) -> None:
        """Count in other actions by their `state`."""
        self._count, self._furthest = self._count + count, max(self._furthest, furthest)

    def notes(self) -> list[str]:
        """Return one sentence, or none."""
        if not self._count:
            return []
        return [f"{self._count} actions outside the action space were moved to its bounds, by up to {self._furthest:g}"]


def runs_of(episodes: Iterable[Episode], rows: int) -> Iterator[Iterator[Episode]]:
    """Yield runs of episodes that have up to so many rows each, or one episode; each has to be read to its end."""
    remaining = iter(episodes)
    following = next(remaining, None)

    def run() -> Iterator[Episode]:
        """Yield the next episodes, up to the one that does not fit."""
        nonlocal following
        taken = 0
        while following is not None and (not taken or taken + len(following.rewards) <= rows):
            taken += len(following.rewards)
            yield following
            following = next(remaining, None)

    while following is not None:
        yield run()


def write_part(
    plan: Plan,
    number: int,
    source: Source,
    episodes: Iterable[Episode],
    findings: Findings,
    first: int = 0,
    told: Callable[[int], None] | None = None,
) -> State:
    """Write episodes into shards of their own, called after the number of the part; return its state.

    Args:
        plan: what all parts have in common.
        number: of the part.
        source: of the episodes.
        episodes: from one place of the source on.
        findings: what was found in these episodes alone.
        first: is added to the numbers of the episodes.
        told: is told the rows of each episode.

    Raises:
        UserError: an episode is not acceptable; its number is that in the part, plus `first`.
    """
    with reading("the source"):
        _, convert, _ = observations_of(source.observation_space, plan.flatten)
    spaces = plan.observation_space, plan.action_space
    files = ShardFiles(plan.folder, f"part-{number:05d}-", *spaces, plan.gamma, plan.rows_per_shard, plan.stack)
    moved, space = Moved(), plan.action_space
    for episode in items_of(episodes, source.name):
        try:
            columns = _columns(episode._replace(number=episode.number + first), convert, plan)
            if space.kind == "box":
                given = np.asarray(episode.actions)
                given = moved.clip(space, given) if plan.clip_actions else given
                files.tally.rounding.add("actions", given, to_env_actions(space, columns["actions"]))
            files.write(columns)
        except UserError as error:
            raise UserError(f"{source.name}, {error}") from None
        findings.look(columns)
        if told:
            told(len(episode.rewards))
    files.flush()
    return {
        "first": first,
        "files": [entry.model_dump() for entry in files.entries],
        "tally": files.tally.state(),
        "findings": findings.state(),
        "moved": moved.state(),
    }


def _columns(episode: Episode, convert: Callable[[Any], dict[str, Array]], plan: Plan) -> Columns:
    try:
        with reading("what was recorded", "correct the source"):
            actions = np.atleast_1d(from_env_actions(plan.action_space, episode.actions, clip=plan.clip_actions))
            observations = convert(episode.observations)
    except UserError as error:
        raise UserError(f"episode {episode.number}: {error}") from None
    columns = episode_columns(
        observations,
        actions,
        episode.rewards,
        terminated=False,
        truncated=False,
        episode_id=episode.number,
        gamma=plan.gamma,
    )
    return columns | {"terminateds": episode.terminateds, "truncateds": episode.truncateds}


def written_by_workers(
    opened: Callable[[], Source], plan: Plan, numbers: list[int], workers: int
) -> Iterator[tuple[int, State]]:
    """Yield the number and the state of each of these parts as it is written by one of several processes.

    Raises:
        UserError: an episode is not acceptable, or a process was killed.
    """
    context = get_context("spawn")  # threads of Arrow and HDF5 do not survive a fork
    pool = ProcessPoolExecutor(min(workers, len(numbers)), context, _begin, (opened, plan))
    try:
        parts = {pool.submit(_write, number): number for number in numbers}
        for part in as_completed(parts):
            yield parts[part], part.result()
    except BrokenProcessPool:
        raise UserError(
            "a process that was importing was killed, perhaps for want of memory: give fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_JOB: list[Any] = []  # what this process works on, if it is one of several


def _begin(opened: Callable[[], Source], plan: Plan) -> None:
    _JOB[:] = opened, plan
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """End this process with the one that started it, however that ends."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


@cache
def _opened() -> tuple[Source, list[Read]]:
    opened, plan = _JOB
    source: Source = opened()
    assert source.parts is not None
    return source, list(source.parts(plan.rows_per_shard, Findings()))


def _write(number: int) -> State:
    source, parts = _opened()
    findings = Findings()
    return write_part(_JOB[1], number, source, parts[number](findings), findings)
