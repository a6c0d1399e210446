"""Frames of videos beside the rows of a table, decoded one after the other: memory holds a batch of them."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.files import existing
from dr3_ray.data.importers.reading import items_of, unreadable
from dr3_ray.data.importers.rows import Batch
from dr3_ray.data.importers.tables import BATCH_BYTES, ArrowTable
from dr3_ray.data.number_types import Array
from dr3_ray.errors import UserError, first_line

ROUNDING = 0.1  # of the time from frame to frame: so far from a row's time may its frame lie
EXACT = 1e-4  # seconds
AHEAD = 10.0  # seconds that are decoded rather than sought


class Place(NamedTuple):
    """Where an episode lies in a video, from one second up to another."""

    path: Path
    begins: float
    ends: float


class Footage(NamedTuple):
    """The video of one part of the observations."""

    name: str
    rate: float
    """Frames a second."""

    place: Callable[[int], Place]
    """Where the episode of a number lies; a UserError if nowhere."""


class Video:
    """A video that is read at times that grow; it is sought anew for one that is earlier, or far ahead."""

    def __init__(self, path: Path) -> None:
        av, self.path = _av(), existing(str(path))
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (OSError, ValueError, IndexError) as error:
            raise unreadable(path, "video", error) from None
        self._stream.thread_type = "AUTO"
        self._frame: Any = None
        self._following: Any = None
        self._frames: Iterator[Any] = iter(())

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def nearest(self, time: float) -> tuple[float, Array]:
        """Return the time of the frame nearest to one in seconds, and that frame: [height, width, 3] uint8, RGB."""
        if self._frame is None or not self._frame.time <= time + EXACT <= self._frame.time + AHEAD:
            self._seek(time)
        while self._following is not None and abs(self._following.time - time) <= abs(self._frame.time - time):
            self._frame, self._following = self._following, next(self._frames, None)
        return self._frame.time, self._frame.to_ndarray(format="rgb24")

    def _seek(self, time: float) -> None:
        self._container.seek(max(0, math.floor(time / self._stream.time_base)), stream=self._stream)
        self._frames = (frame for frame in self._container.decode(self._stream) if frame.time is not None)
        self._frame, self._following = next(self._frames, None), next(self._frames, None)
        if self._frame is None:
            raise UserError(f"{self.path} has no frame at {time:.4f} s: copy it again")


class FilmedTable:
    """A Parquet table with frames of videos as further columns, each at the time of its row.

    Args:
        table: the rows; `EPISODE` and `TIME` are among its columns.
        films: by our columns.
    """

    EPISODE, TIME = "(episode)", "(time)"
    flat = True

    def __init__(self, table: ArrowTable, films: Mapping[str, Footage]) -> None:
        self._table, self._films = table, dict(films)
        self._open: dict[str, Video] = {}
        self.rows, self.ranged = table.rows, table.ranged
        own = (self.EPISODE, self.TIME)
        self.columns = {name: theirs for name, theirs in table.columns.items() if name not in own}
        self.columns |= {ours: [film.name] for ours, film in films.items()}
        self.layout = {name: part for name, part in table.layout.items() if name not in own}
        head = next(iter(table.batches(own, stop=1)))
        first = {ours: self._frames(ours, head, Findings(), {}) for ours in films}
        self.layout |= {ours: (frames.dtype, frames.shape[1:]) for ours, frames in first.items()}

    def batches(
        self, names: Iterable[str], findings: Findings | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        """Yield rows with their frames, in order."""
        return items_of(self._batches(list(names), findings or Findings(), start, stop), "the videos")

    def _batches(self, names: list[str], findings: Findings, start: int, stop: int | None) -> Iterator[Batch]:
        filmed = [name for name in names if name in self._films]
        theirs = [name for name in names if name not in self._films]
        if not filmed:
            yield from self._table.batches(theirs, findings, start, stop)
            return
        size = sum(math.prod(self.layout[name][1]) for name in filmed)
        step, before = max(1, BATCH_BYTES // size), dict[str, tuple[int, float]]()
        for batch in self._table.batches([*theirs, self.EPISODE, self.TIME], findings, start, stop):
            for begin in range(0, len(batch[self.TIME]), step):
                rows = {name: values[begin : begin + step] for name, values in batch.items()}
                frames = {name: self._frames(name, rows, findings, before) for name in filmed}
                yield {name: frames[name] if name in frames else rows[name] for name in names}

    def _frames(self, name: str, rows: Batch, findings: Findings, before: dict[str, tuple[int, float]]) -> Array:
        """Return the frames of these rows, [R, height, width, 3]; `before` says which the row before has.

        Raises:
            UserError: one is not there, or of another size.
        """
        film, taken = self._films[name], list[Array]()
        for episode, row_time in zip(rows[self.EPISODE].tolist(), rows[self.TIME].tolist(), strict=True):
            place = film.place(episode)
            time = place.begins + row_time
            shown, frame = self._video(name, place.path).nearest(time)
            where = f"{film.name} at {row_time:.4f} s of episode {episode}"
            if not (
                abs(shown - time) <= (half := 0.5 / film.rate) and place.begins - half <= shown < place.ends - half
            ):
                raise UserError(
                    f"{where} has no frame in {place.path}: the episode lies there from {place.begins:.4f} to "
                    f"{place.ends:.4f} s, the nearest frame to {time:.4f} s at {shown:.4f} s; copy the video again, or "
                    "correct the timestamps"
                )
            if frame.shape != (shape := self.layout[name][1] if name in self.layout else frame.shape):
                raise UserError(
                    f"{where} has a frame of shape {frame.shape}, the first one of {shape}: import them apart"
                )
            doubtful = abs(shown - time) > ROUNDING / film.rate or before.get(name) == (episode, shown)
            findings.add("frame-times", int(doubtful), where)
            taken.append(frame)
            before[name] = episode, shown
        return np.stack(taken)

    def _video(self, name: str, path: Path) -> Video:
        """Return the video of one of our columns, the only one of it that is open."""
        if name not in self._open or self._open[name].path != path:
            if name in self._open:
                self._open.pop(name).close()
            self._open[name] = Video(path)
        return self._open[name]


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"videos need a package that is not there ({first_line(error)}): pip install 'dr3-ray[lerobot]', or name "
            "the observations without them, as in --columns observation=observation.state"
        ) from None
    return av
