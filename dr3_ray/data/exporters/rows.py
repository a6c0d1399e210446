"""Episodes as rows of transitions, for formats that are tables."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from dr3_ray.data.columns import part_column
from dr3_ray.data.importers.rows import Batch
from dr3_ray.data.importers.source import Episode
from dr3_ray.data.number_types import Array
from dr3_ray.data.spaces import named_parts


def rows_of(episode: Episode) -> Batch:
    """Return the transitions of an episode by the names of our columns."""
    parts, steps = named_parts(episode.observations), len(episode.rewards)
    return {
        **{part_column("observations", name): part[:-1] for name, part in parts.items()},
        "actions": episode.actions,
        "rewards": episode.rewards,
        "terminateds": episode.terminateds,
        "truncateds": episode.truncateds,
        **{part_column("next_observations", name): part[1:] for name, part in parts.items()},
        "episode_ids": np.full(steps, episode.number),
        "timesteps": np.arange(steps),
    }


def batches(episodes: Iterable[Episode], size: int) -> Iterator[Batch]:
    """Yield the rows of as many whole episodes as make up `size` bytes, the last ones with fewer."""
    pieces, held = list[Batch](), 0
    for episode in episodes:
        pieces.append(rows_of(episode))
        held += sum(values.nbytes for values in pieces[-1].values())
        if held >= size:
            yield _joined(pieces)
            pieces, held = [], 0
    if pieces:
        yield _joined(pieces)


def to_arrow(values: Array) -> pa.Array:
    """Return [R] as plain values, [R, n] as lists of n, and more dimensions as Arrow's tensors."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if values.ndim == 1:
        return flat
    lists = pa.FixedSizeListArray.from_arrays(flat, math.prod(values.shape[1:]))
    if values.ndim == 2:
        return lists
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(flat.type, values.shape[1:]), lists)


def _joined(pieces: list[Batch]) -> Batch:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
