"""What a writer is handed: a data set, its episodes one by one, and a place."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dr3_ray.data.importers.source import Episode
from dr3_ray.data.reader import Dataset


class Job(NamedTuple):
    """One export; `out` is what the user calls the target, which `path` becomes once it is on disk."""

    dataset: Dataset
    episodes: Iterator[Episode]  # as their environment had them
    path: Path  # an empty folder, or a file that is not there
    out: str
