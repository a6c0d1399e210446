"""Data sets from what lies in memory: arrays, episodes, and frames of pandas or polars."""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.columns import NAMES, mapped
from dr3_ray.data.importers.layout import Layout, check_batch, layout_of
from dr3_ray.data.importers.reading import reading
from dr3_ray.data.importers.rlds import episodes_source, has_episodes
from dr3_ray.data.importers.rows import Batch
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import ArrayTable, ArrowTable, Table, names_of
from dr3_ray.data.importers.writing import Writing, check_writing, import_source
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import Manifest, Provenance
from dr3_ray.data.spaces import named_parts
from dr3_ray.errors import UserError

Observations = npt.ArrayLike | Mapping[str, npt.ArrayLike]
NEEDED = ("observations", "actions", "rewards")
ENDS = ("terminateds", "truncateds")
NEXT = "next_observations"
TAKEN = {ours: names for ours, names in NAMES.values() if ours in (*NEEDED, *ENDS, NEXT)}


def from_arrays(
    *,
    observations: Observations,
    actions: npt.ArrayLike,
    rewards: npt.ArrayLike,
    terminateds: npt.ArrayLike | None = None,
    truncateds: npt.ArrayLike | None = None,
    next_observations: Observations | None = None,
    episode_ids: npt.ArrayLike | None = None,
    out: str | os.PathLike[str],
    action_space: Any = None,
    max_steps: int | None = None,
    **writing: Unpack[Writing],
) -> Manifest:
    """Write N transitions as a data set to the directory `out`, and return its manifest.

    Episodes end at the flags, where `episode_ids` changes, or where a next observation is not the next row's.

    Args:
        observations: [N, *shape], or a dict of such.
        actions: [N, *shape] as the environment takes them.
        rewards: [N].
        terminateds: [N], after which there is no future.
        truncateds: [N], after which the future is not recorded.
        next_observations: like `observations`. Without them, truncated episodes lose their last step.
        episode_ids: [N] numbers or names.
        out: a new or empty directory.
        action_space: a Gymnasium space, `box:LOW,HIGH` or `discrete:N`; taken from the data without it.
        max_steps: after which an episode without a flag is truncated.
        writing: gamma, clip_actions, rescale_actions, name, flatten, strict: see `import_source`.

    Raises:
        UserError: lengths that differ, NaN, nothing that says where episodes end, or no place at `out`.
    """
    check_writing("from_arrays", writing)
    given: dict[str, Any] = {
        **_parts("observations", observations),
        "actions": actions,
        "rewards": rewards,
        "terminateds": terminateds,
        "truncateds": truncateds,
        **_parts("next_observations", next_observations),
        "episode_ids": episode_ids,
    }
    options = Options(action_space=action_space, max_steps=max_steps)

    def opened() -> Source:
        arrays = {name: _array(name, values) for name, values in given.items() if values is not None}
        return _source(ArrayTable(arrays, {name: [name] for name in arrays}), "arrays", options)

    return import_source(opened, out, **_named(writing, out))


def from_episodes(
    episodes: Iterable[Mapping[str, Any]],
    *,
    out: str | os.PathLike[str],
    action_space: Any = None,
    **writing: Unpack[Writing],
) -> Manifest:
    """Write complete episodes as a data set to the directory `out`, and return its manifest.

    Args:
        episodes: each with `observations` [T+1, *shape] (or a dict of such), the final one included, `actions` and
            `rewards` [T], and `terminated` or `truncated`, a boolean of the last step or [T]; all by any name that a
            column of a table may have. With `next_observations`, both are [T, *shape]. A generator is read once, which
            needs `action_space`.
        out: a new or empty directory.
        action_space: a Gymnasium space, `box:LOW,HIGH` or `discrete:N`; taken from the data without it.
        writing: gamma, clip_actions, rescale_actions, name, flatten, strict: see `import_source`.

    Raises:
        UserError: as `from_arrays`.
    """
    check_writing("from_episodes", writing)
    options = Options(action_space=action_space)

    def opened() -> Source:
        table = _EpisodeTable(episodes)
        return _source(table, "episodes", options, table.names)

    return import_source(opened, out, **_named(writing, out))


