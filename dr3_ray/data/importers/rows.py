"""Rows of transitions, cut into episodes: one engine for every flat source, fed batch by batch."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.source import Episode
from dr3_ray.data.number_types import Array
from dr3_ray.data.spaces import element_name
from dr3_ray.errors import UserError

Batch = dict[str, Array]
"""Consecutive rows by the names of our columns, parts as `observations/NAME`; what says nothing may be missing."""

FLAGS = ("terminateds", "truncateds")
ORDER = ("episode_ids", "timesteps")
REMEDY = "sort the rows by episode and t, and mend or drop that episode"


def episodes_of(
    batches: Iterable[Batch], findings: Findings, flat: bool = True, known: "Beginnings | None" = None
) -> Iterator[Episode]:
    """Cut consecutive rows where a flag stands, the episode's id changes, or t begins anew; numbered from 0.

    The last observation of an episode is its last `next_observations`. Without these it is not in the source: a
    truncated episode loses its last step, a terminated one gets that step's own observation, which no value follows.
    An observation of the next episode never stands there: in `flat` rows, whose next observations may be those of the
    row after, one that is the next episode's first counts as missing. With `known` beginnings, rows begin at one of
    them, and episodes end with the one before `known.stop`.

    Raises:
        UserError: NaN or infinite numbers, flags other than 0 and 1, steps that are missing, repeated or unsorted.
    """
    order, pieces, number = known or Order(findings), list[Batch](), 0
    for given in batches:
        first = order.row
        batch = plain(given, order.row)
        starts = order.starts(batch)
        for begin, end in pairwise([0, *starts[starts > 0].tolist(), len(batch["rewards"])]):
            if pieces and begin in starts:
                after = {name: values[begin : begin + 1] for name, values in batch.items()} if flat else {}
                for episode in _finished(pieces, number, findings, after):
                    yield episode
                    number += 1
                pieces = []
                if known and first + begin == known.stop:
                    return
            pieces.append({name: values[begin:end] for name, values in batch.items()})
    for episode in _finished(pieces, number, findings, {}) if pieces else ():
        yield episode
        number += 1


class Beginnings:
    """Rows at which episodes are known to begin, of those from `row` on, as far as `stop`."""

    def __init__(self, rows: Array, row: int, stop: int) -> None:
        self.row, self.stop = row, stop
        self._rows = rows

    def starts(self, batch: Batch) -> Array:
        """Return the places in the next batch at which an episode begins."""
        end = self.row + len(batch["rewards"])
        rows = self._rows[slice(*np.searchsorted(self._rows, [self.row, end]))] - self.row
        self.row = end
        return rows


def beginnings(batches: Iterable[Batch], findings: Findings) -> Array:
    """Return the rows at which episodes begin, by the flags, episode ids and steps of all rows.

    Raises:
        UserError: as `episodes_of`, of these columns.
    """
    order = Order(findings)
    return np.concatenate([row + order.starts(batch) for row, batch in _counted(batches, order)])


def _counted(batches: Iterable[Batch], order: "Order") -> Iterator[tuple[int, Batch]]:
    for batch in batches:
        yield order.row, plain(batch, order.row)


def plain(batch: Batch, row: int) -> Batch:
    """Return columns of one number as [R] where they came as [R, 1], flags as booleans, numbers finite."""
    columns = dict(batch)
    for name in (*FLAGS, *ORDER, "rewards"):
        if name in columns:
            columns[name] = _scalars(name, columns[name])
    for name in FLAGS:
        if name in columns:
            wrong = ~np.isin(columns[name], (0, 1))
            if wrong.any():
                at = int(wrong.argmax())
                raise UserError(
                    f"{name} is {columns[name][at]} at row {row + at}, not 0 or 1: name the column that has such flags"
                )
            columns[name] = columns[name].astype(bool)
    if "episode_ids" in columns and (empty := _empty(columns["episode_ids"])).any():
        raise UserError(f"episode_ids is empty at row {row + int(empty.argmax())}: drop that episode, or repair it")
    for name, values in columns.items():
        if values.dtype.kind not in "biuf" and name != "episode_ids":
            raise UserError(f"{name} has type {values.dtype}, which is no real number: convert it in the source")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            at = np.argwhere(~np.isfinite(values))[0]
            what = "NaN" if np.isnan(values[tuple(at)]) else "infinite"
            where = f" (episode {columns['episode_ids'][at[0]]})" if "episode_ids" in columns else ""
            raise UserError(
                f"{element_name(name, at[1:])} is {what} at row {row + at[0]}{where}: drop that episode, or repair it"
            )
    return columns


def _empty(ids: Array) -> Array:
    """Return which names of episodes [R] are none: NaT, None's like, and texts without a letter; numbers never."""
    if ids.dtype.kind in "biuf":
        return np.zeros(len(ids), bool)
    empty: Array = ids != ids
    return (
        empty | (ids == ids.dtype.type())
        if ids.dtype.kind in "US"
        else empty | (ids == "")
        if ids.dtype.kind == "O"
        else empty
    )


