"""Import of Minari data sets, from this machine or the Minari server, in HDF5 or Arrow storage.

Spaces come from the data set itself: its environment is neither built nor needed.
"""

import json
import math
import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dr3_ray.data.episodes import episode_columns
from dr3_ray.data.schema import Columns, Manifest, Provenance
from dr3_ray.data.shards import ShardWriter, check_target, now
from dr3_ray.data.spaces import Array, SpaceSpec, from_env_actions, named_parts
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym

DETAILS = ("author", "algorithm_name", "code_permalink", "description", "combined_datasets", "env_spec")


def import_minari(
    dataset_id: str,
    path: str | os.PathLike[str],
    *,
    gamma: float = 0.99,
    clip_actions: bool = False,
    name: str | None = None,
    flatten: bool = False,
    command: str = "",
) -> Manifest:
    """Write the Minari data set `dataset_id` as a data set of ours to the directory `path`, episode by episode.

    An id may name its remote, as in `hf://farama-minari/D4RL/pen/human-v2`; what is not on this machine is
    downloaded. `gamma` is the discount of the Monte-Carlo returns. A Dict of observations keeps its parts by name, or
    becomes one vector with `flatten`; tuples always do: in the order of the environment's keys, as
    `gymnasium.wrappers.FlattenObservation` does. UserError: no such data set, spaces we have no columns for, or data
    that cannot be learned from; nothing is left at `path` then. Warns of images that Minari compressed with loss, which
    the manifest's provenance notes too.
    """
    check_target(path)  # before a long download
    storage, metadata = _open(dataset_id)
    observation_space, convert, order = _observations(_space(metadata["observation_space"]), flatten)
    action_space = SpaceSpec.from_gymnasium(storage.action_space)
    notes = []
    if _has_jpeg(storage):
        notes.append("Minari stored the images as JPEG, with loss: they are not exactly what the behaviour policy saw")
        warnings.warn(notes[0], stacklevel=2)
    if clip_actions:
        notes.append("actions outside the action space were moved to its bounds")
    details = {key: str(metadata[key]) for key in DETAILS if metadata.get(key)}
    provenance = Provenance(
        source=f"minari:{dataset_id}",
        version=f"{dataset_id.rpartition('-')[2]}, written by Minari {metadata.get('minari_version', 'unknown')}",
        licence=str(metadata.get("license", "unknown")),
        command=command,
        created=now(),
        details=details | ({"observation_order": order} if order else {}),
        notes=tuple(notes),
    )
    with ShardWriter(
        path,
        observation_space=observation_space,
        action_space=action_space,
        gamma=gamma,
        name=name or dataset_id,
        provenance=provenance,
        environment=None if order else _environment(metadata.get("env_spec")),  # it does not flatten
    ) as writer:
        for index, episode in _episodes(storage, dataset_id):
            try:
                writer.write(_columns(episode, index, convert, action_space, clip_actions, gamma))
            except UserError as error:
                raise UserError(f"{dataset_id}, {error}") from None
    return writer.manifest


def _open(dataset_id: str) -> tuple[Any, dict[str, Any]]:
    """Minari's storage of the data set, downloaded if need be, and its raw metadata."""
    import minari
    from minari.dataset.minari_storage import MinariStorage
    from minari.storage.datasets_root_dir import get_dataset_path

    local_id = re.sub(r"^\w+://[^/]+/", "", dataset_id)
    if not re.fullmatch(r"[\w/-]+-v\d+", local_id):
        raise UserError(f"{dataset_id!r} is not a Minari id: write it with its version, such as D4RL/pen/human-v2")
    path = Path(get_dataset_path(local_id)) / "data"
    if not path.is_dir():
        _download(dataset_id, path)
    try:
        metadata = MinariStorage.read_raw_metadata(path)
        version = metadata.get("minari_version")
        if version not in minari.supported_dataset_versions:
            installed = minari.__version__
            raise UserError(
                f"{dataset_id} was written by Minari {version}, which {installed} cannot read: upgrade minari"
            )
        if not {"observation_space", "action_space"} <= metadata.keys():
            raise UserError(f"{dataset_id} does not store its spaces: write it again with Minari 0.5 or later")
        return MinariStorage.read(path), metadata
    except UserError:
        raise
    except Exception as error:  # whatever a broken file makes of minari, h5py and pyarrow
        raise UserError(
            f"{path} is not a readable Minari data set ({_short(error)}): remove it to download it again"
        ) from None


def _download(dataset_id: str, path: Path) -> None:
    import minari

    try:
        minari.download_dataset(dataset_id)
    except ImportError:
        raise UserError(
            f"{dataset_id} is not at {path}, and downloading it needs: pip install 'dr3-ray[remote]'"
        ) from None
    except Exception as error:  # the clients of the remotes raise types of their own
        raise UserError(
            f"{dataset_id} is not at {path} and could not be downloaded ({_short(error)}): "
            "check the id, the network and MINARI_DATASETS_PATH"
        ) from None


