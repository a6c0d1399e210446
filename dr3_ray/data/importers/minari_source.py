"""Minari data sets as they lie on this machine, downloaded if need be: storage, spaces, and episodes one by one.

What a broken file makes of minari, h5py, pyarrow and gymnasium becomes one line.
"""

import itertools
import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr3_ray.errors import UserError, first_line, raise_out_of_memory

if TYPE_CHECKING:
    import gymnasium as gym
    from minari import MinariDataset


def opened(dataset: "str | MinariDataset") -> tuple[str, Any, dict[str, Any], list[int]]:
    """Return a data set's id, Minari's storage, its raw metadata, and the numbers of its episodes."""
    from minari import MinariDataset

    if isinstance(dataset, str):
        storage, metadata = _open(dataset)
        return dataset, storage, metadata, list(range(storage.total_episodes))
    if not isinstance(dataset, MinariDataset):
        raise UserError(f"{type(dataset).__name__} is not a Minari data set: give its id, or a MinariDataset")
    episodes = sorted(int(index) for index in dataset.episode_indices)
    if twice := [one for one, other in itertools.pairwise(episodes) if one == other]:
        raise UserError(f"{dataset.id} has episode {twice[0]} twice: take each episode once")
    if not episodes:
        raise UserError(f"no episode of {dataset.id} is left: choose a condition that some episodes meet")
    metadata = dataset.storage.read_raw_metadata(dataset.storage.data_path)
    return dataset.id, dataset.storage, metadata, episodes


def _open(dataset_id: str) -> tuple[Any, dict[str, Any]]:
    """Return Minari's storage of the data set, downloaded if need be, and its raw metadata."""
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
    except (UserError, MemoryError):
        raise
    except Exception as error:  # whatever a broken file makes of minari, h5py and pyarrow
        raise_out_of_memory(error)
        raise UserError(
            f"{path} is not a readable Minari data set ({first_line(error)}): remove it to download it again"
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
            f"{dataset_id} is not at {path} and could not be downloaded ({first_line(error)}): "
            "check the id, the network and MINARI_DATASETS_PATH"
        ) from None


def episodes_of(storage: Any, dataset_id: str, episodes: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield one episode after the other, each read on its own: memory holds one."""
    for index in episodes:
        try:
            (described,) = storage.get_episode_metadata([index])
            (episode,) = storage.get_episodes([index])
        except KeyError as error:
            raise UserError(
                f"{dataset_id}, episode {index} lacks a field ({first_line(error)}): observations, actions, rewards, "
                "terminations and truncations are needed"
            ) from None
        except Exception as error:  # as in _open
            raise_out_of_memory(error)
            raise UserError(
                f"{dataset_id}, episode {index} cannot be read ({first_line(error)}): download or create it again"
            ) from None
        # Minari's Arrow storage returns no more than the first record batch of an episode.
        steps, expected = len(episode["rewards"]), described.get("total_steps")
        if expected is not None and steps != expected:
            raise UserError(
                f"{dataset_id}, episode {index}: Minari returns {steps} steps, its description says {expected}: "
                "create the data set again, as HDF5 if its episodes are very long"
            )
        yield index, episode


def steps_of(storage: Any, episodes: list[int]) -> int:
    """Return the number of steps by the data set's own account; 0 where it does not say."""
    if len(episodes) == storage.total_episodes:
        return int(storage.total_steps)
    described = storage.get_episode_metadata(episodes)
    return sum(int(episode.get("total_steps", 0)) for episode in described)


def space_of(document: Any, dataset_id: str) -> "gym.Space[Any]":
    """Return the stored space with its keys in the environment's order, where Minari's own reader sorts them."""
    from gymnasium import spaces
    from minari.serialization import deserialize_space

    def read(part: Any) -> "gym.Space[Any]":
        if part["type"] == "Dict":
            return spaces.Dict(OrderedDict((key, read(inner)) for key, inner in part["subspaces"].items()))
        if part["type"] == "Tuple":
            return spaces.Tuple([read(inner) for inner in part["subspaces"]])
        space: gym.Space[Any] = deserialize_space(part)
        return space

    try:
        return read(json.loads(document) if isinstance(document, str) else document)
    except Exception as error:  # whatever a broken document makes of minari and gymnasium
        raise UserError(
            f"{dataset_id} has a space that cannot be read ({first_line(error)}): correct the source"
        ) from None