def from_dataframe(
    frame: Any,
    columns: str | None = None,
    *,
    out: str | os.PathLike[str],
    action_space: Any = None,
    max_steps: int | None = None,
    **writing: Unpack[Writing],
) -> Manifest:
    """Write a frame of pandas, polars or Arrow with a row for each step to the directory `out`; return the manifest.

    Args:
        frame: the rows in order: sorted by episode, then by step. One of polars or Arrow may have a row for each
            episode instead, with its `steps` as RLDS has them.
        columns: `observation=obs_*,action=a,reward=r`: what is what; the rest is guessed by the names.
        out: a new or empty directory.
        action_space: a Gymnasium space, `box:LOW,HIGH` or `discrete:N`; taken from the data without it.
        max_steps: after which an episode without a flag is truncated.
        writing: gamma, clip_actions, rescale_actions, name, flatten, strict: see `import_source`.

    Raises:
        UserError: as `from_arrays`, or a column is missing.
    """
    check_writing("from_dataframe", writing)
    options = Options(columns=columns, action_space=action_space, max_steps=max_steps)
    return import_source(lambda: _framed(frame, options), out, **writing)


def _framed(frame: Any, options: Options) -> Source:
    """Return the source of a frame: only columns in use have to be numbers."""
    import pyarrow as pa
    import pyarrow.dataset as pads

    if hasattr(frame, "to_arrow"):
        frame = frame.to_arrow()
    arrow = hasattr(frame, "column_names") or isinstance(frame, pa.RecordBatch)
    if not arrow and not (hasattr(frame, "iloc") and frame.ndim == 2):
        remedy = "collect it first" if hasattr(frame, "collect") else "give one of pandas, polars or Arrow"
        raise UserError(f"{type(frame).__name__} is no frame: {remedy}")
    if arrow and has_episodes(frame.schema):
        return episodes_source([pads.dataset(frame)], options, "frame", "frame")
    if not arrow and (levels := [name for name in frame.index.names if name is not None]):
        frame = frame.reset_index(level=levels, allow_duplicates=True)  # as pandas writes it to a file
    tops = [str(name) for name in (frame.schema.names if arrow else frame.columns)]
    names = names_of(frame.schema) if arrow else tops
    columns = mapped(names, options.columns)
    wanted = {name if name in tops else name.partition("/")[0] for theirs in columns.values() for name in theirs}
    used = sorted(map(tops.index, wanted))
    if arrow:
        taken = frame.select(used)
        taken = pa.Table.from_batches([taken]) if isinstance(frame, pa.RecordBatch) else taken
    else:
        taken = frame.iloc[:, used].set_axis([tops[at] for at in used], axis=1)
        taken = pa.Table.from_pandas(taken, preserve_index=False)
    return _source(ArrowTable(pads.dataset(taken), columns), "frame", options, names)


def _named(writing: Writing, out: str | os.PathLike[str]) -> Writing:
    """Return the options of writing with a name for the data set: by default that of its directory."""
    folder = os.path.basename(os.path.abspath(out)) if isinstance(out, str | os.PathLike) else ""
    return {**writing, "name": writing.get("name") or folder or None}


def _source(table: Table, name: str, options: Options, names: Iterable[str] = ()) -> Source:
    return table_source(table, options, name=name, provenance=Provenance(source=name), names=names, guessed=True)


def _parts(column: str, observations: Observations | None) -> dict[str, Any]:
    if observations is None:
        return {}
    return {f"{column}/{part}" if part else column: values for part, values in named_parts(observations).items()}


def _array(name: str, values: Any) -> Array:
    """Return values as an array of numpy.

    Raises:
        UserError: they are none, or a part of them is masked.
    """
    if _is_masked(values):
        raise UserError(f"{name} is masked in places: fill them, or leave out their episodes")
    with reading(name, "give an array of numbers"):
        return np.asarray(values)


def _is_masked(values: Any) -> bool:
    """Return whether an array, or one in a list, lacks some of its numbers; numpy would show what lies below a mask."""
    return any(map(_is_masked, values)) if isinstance(values, list | tuple) else bool(np.ma.is_masked(values))