def _episodes(storage: Any, dataset_id: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """One episode after the other, each read on its own: memory holds one."""
    for index in range(storage.total_episodes):
        try:
            (described,) = storage.get_episode_metadata([index])
            (episode,) = storage.get_episodes([index])
        except KeyError as error:
            raise UserError(
                f"{dataset_id}, episode {index} lacks a field ({_short(error)}): observations, actions, rewards, "
                "terminations and truncations are needed"
            ) from None
        except Exception as error:  # as in _open
            raise UserError(
                f"{dataset_id}, episode {index} cannot be read ({_short(error)}): download or create it again"
            ) from None
        # Minari's Arrow storage returns no more than the first record batch of an episode.
        steps, expected = len(episode["rewards"]), described.get("total_steps")
        if expected is not None and steps != expected:
            raise UserError(
                f"{dataset_id}, episode {index}: Minari returns {steps} steps, its description says {expected}: "
                "create the data set again, as HDF5 if its episodes are very long"
            )
        yield index, episode


def _columns(
    episode: dict[str, Any],
    index: int,
    convert: Callable[[Any], dict[str, Array]],
    action_space: SpaceSpec,
    clip_actions: bool,
    gamma: float,
) -> Columns:
    try:
        actions = from_env_actions(action_space, episode["actions"], clip=clip_actions)
    except UserError as error:
        raise UserError(f"episode {index}: {error}") from None
    columns = episode_columns(
        convert(episode["observations"]),
        actions,
        np.ravel(episode["rewards"]),
        terminated=False,
        truncated=False,
        episode_id=index,
        gamma=gamma,
    )
    # The flags as they are, not only the last one: a flag in the middle has to be seen.
    columns["terminateds"] = np.asarray(episode["terminations"], dtype=bool)
    columns["truncateds"] = np.asarray(episode["truncations"], dtype=bool)
    return columns


def _space(document: Any) -> "gym.Space[Any]":
    """The stored space with its keys in the environment's order, where Minari's own reader sorts them."""
    from gymnasium import spaces
    from minari.serialization import deserialize_space

    document = json.loads(document) if isinstance(document, str) else document
    if document["type"] == "Dict":
        return spaces.Dict(OrderedDict((key, _space(part)) for key, part in document["subspaces"].items()))
    if document["type"] == "Tuple":
        return spaces.Tuple([_space(part) for part in document["subspaces"]])
    space: gym.Space[Any] = deserialize_space(document)
    return space


def _observations(space: "gym.Space[Any]", flatten: bool) -> tuple[SpaceSpec, Callable[[Any], dict[str, Array]], str]:
    """Our space, what turns Minari's observations into named arrays [T+1, *shape], and the order of a flattened one."""
    from gymnasium import spaces

    if isinstance(space, spaces.Tuple) or (flatten and isinstance(space, spaces.Dict)):
        return _flattened(space)
    spec = SpaceSpec.from_gymnasium(space)
    types = {name: bool if part.dtype == "bool" else None for name, part in spec.parts.items()}  # MultiBinary is int8

    def by_name(values: Any) -> dict[str, Array]:
        return {name: np.asarray(part, types[name]) for name, part in named_parts(values).items()}

    return spec, by_name, ""


def _flattened(space: "gym.Space[Any]") -> tuple[SpaceSpec, Callable[[Any], dict[str, Array]], str]:
    from gymnasium import spaces
    from gymnasium.spaces.utils import flatten_space

    parts = list(_parts(space, "", ()))
    for part_name, part, _ in parts:
        if not isinstance(part, spaces.Box):
            raise UserError(
                f"observation {part_name!r} is a {part}: only a dict or tuple of Box spaces can be flattened"
            )

    def concatenate(values: Any) -> dict[str, Array]:
        arrays = []
        for _, _, keys in parts:
            array = values
            for key in keys:
                array = array[key]
            arrays.append(np.asarray(array).reshape(len(array), -1))
        return {"": np.concatenate(arrays, axis=1)}

    order = ", ".join(f"{part_name}[{math.prod(part.shape or ())}]" for part_name, part, _ in parts)
    return SpaceSpec.from_gymnasium(flatten_space(space)), concatenate, order


def _parts(
    space: "gym.Space[Any]", name: str, keys: tuple[Any, ...]
) -> Iterator[tuple[str, "gym.Space[Any]", tuple[Any, ...]]]:
    """The leaves of a nested space in Gymnasium's order: dotted name, space, keys that lead to the values."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in inner:
            yield from _parts(part, f"{name}.{key}" if name else str(key), (*keys, key))
    else:
        yield name, space, keys


def _has_jpeg(storage: Any) -> bool:
    from minari.dataset.minari_storage import is_image_space

    return bool(storage.jpeg_encoding) and any(
        is_image_space(part) for _, part, _ in _parts(storage.observation_space, "", ())
    )


def _environment(env_spec: str | None) -> str | None:
    """`gymnasium:ID`, unless the environment took arguments or wrappers, which an id cannot express."""
    spec = json.loads(env_spec) if env_spec else {}
    if not spec.get("id") or spec.get("kwargs") or spec.get("additional_wrappers"):
        return None
    return f"gymnasium:{spec['id']}"


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