def _scalars(name: str, values: Array) -> Array:
    if values.ndim == 1 or values.shape[1:] == (1,):
        return values.reshape(-1)
    raise UserError(f"{name} has shape {values.shape}, which is more than one number a row: name another column")


def _flags(batch: Batch, rows: int) -> Array:
    flags = np.zeros(rows, bool)
    for name in FLAGS:
        if name in batch:
            flags |= np.reshape(batch[name], -1) != 0
    return flags


class Order:
    """The places where episodes begin in rows that come batch by batch; checks that their steps follow each other."""

    def __init__(self, findings: Findings) -> None:
        self.row = 0  # the number of the next batch's first row
        self._findings = findings
        self._last: Batch = {}  # the row before, each column [1]
        self._ids: set[Any] = set()
        self._first: float | None = None  # the t at which the source begins
        self._step: float | None = None  # by which t grows

    def starts(self, batch: Batch) -> Array:
        """Return the places in a batch at which an episode begins.

        Raises:
            UserError: its steps are out of order.
        """
        rows = len(batch["rewards"])
        first = (np.arange(rows) == 0) & (self.row == 0)
        flagged = np.append(bool(self._last) and _flags(self._last, 1)[0], _flags(batch, rows)[:-1])
        begins = first | flagged
        if (ids := batch.get("episode_ids")) is not None:
            others = (ids != self._before("episode_ids", ids)) | first
            early = flagged & ~others
            self._findings.add("early-flag", int(early.sum()), self._place(batch, np.append(early[1:], early[:1])))
            for row in np.flatnonzero(others).tolist():
                if ids[row] in self._ids:
                    raise UserError(f"episode {ids[row]} begins again at row {self.row + row}: {REMEDY}")
                self._ids.add(ids[row])
            begins |= others
        if (steps := batch.get("timesteps")) is not None:
            times = steps.astype(np.float64)
            self._first = times[0] if self._first is None else self._first
            if ids is None:
                begins |= times == self._first
            self._check(times, self._before("timesteps", times), begins, batch)
        self._last = {name: values[-1:] for name, values in batch.items() if name in (*FLAGS, *ORDER)}
        self.row += rows
        return np.flatnonzero(begins)

    def _before(self, name: str, values: Array) -> Array:
        """Return the values of the rows before, [R]."""
        return np.concatenate([self._last.get(name, values[:1]), values[:-1]])

    def _place(self, batch: Batch, rows: Array) -> str:
        at = int(rows.argmax())
        episode = f" (episode {batch['episode_ids'][at]})" if "episode_ids" in batch else ""
        return f"row {self.row + at}{episode}"

    def _check(self, times: Array, before: Array, begins: Array, batch: Batch) -> None:
        grows = (times - before)[~begins]
        if self._step is None and len(grows) and grows[0] > 0:
            self._step = float(grows[0])
        step = self._step or 1.0
        wrong = ~begins & (np.abs(times - before - step) > 0.01 * step)
        if not wrong.any():
            return
        at = int(wrong.argmax())
        grown = times[at] - before[at]
        what = "is repeated" if grown == 0 else "goes back" if grown < 0 else "is irregular or has a gap"
        raise UserError(
            f"t {what} at {self._place(batch, wrong)}: it goes from {before[at]:g} to {times[at]:g}, and elsewhere by "
            f"{step:g}: {REMEDY}"
        )