class _EpisodeTable:
    """A table of episodes one by one, each row with its next observation."""

    flat = ranged = False

    def __init__(self, episodes: Iterable[Mapping[str, Any]]) -> None:
        iterator = iter(episodes)
        self._again = iterator is not episodes  # an iterator is read once
        self._used = False
        try:
            first = next(iterator)
        except StopIteration:
            raise UserError("there are no episodes: check the source") from None
        self._episodes = episodes if self._again else chain([first], iterator)
        head = _rows_of(first, 0)
        self.rows = 0
        check_batch(head, {}, "episode 0")
        self.layout: Layout = layout_of(head)
        taken = _taken(first, 0)
        self.columns = {name: [taken.get(name, name)] for name in head}
        self.names = [str(name) for name in first]

    def batches(
        self, names: Iterable[str], findings: Findings | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        """Yield the columns of the episodes, a batch each; those of an iterator once."""
        if self._used and not self._again:
            raise UserError("the episodes can be read once only: give a list of them, or an action_space")
        self._used = True
        names = list(names)
        for number, episode in enumerate(self._episodes):
            rows = _rows_of(episode, number)
            check_batch(rows, self.layout, f"episode {number}")
            yield {name: rows[name] for name in names}


def _taken(episode: Mapping[str, Any], number: int) -> dict[str, str]:
    """Return the names of what is taken of an episode, by ours: as columns of a table are called.

    Raises:
        UserError: something is missing.
    """
    taken = {
        ours: name for ours, names in TAKEN.items() if (name := next((name for name in names if name in episode), ""))
    }
    if missing := [name for name in NEEDED if name not in taken]:
        raise UserError(f"episode {number} has no {missing[0]}: give observations, actions and rewards of each")
    return taken


def _rows_of(episode: Mapping[str, Any], number: int) -> Batch:
    if not isinstance(episode, Mapping):
        raise UserError(f"episode {number} is a {type(episode).__name__}: give a dict of arrays")
    taken, where = _taken(episode, number), f"episode {number}: "
    episode = {ours: episode[theirs] for ours, theirs in taken.items()}
    observed, following = (
        {name: _array(where + name, part) for name, part in _parts(column, episode.get(column)).items()}
        for column in ("observations", NEXT)
    )
    actions, rewards = (_array(where + name, episode[name]) for name in ("actions", "rewards"))
    if rewards.ndim > 1 and rewards.shape[1:] != (1,):
        raise UserError(f"{where}rewards has shape {rewards.shape}: give one number for each step")
    rewards = np.ravel(rewards)
    if scalars := [name for name, values in {**observed, **following, "actions": actions}.items() if not values.ndim]:
        raise UserError(f"{where}{scalars[0]} is one number: give an array with a row for each step")
    lengths = {len(part) for part in observed.values()}
    if not following:
        following = {f"next_{name}": part[1:] for name, part in observed.items()}
    elif {len(rewards)} == lengths == {len(part) for part in following.values()}:
        lengths = {len(rewards) + 1}
    if lengths != {len(rewards) + 1} or len(actions) != len(rewards) or not len(rewards):
        raise UserError(
            f"episode {number} has {len(rewards)} rewards, {len(actions)} actions and "
            f"{' or '.join(map(str, sorted(lengths)))} observations: it needs as many actions as rewards, at least "
            "one, and one observation more (the final one), or as many with next_observations"
        )
    last = np.arange(len(rewards)) == len(rewards) - 1
    flags, shapes = {}, ((), last.shape, (*last.shape, 1))
    for ours in ENDS:
        said = _array(where + ours, episode.get(ours, False))
        if said.dtype.kind not in "biuf" or not np.isin(said, (0, 1)).all() or said.shape not in shapes:
            raise UserError(
                f"{where}{ours} is {said.tolist()!r:.60}, not true or false of its last step, or of each of its "
                f"{len(last)} steps: correct it"
            )
        flags[ours] = last & bool(said) if said.ndim == 0 else np.ravel(said) != 0
    return {
        **{name: part[: len(rewards)] for name, part in observed.items()},
        "actions": actions,
        "rewards": rewards,
        **flags,
        **following,
        "episode_ids": np.full(len(rewards), number),
    }
