"""Observations that are stored once: a shard's frames, and for each row where its two observations lie among them.

An observation is `stack.frames` consecutive frames of its shard, joined along an axis; one frame where nothing is
stacked. A frame is shared by the rows that have it bit for bit: the next row's observation is this row's next one, and
a stack has all but one of its frames from the stack before it. Rows that do not follow each other have frames of their
own, so that what is written is always what is read.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dr3_ray.data.columns import Column, part_column
from dr3_ray.data.number_types import Array

SMALLEST = 16  # bytes of an observation: two indices are 8, so that none below saves a quarter
MOST_STACKED = 16  # frames of an observation that are looked for
LOOKED_AT = 32  # rows at the start of a shard, by which it is decided what is stacked
INDEX = np.dtype(np.int32)


class Stack(NamedTuple):
    """How many frames make an observation, and along which axis of its shape."""

    frames: int = 1
    axis: int = 0

    def fits(self, column: Column) -> bool:
        """Return whether observations of a column can be made of so many frames; bits are not taken apart."""
        shape = column.shape or ()
        if self.frames == 1:
            return self.axis == 0
        return not column.packed and self.axis < len(shape) and shape[self.axis] % self.frames == 0

    def frame(self, column: Column) -> Column:
        """Return how a frame of a column's observations lies on disk."""
        if self.frames == 1:
            return column
        shape = list(column.shape or ())
        shape[self.axis] //= self.frames
        return replace(column, shape=tuple(shape))

    def apart(self, column: Column, values: Array) -> Array:
        """Return rows [R, elements] as frames [R, frames, elements of a frame]."""
        if self.frames == 1:
            return values[:, None]
        before, after = self._around(column)
        return values.reshape(len(values), before, self.frames, after).swapaxes(1, 2).reshape(
            len(values), self.frames, before * after
        )  # fmt: skip

    def joined(self, column: Column, frames: Array) -> Array:
        """Return frames [R · frames, elements of a frame] as rows [R, elements]."""
        if self.frames == 1:
            return frames
        before, after = self._around(column)
        apart = frames.reshape(-1, self.frames, before, after)
        if before > 1:  # four times as fast as a transposed copy of bytes
            apart = np.stack([apart[:, place] for place in range(self.frames)], 2)
        return apart.reshape(len(apart), before * self.frames * after)

    def _around(self, column: Column) -> tuple[int, int]:
        """Return the elements of a frame before its axis, and from it on."""
        shape = column.shape or ()
        return math.prod(shape[: self.axis]), math.prod(shape[self.axis :]) // self.frames