def _finished(pieces: list[Batch], number: int, findings: Findings, after: Batch) -> Iterator[Episode]:
    """Yield the rows of one episode, or of several where a step does not lead to the next row.

    `after` is the row after the last one, [1], if it may have been taken for the last next observation.
    """
    rows = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    steps = len(rows["rewards"])
    rows = {name: np.zeros(steps, bool) for name in FLAGS} | rows
    broken = np.zeros(steps - 1, bool)
    for name, values in rows.items():
        if name.startswith("next_observations"):
            broken |= _differs(values[:-1], rows[name.removeprefix("next_")][1:])
    cuts = np.flatnonzero(broken) + 1
    rows["truncateds"][cuts - 1] = True
    if len(cuts):
        findings.add("broken-chain", len(cuts), f"step {cuts[0] - 1}", number)
    taken = _is_next_episode(rows, after)
    findings.add("next-episode", int(taken), f"step {steps - 1}", number)
    for begin, end in pairwise([0, *cuts.tolist(), steps]):
        if end == steps and taken:
            rows = {name: values for name, values in rows.items() if not name.startswith("next_observations")}
        episode = _ended({name: values[begin:end] for name, values in rows.items()}, number, findings)
        if episode:
            yield episode
            number += 1


def _differs(one: Array, other: Array) -> Array:
    """Return whether rows [R, *shape] differ as they are stored, [R]: real numbers in float32."""
    if one.dtype.kind == "f" or other.dtype.kind == "f":
        with np.errstate(over="ignore"):  # such a number is refused when it is written
            one, other = one.astype(np.float32), other.astype(np.float32)
    differs: Array = one != other
    return np.asarray(differs.any(axis=tuple(range(1, differs.ndim))))


def _is_next_episode(rows: Batch, after: Batch) -> bool:
    """Return whether the last next observation is the next episode's first, and the environment moved at all.

    Where the row after has the same id, or without ids a greater t, the recording goes on and the observation is right.
    """
    if not after or not any(name.startswith("next_observations") for name in rows):
        return False
    if "episode_ids" in after:
        goes_on = after["episode_ids"][0] == rows["episode_ids"][-1]
    else:
        goes_on = "timesteps" in after and after["timesteps"][0] > rows["timesteps"][-1]
    if goes_on:
        return False
    parts = [name for name in rows if name.startswith("observations")]
    same = not any(_differs(rows[f"next_{name}"][-1:], after[name])[0] for name in parts)
    return same and any(_differs(rows[f"next_{name}"][-1:], rows[name][-1:])[0] for name in parts)


def _ended(rows: Batch, number: int, findings: Findings) -> Episode | None:
    """Return an episode with an end and an observation after it; None if no step remains."""
    terminateds, truncateds = rows["terminateds"], rows["truncateds"]
    if not (terminateds[-1] or truncateds[-1]):
        findings.add("no-end")
        truncateds[-1] = True
    observations = {name: values for name, values in rows.items() if name.startswith("observations")}
    keep = slice(None)
    if any(name.startswith("next_observations") for name in rows):
        after = {name: rows[f"next_{name}"][-1:] for name in observations}
    elif terminateds[-1]:
        findings.add("terminal-observation")
        after = {name: values[-1:] for name, values in observations.items()}
    elif len(truncateds) == 1:
        findings.add("one-step")
        return None
    else:
        findings.add("no-final-observation")
        keep, after = slice(-1), {name: values[:0] for name, values in observations.items()}
        truncateds[-2] = True
    seen = {name: np.concatenate([values, after[name]]) for name, values in observations.items()}
    parts = {name.removeprefix("observations").removeprefix("/"): values for name, values in seen.items()}
    return Episode(
        number,
        parts.get("", parts),
        rows["actions"][keep],
        rows["rewards"][keep],
        terminateds[keep],
        truncateds[keep],
    )
