"""Import of Minari data sets, from this machine or the Minari server, in HDF5 or Arrow storage.

Spaces come from the data set itself: its environment is neither built nor needed.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.joined import joined
from dr3_ray.data.importers.minari_source import episodes_of, opened, space_of, steps_of
from dr3_ray.data.importers.observations import leaves_of
from dr3_ray.data.importers.source import Episode, Options, Read, Source
from dr3_ray.data.importers.writing import Writing, check_writing, import_source
from dr3_ray.data.schema import Manifest, Provenance

if TYPE_CHECKING:
    from minari import MinariDataset

DETAILS = ("author", "algorithm_name", "code_permalink", "description", "combined_datasets", "env_spec")


def import_minari(
    dataset: "str | MinariDataset | Sequence[str | MinariDataset]",
    path: str | os.PathLike[str],
    **writing: Unpack[Writing],
) -> Manifest:
    """Write a Minari data set, by its id or opened, as a data set of ours to the directory `path`.

    Args:
        dataset: as `minari_source` takes it; of several with the same spaces, one follows the other.
        path: a new or empty directory.
        writing: gamma, clip_actions, rescale_actions, name, flatten, strict, command: see `import_source`.

    Raises:
        UserError: no such data set, spaces we have no columns for, data that cannot be learned from, or no place at
            `path`, where nothing is left then.
    """
    check_writing("import_minari", writing)
    datasets = [*dataset] if isinstance(dataset, list | tuple) else [dataset]
    return import_source(lambda: joined([minari_source(dataset) for dataset in datasets]), path, **writing)


def minari_source(dataset: "str | MinariDataset", options: Options | None = None) -> Source:
    """Return the episodes of a Minari data set, by its id or opened; it has no options.

    An id may name its remote, as in `hf://farama-minari/D4RL/pen/human-v2`; a set that is not here is downloaded.
    Of an opened data set, its own episodes are taken: those that `filter_episodes` or `split_dataset` left it. An
    episode keeps its number.

    Raises:
        UserError: there is no such data set, or it cannot be read.
    """
    dataset_id, storage, metadata, episodes = opened(dataset)
    details = {key: _text(metadata[key]) for key in DETAILS if metadata.get(key)}
    if len(episodes) != storage.total_episodes:
        details["episodes"] = f"{len(episodes)} of {storage.total_episodes}, chosen before the import"
    lossy = "Minari stored the images as JPEG, with loss: they are not exactly what the behaviour policy saw"

    def some(numbers: list[int], findings: Findings) -> Iterator[Episode]:
        for number, episode in episodes_of(storage, dataset_id, numbers):
            # The flags as they are, not only the last one: a flag in the middle has to be seen.
            flags = [np.asarray(episode[name], dtype=bool) for name in ("terminations", "truncations")]
            yield Episode(number, episode["observations"], episode["actions"], np.ravel(episode["rewards"]), *flags)

    rows = steps_of(storage, episodes)

    def parts(most: int, findings: Findings) -> Sequence[Read]:
        size = max(1, most * len(episodes) // max(rows, 1))
        return [partial(some, episodes[begin : begin + size]) for begin in range(0, len(episodes), size)]

    return Source(
        name=dataset_id,
        observation_space=space_of(metadata["observation_space"], dataset_id),
        action_space=space_of(metadata["action_space"], dataset_id),
        read=partial(some, episodes),
        provenance=Provenance(
            source=f"minari:{dataset_id}",
            version=f"{dataset_id.rpartition('-')[2]}, written by Minari {metadata.get('minari_version', 'unknown')}",
            licence=str(metadata.get("license", "unknown")),
            details=details,
            notes=(lossy,) if _has_jpeg(storage) else (),
        ),
        rows=rows,
        environment=_environment(metadata.get("env_spec")),
        usual=frozenset({"both-ends"}),  # Gymnasium's environments may terminate in the step in which they are cut
        parts=parts if rows else None,
        numbered=True,
        files=(Path(storage.data_path),),
    )


def _text(value: Any) -> str:
    return ", ".join(sorted(map(str, value))) if isinstance(value, list) else str(value)


def _has_jpeg(storage: Any) -> bool:
    from minari.dataset.minari_storage import is_image_space

    return bool(storage.jpeg_encoding) and any(
        is_image_space(part)
        for space in (storage.observation_space, storage.action_space)
        for _, part, _ in leaves_of(space, "", ())
    )


def _environment(env_spec: str | None) -> str | None:
    """Return `gymnasium:ID`, unless the environment took arguments or wrappers, which an id cannot express."""
    spec = json.loads(env_spec) if env_spec else {}
    named = re.fullmatch(r"[\w./:-]{1,400}", str(spec.get("id") or ""), re.ASCII)
    if not named or spec.get("kwargs") or spec.get("additional_wrappers"):
        return None
    return f"gymnasium:{spec['id']}"