class Framed(NamedTuple):
    """A column of observations of a shard: its frames [F, elements], and the first frame of each row, [R] int32."""

    column: Column
    stack: Stack
    frames: Array
    starts: Array

    def select(self, rows: Array) -> Array:
        """Copy these rows as a column of observations has them, [R, elements]."""
        starts = self.starts.take(rows)
        if self.stack.frames > 1:
            starts = (starts[:, None] + np.arange(self.stack.frames, dtype=starts.dtype)).reshape(-1)
        return self.stack.joined(self.column, self.frames.take(starts, 0))

    def frames_of(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Return the first frame and the one after the last of runs of rows, from `low` [E] up to `high` [E].

        The frames of a shard are in the order of its rows.
        """
        return self.starts[low].astype(np.int64), self.starts[high - 1].astype(np.int64) + self.stack.frames

    def out_of_bounds(self) -> bool:
        """Return whether a row has frames that are not there; no frame is read for it."""
        return bool(self.starts.min() < 0 or self.starts.max() > len(self.frames) - self.stack.frames)


FRAMES = {"observations": "frames", "next_observations": "next_frames"}  # columns, and those of their indices


def shard_layout(layout: Mapping[str, Column], parts: Iterable[str]) -> dict[str, Column]:
    """Return the columns of a shard in which these parts of the observations are stored once: indices for them."""
    indices = {part_column(column, part): part_column(name, part) for part in parts for column, name in FRAMES.items()}
    return {indices.get(name, name): Column(INDEX) if name in indices else column for name, column in layout.items()}


def stack_of(column: Column, observations: Array, following: Array) -> Stack:
    """Return how observations [R, elements] are stacked, by those that follow them; of one frame if they are not.

    Frames are looked for along the first and the last axis, the newest last. Rows that change nothing do not count.
    """
    shape = column.shape or ()
    observations, following = bits(observations[:LOOKED_AT]), bits(following[:LOOKED_AT])
    changed = (observations != following).any(1)
    if column.packed or len(shape) < 2 or not changed.any():
        return Stack()
    observations, following = observations[changed], following[changed]
    for frames in range(min(MOST_STACKED, max(shape)), 1, -1):
        for axis in (0, len(shape) - 1):
            stack = Stack(frames, axis)
            if stack.fits(column):
                now, then = stack.apart(column, observations), stack.apart(column, following)
                if (now[:, 1:] == then[:, :-1]).all():
                    return stack
    return Stack()


def overlaps(earlier: Array, later: Array) -> Array:
    """Return of pairs [N, frames, elements] how many last frames of the earlier are the first of the later, [N]."""
    frames = earlier.shape[1]
    if frames == 1:
        return np.asarray((earlier == later).all((1, 2)), np.int64)
    longest = np.zeros(len(earlier), np.int64)
    pending = np.arange(len(earlier))
    for count in range(frames, 0, -1):
        if not len(pending):
            break
        same = (earlier[pending, -1] == later[pending, count - 1]).all(1)  # of one frame, which most often decides
        some = pending[same]
        equal = (earlier[some, frames - count :] == later[some, :count]).all((1, 2))
        longest[some[equal]] = count
        pending = pending[longest[pending] == 0]
    return longest


def bits(values: Array) -> Array:
    """Return numbers as whole ones that are equal where these have the same bits."""
    return values.view(f"u{values.dtype.itemsize}")


class FrameBuffer:
    """The frames of one part of the observations of a shard that is being written, at most so many bytes of them.

    Args:
        column: of the observations.
        rows: the most of a shard.
        size: the most bytes of frames.
        stack: how they are stacked, if that is known; else the first rows of each shard tell.
    """

    def __init__(self, column: Column, rows: int, size: int, stack: Stack | None = None) -> None:
        self.column, self._known = column, stack
        self._most, self._size = rows, size
        self._starts = np.empty((2, rows), INDEX)
        self._rows = self._used = 0
        self._room = np.empty(0, np.uint8)  # bytes, which are used again for the next shard

    def fitting(self, observations: Array, following: Array) -> int:
        """Return how many of the next rows there is room for; observations are [R, elements] as stored."""
        if not self._rows:
            self.stack = self._known or stack_of(self.column, observations, following)
            self.frame = self.stack.frame(self.column)
            self._reserve()
        pair = [self.stack.apart(self.column, bits(values)) for values in (observations, following)]
        new = np.empty((len(observations), 2), np.int64)
        new[:, 1] = overlaps(*pair)
        new[1:, 0] = overlaps(pair[1][:-1], pair[0][1:])
        new[0, 0] = overlaps(bits(self._frames[None, self._used - self.stack.frames : self._used]), pair[0][:1])[0] \
            if self._used else 0  # fmt: skip
        self._pair, self._new = pair, self.stack.frames - new
        return int(np.searchsorted(self._new.sum(1).cumsum(), len(self._frames) - self._used, side="right"))

    def add(self, rows: int) -> None:
        """Append so many of the rows that were looked at last."""
        new = self._new[:rows]
        ends = self._used + new.cumsum().reshape(-1, 2)
        self._starts[:, self._rows : self._rows + rows] = ends.T - self.stack.frames
        places = np.arange(-self.stack.frames, 0)
        frames = bits(self._frames)
        for side, values in enumerate(self._pair):
            fresh = places >= -new[:, side, None]
            at = (ends[:, side, None] + places)[fresh]
            given = values[:rows].reshape(-1, frames.shape[1]) if fresh.all() else values[:rows][fresh]
            gaps = len(at) and at[-1] - at[0] > len(at) - 1  # there are none in a long episode
            frames[at if gaps or not len(at) else slice(at[0], at[-1] + 1)] = given
        self._rows += rows
        self._used += int(new.sum())
        del self._pair, self._new

    @property
    def saves(self) -> bool:
        """Whether the frames and indices of a shard's rows are smaller than two columns, by a quarter or more."""
        once = self._used * self.frame.row_bytes + 2 * self._rows * INDEX.itemsize
        return 4 * once <= 3 * 2 * self._rows * self.column.row_bytes

    @property
    def frames(self) -> Array:
        """The frames, [F, elements]."""
        return self._frames[: self._used]

    def starts(self) -> tuple[Array, Array]:
        """Return the first frame of each row's observation and of its next one, [R] both."""
        return self._starts[0, : self._rows], self._starts[1, : self._rows]

    def columns(self) -> tuple[Array, Array]:
        """Return observations and next observations [R, elements], as they were given."""
        now, following = (
            Framed(self.column, self.stack, self.frames, starts).select(np.arange(self._rows))
            for starts in self.starts()
        )
        return now, following

    def clear(self) -> None:
        """Begin another shard."""
        self._rows = self._used = 0

    def _reserve(self) -> None:
        """Make room for the frames of a shard; memory is used as they come in."""
        size = self.frame.row_bytes
        dtype = np.dtype(np.uint8) if self.column.packed else self.column.dtype
        frames = max(2 * self.stack.frames, min(2 * self.stack.frames * self._most, self._size // size))
        if len(self._room) < frames * size:
            self._room = np.empty(frames * size, np.uint8)
        self._frames = self._room[: frames * size].view(dtype).reshape(frames, -1)
