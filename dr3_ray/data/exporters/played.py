"""Episodes as their environment had them: its units, types and numbering, and the final observation."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from dr3_ray.data.actions import to_env_actions
from dr3_ray.data.importers.source import Episode
from dr3_ray.data.number_types import Array, within
from dr3_ray.data.reader import Dataset
from dr3_ray.data.spaces import SpaceSpec, named_parts
from dr3_ray.errors import UserError


def played(dataset: Dataset) -> Iterator[Episode]:
    """Yield all episodes of a data set in order, each read on its own.

    What importers yield: parts of an observation nested as their names say, actions of their own shape.
    """
    table = dataset.episodes
    for number, offset, length in zip(
        *(table[name].tolist() for name in ("episode_ids", "offsets", "lengths")), strict=True
    ):
        rows = torch.arange(offset, offset + length)
        columns = dataset.gather(rows, ["observations", "actions", "rewards", "terminateds", "truncateds"])
        final = dataset.gather(rows[-1:], ["next_observations"])["next_observations"]
        yield Episode(
            number,
            _observed(dataset.observation_space, columns["observations"], final),
            to_env_actions(dataset.action_space, columns["actions"].numpy()),
            columns["rewards"].numpy(),
            columns["terminateds"].numpy().astype(bool),
            columns["truncateds"].numpy().astype(bool),
        )


def nested(parts: Mapping[str, Any]) -> Any:
    """Return the mappings whose `named_parts` these are: {"goal/x": a} as {"goal": {"x": a}}, {"": a} as a.

    Raises:
        UserError: a part has a name that others begin with.
    """
    if "" in parts:
        return parts[""]
    tree: dict[str, Any] = {}
    for name, leaf in sorted(parts.items()):
        *outer, last = name.split("/")
        inside: Any = tree
        for key in outer:
            inside = inside.setdefault(key, {})
            if not isinstance(inside, dict):
                raise UserError(f"observations have a part {key!r} and a part {name!r} in it: rename one in the source")
        inside[last] = leaf
    return tree


def about(dataset: Dataset) -> dict[str, str]:
    """Return what a file may say of the data set in it."""
    manifest = dataset.manifest
    said = {
        "name": manifest.name,
        "source": manifest.provenance.source,
        "licence": manifest.provenance.licence,
        "environment": manifest.environment or "",
        "fingerprint": dataset.fingerprint,
    }
    return {key: text for key, text in said.items() if text}


def _observed(space: SpaceSpec, observations: Any, final: Any) -> Any:
    """Return the observations [T+1, *shape] of an episode; `final` is the last."""
    last = named_parts(final)
    return nested(
        {
            name: _as_played(space.parts[name], torch.cat([part, last[name]]).numpy())
            for name, part in named_parts(observations).items()
        }
    )


def _as_played(space: SpaceSpec, values: Array) -> Array:
    """Return stored numbers in the environment's type, whole ones where it has those."""
    if space.played_dtype.kind in "iu" and values.dtype.kind == "f":
        return within(np.rint(values.astype(np.float64)), space.played_dtype)
    return values.astype(space.played_dtype, copy=False)
