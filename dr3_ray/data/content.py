"""The digest of what is learned from: rows and episodes, in whatever files they lie."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from dr3_ray.data.columns import Columns
from dr3_ray.data.number_types import Array

if TYPE_CHECKING:  # it is read by what is here
    from dr3_ray.data.reader import Dataset

NEXT = "next_"
NUMBERS = "episode_ids"  # what episodes are called, from which nothing is learned
LEARNED = {"lengths": "<i8", "returns": "<f8", "terminated": "|b1"}  # of the table of episodes; offsets follow
CHUNK = 2**24  # bytes of rows that are read together


class EpisodeDigest:
    """The SHA-256 of the rows of one episode, which come in pieces as they lie on disk.

    A next observation that is the observation of the next row counts once: images are most of a data set.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        """Take the names of the columns on disk, in their order there."""
        self._columns = {name: hashlib.sha256() for name in columns if name != NUMBERS}
        self._apart = {name: hashlib.sha256() for name in self._columns if name[len(NEXT) :] in self._columns}
        self._rows = 0
        self._last: Columns = {}

    def add(self, rows: Mapping[str, Array]) -> None:
        """Add the rows that follow; one at least."""
        for name, digest in self._columns.items():
            if name.startswith(f"{NEXT}observations"):
                self._add_next(name, rows[name.removeprefix(NEXT)], rows[name])
            else:
                digest.update(_bytes(rows[name]).data)
        self._rows += len(rows["rewards"])

    def digest(self) -> bytes:
        """Return the digest of all rows that were added."""
        for name, last in self._last.items():
            self._note(name, last, np.array([self._rows - 1]))
        self._last = {}
        ends = [digest.digest() for digest in (*self._columns.values(), *self._apart.values())]
        return hashlib.sha256(b"".join(ends)).digest()

    def _add_next(self, name: str, now: Array, following: Array) -> None:
        """Add the next observations but the last one, because the row behind that is not known yet."""
        held = self._last.get(name, following[:0])
        known = np.concatenate([held, following[:-1]])
        begins = now[1 - len(held) :]
        self._last[name] = following[-1:].copy()
        apart = np.flatnonzero((_bytes(known) != _bytes(begins)).any(1))
        if len(apart):
            self._note(name, known[apart], self._rows - len(held) + apart)

    def _note(self, name: str, values: Array, rows: Array) -> None:
        self._columns[name].update(_bytes(values).data)
        self._apart[name].update(rows.astype("<i8").tobytes())


def content_of(episodes: Columns, digests: Iterable[bytes]) -> str:
    """Return the digest of a data set: of the table of its episodes, and of the rows of each by its own digest."""
    whole = hashlib.sha256()
    for name, kind in LEARNED.items():
        whole.update(np.ascontiguousarray(episodes[name], kind).tobytes())
    for digest in digests:
        whole.update(digest)
    return whole.hexdigest()


def read_content(dataset: Dataset) -> str:
    """Read all rows of an opened data set, and return the digest of rows and episodes."""
    return content_of(dataset.episodes, _digests(dataset))


def _digests(dataset: Dataset) -> Iterator[bytes]:
    """Yield the digest of each episode; one without rows has that of none."""
    ends = (dataset.episodes["offsets"] + dataset.episodes["lengths"]).tolist()
    names = dataset.stored_columns
    step = max(1, CHUNK // dataset.row_bytes)
    digest, episode, place, start = EpisodeDigest(names), 0, 0, 0
    rows: Columns = {}
    while episode < len(ends):
        if place == start + len(rows.get("rewards", ())) and place < ends[episode]:
            dataset.check_files()
            start, rows = place, dataset.stored(place, place + step)
        stop = min(ends[episode], start + len(rows.get("rewards", ())))
        if stop > place:
            digest.add({name: values[place - start : stop - start] for name, values in rows.items()})
            place = stop
        if place == ends[episode]:
            yield digest.digest()
            digest, episode = EpisodeDigest(names), episode + 1


def _bytes(values: Array) -> Array:
    """Return the bytes of each row, [R, bytes]."""
    flat = np.ascontiguousarray(values).reshape(len(values), math.prod(values.shape[1:]))
    return flat.view(np.uint8) if flat.size else np.zeros((len(values), 0), np.uint8)
