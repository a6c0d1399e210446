"""A table of transitions as a source: spaces are inferred, rows cut into episodes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.columns import DONE, described
from dr3_ray.data.importers.layout import Layout, check_next
from dr3_ray.data.importers.rows import (
    FLAGS,
    ORDER,
    Batch,
    Beginnings,
    beginnings,
    episodes_of,
)
from dr3_ray.data.importers.said import space_said
from dr3_ray.data.importers.source import Episode, Options, Read, Source
from dr3_ray.data.importers.tables import Table
from dr3_ray.data.importers.timeouts import check_max_steps, with_timeouts
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import Provenance
from dr3_ray.data.spaces import CHOICES
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym


def table_source(
    table: Table,
    options: Options,
    *,
    name: str,
    provenance: Provenance,
    names: Iterable[str] = (),
    guessed: bool = False,
) -> Source:
    """Return the episodes of a table.

    Real numbers are an unbounded Box of observations, bytes and booleans one of their range. Whole numbers are
    discrete actions; others are a Box with the bounds -1 and 1, or the range of the data where they lie outside. The
    user's `action_space` goes first.

    Args:
        table: its columns by our names, observations, actions and rewards among them.
        options: `action_space`, `max_steps`, and whether the columns were named by the user.
        name: of the source.
        provenance: without details, which are added.
        names: all columns of the source, so that those left over are told.
        guessed: whether columns that the user did not name were guessed by their names.

    Raises:
        UserError: nothing says where episodes end, a column is no number, or next observations are of another kind.
    """
    limit = options.max_steps
    check_max_steps(limit)
    check_next(table.layout)
    if not {*FLAGS, "episode_ids", "timesteps"} & set(table.columns) and limit is None:
        raise UserError(
            "nothing says where an episode ends: name a column as terminated, truncated, episode or t with --columns, "
            "or give --max-steps"
        )
    space, doubts = _action_space(table, options.action_space)
    done = table.columns.get("terminateds", [""])[0]
    if guessed and done in DONE and "terminated" not in (options.columns or ""):
        doubts = {"done": done, **doubts}
    transitions = _Transitions(table, space, doubts, limit)
    said = described(table.columns, names)
    return Source(
        name=name,
        observation_space=_observation_space(table.layout),
        action_space=space,
        read=transitions.read,
        provenance=provenance.model_copy(
            update={"details": provenance.details | {"columns": "; ".join(f"{ours}: {said[ours]}" for ours in said)}}
        ),
        rows=table.rows,
        columns=said,
        parts=transitions.parts if table.ranged and not limit else None,
    )


@dataclass(frozen=True)
class _Transitions:
    """The rows of a table, whole or in parts, with what is doubtful of them: where, by the name of its check."""

    table: Table
    space: "gym.Space[Any]"
    doubts: dict[str, str]
    limit: int | None  # steps after which an episode ends

    def read(self, findings: Findings) -> Iterator[Episode]:
        """Read all episodes."""
        self._doubt(findings)
        batches = self.table.batches(self.table.columns, findings)
        batches = with_timeouts(batches, self.limit) if self.limit else batches
        return episodes_of(_played(batches, self.space), findings, flat=self.table.flat)

    def parts(self, rows: int, findings: Findings) -> Sequence[Read]:
        """Return what reads a part each, of about so many rows and whole episodes."""
        if self.table.rows <= rows:
            return [self.read]
        self._doubt(findings)
        names = [name for name in ("rewards", *FLAGS, *ORDER) if name in self.table.columns]
        begin = beginnings(self.table.batches(names, findings), findings)
        return [partial(self._part, *ends, begin) for ends in pairwise(_cuts(begin, rows, self.table.rows))]

    def _part(self, start: int, stop: int, begin: Array, findings: Findings) -> Iterator[Episode]:
        """Read the episodes from one row to another, and one row more, to look at."""
        batches = self.table.batches(self.table.columns, findings, start, min(stop + 1, self.table.rows))
        return episodes_of(_played(batches, self.space), findings, self.table.flat, Beginnings(begin, start, stop))

    def _doubt(self, findings: Findings) -> None:
        for name, where in self.doubts.items():
            findings.add(name, where=where)


def _cuts(begin: Array, rows: int, stop: int) -> list[int]:
    """Return where pieces of whole episodes end that have up to so many rows each, or one episode; 0 comes first."""
    cuts = [0]
    for here, there in pairwise([*begin.tolist(), stop]):
        if there - cuts[-1] > rows and here > cuts[-1]:
            cuts.append(here)
    return [*cuts, stop]


def _observation_space(layout: Layout) -> "gym.Space[Any]":
    from gymnasium import spaces

    parts = {
        name.removeprefix("observations").removeprefix("/"): _box(*layout[name])
        for name in sorted(layout)
        if name == "observations" or name.startswith("observations/")
    }
    if "" in parts and len(parts) > 1:
        raise UserError(f"a part of the observations has no name, beside {sorted(parts)[1]!r}: give it one")
    return parts[""] if "" in parts else spaces.Dict(parts)


def _box(dtype: np.dtype[Any], shape: tuple[int, ...]) -> "gym.Space[Any]":
    from gymnasium import spaces

    if dtype.kind not in "biuf":
        raise UserError(f"observations have type {dtype}, which is no real number: convert them in the source")
    if dtype.kind == "f":
        return spaces.Box(-np.inf, np.inf, shape, dtype.type)
    if dtype.kind == "b":
        kind: Any = np.bool_
        return spaces.Box(0, 1, shape, kind)
    return spaces.Box(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype.type)


def _action_space(table: Table, said: "str | gym.Space[Any] | None") -> tuple["gym.Space[Any]", dict[str, str]]:
    """Return the space of the actions, and what of the data had to be taken for its bounds and is doubtful."""
    from gymnasium import spaces

    dtype, shape = table.layout["actions"]
    if isinstance(said, spaces.Space):
        return said, {}
    if dtype.kind not in "biuf":
        raise UserError(f"actions have type {dtype}, which is no number: convert them in the source")
    if said is not None:
        return space_said(said, shape, dtype), {}
    low, high = _range(table)
    if dtype.kind in "biu":
        first, last = _choices(low, high)
        return spaces.Discrete(last + 1), {"first-action": str(first)} if first else {}
    if (low >= -1).all() and (high <= 1).all():
        return spaces.Box(-1.0, 1.0, shape, dtype.type), {}
    bounds = f"{low.min():g} to {high.max():g}"
    return spaces.Box(low.astype(dtype), high.astype(dtype), shape, dtype.type), {"action-bounds": bounds}


def _range(table: Table) -> tuple[Array, Array]:
    """Return the smallest and the largest values of actions, component by component."""
    _, shape = table.layout["actions"]
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    for batch in table.batches(["actions"]):
        low, high = np.minimum(low, batch["actions"].min(0)), np.maximum(high, batch["actions"].max(0))
    if not np.isfinite([low, high]).all():
        raise UserError("an action is NaN or infinite: drop its episode from the source")
    return low, high


def _choices(low: Array, high: Array) -> tuple[int, int]:
    """Return the first and the last of actions that are choices."""
    if low.shape not in ((), (1,)):
        raise UserError(
            f"actions are whole numbers of shape {low.shape}: give --action-space multidiscrete:N,N,… or box:LOW,HIGH"
        )
    first, last = int(low.min()), int(high.max())
    if first < 0:
        raise UserError(
            f"actions are whole numbers from {first}: give --action-space discrete:N,{first}, if they are N choices, "
            "or box:LOW,HIGH"
        )
    if last >= CHOICES:
        raise UserError(
            f"actions are whole numbers up to {last}, and a Discrete space has at most {CHOICES:,}: number those that "
            "there are from 0, or give --action-space box:LOW,HIGH"
        )
    return first, last


def _played(batches: Iterable[Batch], space: "gym.Space[Any]") -> Iterator[Batch]:
    """Yield rows with actions as their space has them: whole numbers [R] of a Discrete one."""
    from gymnasium import spaces

    discrete = isinstance(space, spaces.Discrete)
    return ({**batch, "actions": _whole(batch["actions"])} for batch in batches) if discrete else iter(batches)


def _whole(actions: Array) -> Array:
    if actions.shape[1:] not in ((), (1,)):
        raise UserError(f"discrete actions have shape {actions.shape[1:]}, not one number a row: name another column")
    whole: Array = actions.reshape(-1).astype(np.int64)
    if (whole != actions.reshape(-1)).any():
        raise UserError("discrete actions have to be whole numbers: correct the source")
    return whole
