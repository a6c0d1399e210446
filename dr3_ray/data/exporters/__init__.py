"""Exporters: one file for each format, one table of them, one function that writes a data set by any of them.

A writer takes a `Job` (see `dr3_ray.data.exporters.job`): what it writes takes the target's name once all is on disk.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from dr3_ray.data.exporters.job import Job
from dr3_ray.data.exporters.played import played
from dr3_ray.data.importers.source import Episode
from dr3_ray.data.importers.writing import Told
from dr3_ray.data.loading import opened
from dr3_ray.data.reader import Dataset
from dr3_ray.data.spaces import named_parts
from dr3_ray.data.targets import FileTarget, Target
from dr3_ray.errors import UserError, check_known, first_line
from dr3_ray.stores import check_room, synchronize


class Room(NamedTuple):
    """The room that a format takes, of a library that ends the process where a write finds none."""

    copies: int  # of observations, actions and rewards
    episode: int  # bytes of an episode beside its values


@dataclass(frozen=True)
class Exporter:
    """One format, in a module of its own that is imported when it is used."""

    what: str  # in words
    module: str
    writes: str  # the function that does a `Job`
    reads: str  # what reads it, where {out} is the target in quotes
    folder: bool = True  # whether it is a folder; else a file
    dicts: bool = False  # whether it has observations of named parts
    room: Room | None = None  # that is looked for beforehand
    named: str | None = None  # the function that makes a path of what names the target; without it, that is a path

    def write(self, job: Job) -> None:
        """Write the job's episodes to its path."""
        self._function(self.writes)(job)

    def path(self, out: str | os.PathLike[str]) -> str | os.PathLike[str]:
        """Return where a target lies; UserError if it is named wrongly."""
        return cast(Path, self._function(self.named)(out)) if self.named else out

    def _function(self, name: str) -> Callable[..., object]:
        return cast(Callable[..., object], getattr(import_module(f"{__name__}.{self.module}"), name))


EXPORTERS = {
    "minari": Exporter(
        "a Minari data set",
        "minari",
        "write_minari",
        "minari.load_dataset({out})",
        dicts=True,
        named="minari_path",
        room=Room(1, 16_384),
    ),
    "d4rl": Exporter("a D4RL HDF5 file", "d4rl", "write_d4rl", "h5py.File({out})", folder=False, room=Room(2, 0)),
    "rllib": Exporter("recordings of RLlib", "rllib", "write_rllib", "BCConfig().offline_data(input_={out})"),
    "parquet": Exporter(
        "a Parquet table", "parquet", "write_parquet", "pandas.read_parquet({out})", folder=False, dicts=True
    ),
}


class Exported(NamedTuple):
    """What was written, and a Python expression that reads it."""

    path: Path
    rows: int
    episodes: int
    bytes: int
    reads: str


def export_dataset(
    source: Dataset | str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str],
    progress: Callable[[int], Told] | None = None,
) -> Exported:
    """Write a data set in another library's format.

    Observations and actions have the units, types and numbering of their environment. Memory holds an episode, and some
    megabytes of rows. Nothing appears at the target before all of it is on disk.

    Args:
        source: a data set with whole episodes, or its name.
        to: a format of `EXPORTERS`.
        out: a file or folder that is not there, or an empty folder; for Minari, the id of a new data set.
        progress: is told the number of rows, and returns what is told the rows of each episode.

    Raises:
        UserError: no such format, episodes or observations that it does not have, or no place for the target.
    """
    check_known("format to export to", [to], EXPORTERS)
    exporter, dataset = EXPORTERS[to], opened(source)
    dataset.check_one("export")
    _check(dataset, exporter)
    path = exporter.path(out)
    target = Target(path) if exporter.folder else FileTarget(path)
    told = progress(len(dataset)) if progress else lambda rows: None
    try:
        target.open()
        place = target.partial if exporter.folder else target.partial / target.path.name
        episodes = played(dataset)
        first = next(episodes)
        check_room(target.partial, _size(exporter.room, dataset, first))
        exporter.write(Job(dataset, _telling(chain([first], episodes), told), place, os.fspath(out)))
        files = [file for file in target.partial.rglob("*") if file.is_file()]
        for file in files:
            synchronize(file)
        size = sum(file.stat().st_size for file in files)
        target.commit()
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or first_line(error)}") from None
    finally:
        target.close()
    reads = exporter.reads.format(out=_literal(os.fspath(out)))
    return Exported(target.path, len(dataset), dataset.manifest.counts.episodes, size, reads)


def _literal(text: str) -> str:
    """Return a text as Python reads it, in the quotes of the other words where it can have them."""
    return f'"{text}"' if text.isprintable() and not {'"', "\\"} & set(text) else repr(text)


def _check(dataset: Dataset, exporter: Exporter) -> None:
    if not dataset.manifest.complete_episodes:
        raise UserError(f"{dataset.path} is a subsample of its episodes: exports are of whole ones")
    if dataset.observation_space.kind == "dict" and not exporter.dicts:
        able = [name for name, other in EXPORTERS.items() if other.dicts]
        raise UserError(
            f"{exporter.what} has one array of observations, and these have parts: export to {' or '.join(able)}, or "
            "import the source with --flatten"
        )


def _size(room: Room | None, dataset: Dataset, first: Episode) -> int:
    """Return about how many bytes a data set takes whose first episode this is; 0 where that need not be known."""
    if room is None:
        return 0
    arrays = (*named_parts(first.observations).values(), first.actions, first.rewards)
    step = sum(np.asarray(array).nbytes for array in arrays) // len(first.rewards) + 2
    return room.copies * step * len(dataset) + room.episode * dataset.manifest.counts.episodes + 2**16


def _telling(episodes: Iterator[Episode], told: Told) -> Iterator[Episode]:
    for episode in episodes:
        yield episode
        told(len(episode.rewards))
