"""What is compared each time that a data set is opened: what costs milliseconds, however large the rows are."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dr3_ray.data.actions import check_spaces
from dr3_ray.data.columns import Columns
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import MANIFEST, PARTIAL, Manifest, damaged
from dr3_ray.errors import UserError, raise_out_of_memory

Select = Callable[[Array, Sequence[str]], Columns]


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the data set in directory `path`.

    Raises:
        UserError: there is none that this version can read.
    """
    if path.name.endswith(PARTIAL):
        raise UserError(f"{path} is what an interrupted write left behind: remove it, and write the data set again")
    try:
        return Manifest.read(path)
    except (FileNotFoundError, NotADirectoryError):
        words = "; some of its rows are DIR?split=train&take=best:0.1, with one ? and small letters"
        raise UserError(
            f"{path} is not a data set (it has no {MANIFEST}): name a directory made by `dr3-ray data import`, "
            f"or embedded:NAME{words if '?' in str(path) else ''}"
        ) from None
    except OSError as error:
        raise_out_of_memory(error)
        raise damaged(path, f"{MANIFEST} cannot be read ({error})") from None


def opening_fault(
    manifest: Manifest, episodes: Columns, shards: Sequence[Mapping[str, Any]], select: Select
) -> str | None:
    """Return what is wrong with spaces, counts, episodes, their ends or discrete actions; None if nothing is.

    Args:
        manifest: of the data set.
        episodes: the table of episodes.
        shards: of each the columns as they lie on disk.
        select: gives columns at row indices.
    """
    return (
        _without_columns(manifest)
        or _miscounted(manifest, len(episodes["lengths"]), shards)
        or _misplaced(manifest, episodes)
        or _out_of_order(manifest, episodes, select)
        or _no_choice(manifest, shards)
    )


def _without_columns(manifest: Manifest) -> str | None:
    """Hold the spaces to what a writer takes; on disk, actions of a Box are float32."""
    try:
        check_spaces(manifest.observation_space, manifest.action_space)
    except UserError as error:
        return f"{MANIFEST} has spaces that no data set has ({error})"
    stored = manifest.action_space.dtype
    if manifest.action_space.kind == "box" and stored != "float32":
        return f"{MANIFEST} has actions of {stored}, where float32 in [-1, 1] stands for them"
    return None


def _miscounted(manifest: Manifest, episodes: int, shards: Sequence[Mapping[str, Any]]) -> str | None:
    def true(name: str) -> int:
        return sum(int(np.bitwise_count(shard[name]).sum()) for shard in shards)

    counts = {
        "rows": sum(entry.rows for entry in manifest.shards),
        "episodes": episodes,
        "terminateds": true("terminateds"),
        "truncateds": true("truncateds"),
    }
    for name, number in counts.items():
        if number != getattr(manifest.counts, name):
            return f"the manifest counts {getattr(manifest.counts, name)} {name}, the files {number}"
    return None


def _misplaced(manifest: Manifest, episodes: Columns) -> str | None:
    lengths, rows = episodes["lengths"], manifest.counts.rows
    least = 1 if manifest.complete_episodes else 0
    outside = (lengths < least) | (lengths > rows)
    if outside.any() or lengths.sum() != rows or (episodes["offsets"] != np.cumsum(lengths) - lengths).any():
        return "the episodes do not add up to the rows"
    if (np.diff(episodes["episode_ids"], prepend=-1) < 1).any():
        return f"the ids in {manifest.episodes.file} do not grow from 0 on"
    if not np.isfinite(episodes["returns"]).all():
        return f"{manifest.episodes.file} has a return that is NaN or infinite"
    return None


def _out_of_order(manifest: Manifest, episodes: Columns, select: Select) -> str | None:
    """Compare the first and last row of each episode with its entry."""
    stored = episodes["lengths"] > 0
    ids, first = episodes["episode_ids"][stored], episodes["offsets"][stored]
    last = first + episodes["lengths"][stored] - 1
    if any((select(rows, ["episode_ids"])["episode_ids"] != ids).any() for rows in (first, last)):
        return "its rows are not in the order of its episodes"
    flags = select(last, ["terminateds", "truncateds"])
    if manifest.complete_episodes and not (flags["terminateds"] | flags["truncateds"]).all():
        return "an episode does not end with a terminal flag"
    return None


def _no_choice(manifest: Manifest, shards: Sequence[Mapping[str, Any]]) -> str | None:
    """Look for discrete actions that would be indices out of bounds in a network."""
    choices = manifest.action_space.n
    for name in ("actions", "next_actions") if choices is not None else ():
        for shard in shards:
            lowest, highest = int(shard[name].min()), int(shard[name].max())
            if lowest < 0 or highest >= choices:  # type: ignore[operator]
                wrong = lowest if lowest < 0 else highest
                return f"{name} has a {wrong}, which is outside the space Discrete({choices})"
    return None
