"""Writing a data set: shard by shard into a sibling directory, which gets its name only when everything is on disk."""

import datetime
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from dr3_ray.data.actions import check_spaces
from dr3_ray.data.columns import EPISODE_SCHEMA, Columns
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import (
    EPISODES,
    MANIFEST,
    MANIFEST_BYTES,
    SHARDS,
    Line,
    Manifest,
    Provenance,
    ShardEntry,
    format_of,
)
from dr3_ray.data.shard_files import SHARD_BYTES, ShardFiles, row_bytes, rows_of, write_batch
from dr3_ray.data.spaces import Frozen, SpaceSpec
from dr3_ray.data.tally import Tally
from dr3_ray.data.targets import Target, check_target
from dr3_ray.errors import UserError
from dr3_ray.stores import replace_file

LINE: TypeAdapter[str] = TypeAdapter(Line)


class ShardWriter:
    """A context manager that writes a data set to the directory `path`, one complete episode at a time.

    `gamma` is the discount of the Monte-Carlo returns in the columns. Nothing appears at `path` before the context
    ends without an exception. Numbers that float32 does not hold are named by a warning, and in the manifest's
    provenance.

    Raises:
        UserError: the target cannot be written (see `targets.check_target`), the spaces have no columns, an episode is
            not acceptable (see `episodes.checked`), or nothing was written.
    """

    manifest: Manifest

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        observation_space: SpaceSpec,
        action_space: SpaceSpec,
        gamma: float,
        name: str,
        provenance: Provenance,
        environment: str | None = None,
        rows_per_shard: int | None = None,
        expected_rows: int = 0,
        once: bool = True,
    ) -> None:
        """With `expected_rows`, the room is looked at before. Without `once`, older versions can read the data set."""
        self._about = described(
            observation_space=observation_space,
            action_space=action_space,
            gamma=gamma,
            name=name,
            provenance=provenance,
            environment=environment,
        )
        self._spaces = observation_space, self._about["action_space"]
        check_target(path, expected_rows * row_bytes(*self._spaces, once=once))
        self._target, self._once = Target(path), once
        self._rows_per_shard = rows_per_shard or rows_of(SHARD_BYTES, *self._spaces, once=once)

    def __enter__(self) -> Self:
        self._target.open()
        gamma = self._about["gamma"]
        self._files = ShardFiles(
            self._target.partial, "shard-", *self._spaces, gamma, self._rows_per_shard, once=self._once
        )
        return self

    def write(self, columns: Columns, keep: Array | None = None) -> None:
        """Append one complete episode, or only its rows where the boolean mask `keep` [T] is true.

        `columns` are those of `episode_columns`, actions as stored. Episode ids have to grow from call to call.
        """
        self._files.write(columns, keep)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._files.flush()
                files, older = self._files, not self._once
                self.manifest, lost = finish(self._target.partial, self._about, files.tally, files.entries, older=older)
                for note in lost:
                    warnings.warn(note, stacklevel=2)
                self._target.commit()
        finally:
            self._target.close()


def described(
    *,
    observation_space: SpaceSpec,
    action_space: SpaceSpec,
    gamma: float,
    name: str,
    provenance: Provenance,
    **more: Any,
) -> dict[str, Any]:
    """Return what a manifest says of rows before any is written, the action space as it is on disk.

    Raises:
        UserError: the spaces have no columns, gamma is no discount, or the manifest would be too long.
    """
    check_spaces(observation_space, action_space)
    if action_space.kind == "box":  # whatever its type, on disk it is float32
        played = str(action_space.played_dtype)
        action_space = SpaceSpec.box(*action_space.bounds(), action_space.shape, env_dtype=played)
    if not 0 <= gamma <= 1:
        raise UserError(f"gamma is {gamma}: choose a discount between 0 and 1")
    _check_length(name, observation_space, action_space, provenance)
    return {
        "observation_space": observation_space,
        "action_space": action_space,
        "gamma": gamma,
        "name": name,
        "provenance": provenance,
        **more,
    }


def finish(
    folder: Path,
    about: Mapping[str, Any],
    tally: Tally,
    shards: Sequence[ShardEntry],
    notes: Sequence[str] = (),
    strict: bool = False,
    older: bool = False,
) -> tuple[Manifest, list[str]]:
    """Write the table of episodes and the manifest of the shards in a folder.

    Args:
        folder: that of the files.
        about: what `described` returned.
        tally: of the rows.
        shards: in their order.
        notes: what an importer has to say, after the provenance's own notes.
        strict: whether a note is an error.
        older: whether older versions have to read it, which know no digest of all rows.

    Returns:
        The manifest, and notes on what rounding lost, which are its last ones.

    Raises:
        UserError: there are no rows, too many shards, or notes with `strict`.
    """
    if not shards:
        raise UserError("there are no rows to write: an empty data set is of no use, check the source")
    if len(shards) > SHARDS:
        raise UserError(f"these are more than {SHARDS:,} shards: raise rows_per_shard")
    given: Provenance = about["provenance"]
    lost = [note for note in (tally.used.note() if tally.used else "", tally.rounding.note()) if note]
    rounded = {"rounded": text} if (text := tally.rounding.details()) else {}
    said = (*given.notes, *notes, *lost)
    content = None if older else tally.content()
    if strict and said:
        raise UserError(f"{'; '.join(said)}: mend that in the source, or import without --strict")
    episodes = [pa.array(values) for values in tally.episodes().values()]
    manifest = Manifest(
        **{**about, "provenance": Provenance(**dict(given) | {"details": given.details | rounded, "notes": said})},
        format=format_of(shards, content),
        content=content,
        complete_episodes=tally.complete,
        counts=tally.counts(),
        shards=tuple(shards),
        episodes=write_batch(folder / EPISODES, pa.RecordBatch.from_arrays(episodes, schema=EPISODE_SCHEMA)),
        statistics=tally.statistics(),
    ).sealed()
    written = manifest.text().encode()
    if len(written) > MANIFEST_BYTES:
        raise UserError(f"these are too many files for a manifest of {MANIFEST_BYTES >> 20} MiB: raise rows_per_shard")
    replace_file(folder / MANIFEST, written)
    return manifest, lost


def write_dataset(path: str | os.PathLike[str], episodes: Iterable[Columns], **about: Any) -> Manifest:
    """Write complete episodes (`episode_columns`) to the directory `path`; `about` are the options of `ShardWriter`."""
    with ShardWriter(path, **about) as writer:
        for columns in episodes:
            writer.write(columns)
    return writer.manifest


def now() -> str:
    """Return this moment in UTC, as provenance records it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _check_length(name: str, *parts: Frozen) -> None:
    """Refuse a manifest, or a name in it, that is longer than a reader takes."""
    try:
        LINE.validate_python(name)
    except ValidationError:
        raise UserError(
            f"the name {name[:40]!r} is too long or has control characters: take one line of up to 500 characters"
        ) from None
    entries = 300 * SHARDS
    if sum(len(part.model_dump_json(indent=1)) for part in parts) + entries > MANIFEST_BYTES:
        raise UserError(
            f"spaces and provenance do not fit into a manifest of {MANIFEST_BYTES >> 20} MiB: shorten the provenance, "
            "or give a Box one bound for all its elements"
        )
