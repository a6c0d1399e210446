"""All parts of an import: those that are missing are written, then they are put together in their order."""

import itertools
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.journal import Journal
from dr3_ray.data.importers.part import Moved, Plan, Spread, State, runs_of, write_part, written_by_workers
from dr3_ray.data.importers.reading import items_of
from dr3_ray.data.importers.source import Source
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import ShardEntry
from dr3_ray.data.shard_files import frames_path, number_anew
from dr3_ray.data.tally import Tally
from dr3_ray.errors import UserError


class Whole:
    """What is known of the parts that were added, in their order."""

    def __init__(self, plan: Plan, source: Source) -> None:
        self.tally = Tally(plan.observation_space, plan.action_space)
        self.findings, self.moved = Findings(source.usual), Moved()
        self._plan, self._counts_anew = plan, source.parts is not None and not source.numbered
        self._files: list[tuple[ShardEntry, Array | None]] = []  # with the numbers of the rows' episodes, if others

    @property
    def first(self) -> int:
        """What is added to the numbers of episodes in the next part."""
        return self.tally.last_episode + 1 if self._counts_anew else 0

    def add(self, state: State) -> None:
        """Add the part that follows."""
        shift = self.first - state["first"]
        entries = [ShardEntry(**file) for file in state["files"]]
        episodes = state["tally"]["episodes"]
        numbers = np.repeat(
            np.array([number + shift for number, *_ in episodes], np.int32), [rows for _, _, rows, *_ in episodes]
        )
        ends = np.cumsum([entry.rows for entry in entries])[:-1]
        numbered = np.split(numbers, ends) if shift else itertools.repeat(None)
        self._files += zip(entries, numbered, strict=False)
        self.tally.merge(state["tally"], shift)
        self.findings.merge(state["findings"], shift)
        self.moved.merge(*state["moved"])

    def named(self) -> list[ShardEntry]:
        """Give the files their names in the data set, and the episodes in them their numbers."""

        def name(place: int) -> ShardEntry:
            """Give one shard's files their names."""
            entry, numbers = self._files[place]
            path = self._plan.folder / entry.file
            if numbers is not None:
                entry = entry.model_copy(update=vars(number_anew(path, numbers)))
            final = path.with_name(f"shard-{place:05d}.arrow")
            path.rename(final)
            frames = []
            for number, framed in enumerate(entry.frames or ()):
                frames.append(framed.model_copy(update={"file": frames_path(final, number).name}))
                (path.parent / framed.file).rename(path.parent / frames[-1].file)
            return entry.model_copy(update={"file": final.name, "frames": tuple(frames) or None})

        with ThreadPoolExecutor() as pool:  # most of it is hashing, which needs no lock of Python
            return list(pool.map(name, range(len(self._files))))


def write_parts(
    opened: Callable[[], Source],
    source: Source,
    plan: Plan,
    journal: Journal,
    workers: int,
    told: Callable[[int], None],
    spread: Spread = written_by_workers,
) -> Whole:
    """Write the parts of a source that the journal does not have; return all of them.

    Args:
        opened: opens the source in another process.
        source: the same, opened.
        plan: how parts are written.
        journal: of the folder, to which parts are added.
        workers: processes that write at once; with 1, this one does.
        told: is told rows that are on disk.
        spread: has several parts written at once, in whatever order they are done.

    Raises:
        UserError: an episode is not acceptable, or a process was killed.
    """
    for state in journal.parts.values():
        told(_rows(state))
    if source.parts is None:
        if workers > 1:
            raise UserError(f"{source.name} can be read in its order alone: leave out --workers")
        return _streamed(source, plan, journal, told)
    whole = Whole(plan, source)
    parts = source.parts(plan.rows_per_shard, whole.findings)
    missing = [number for number in range(len(parts)) if number not in journal.parts]
    if workers > 1 and len(missing) > 1:
        for number, state in spread(opened, plan, missing, workers):
            journal.add(number, state)
            told(_rows(state))
    for number, read in enumerate(parts):
        if number not in journal.parts:
            findings = Findings()
            journal.add(number, write_part(plan, number, source, read(findings), findings, whole.first, told))
        whole.add(journal.parts[number])
    return whole


def _streamed(source: Source, plan: Plan, journal: Journal, told: Callable[[int], None]) -> Whole:
    """Write a source that has one order: parts that are whole are read again, but not written."""
    whole = Whole(plan, source)
    episodes = items_of(source.read(whole.findings), source.name)
    for number, run in enumerate(runs_of(episodes, plan.rows_per_shard)):
        if number in journal.parts:
            deque(run, 0)
        else:
            journal.add(number, write_part(plan, number, source, run, Findings(), told=told))
        whole.add(journal.parts[number])
    return whole


def _rows(state: State) -> int:
    return sum(file["rows"] for file in state["files"])
