"""Minari data sets, written by Minari's own storage, in HDF5 and without loss.

The target is an id, such as `mine/flights-v0`, in Minari's folder: MINARI_DATASETS_PATH, or ~/.minari/datasets. What
an import from Minari knew of the data set is written again.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr3_ray.data.exporters.job import Job
from dr3_ray.data.exporters.played import nested
from dr3_ray.data.reader import Dataset
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym

ID = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")
KEPT = ("algorithm_name", "code_permalink", "description")  # texts of a manifest's details that Minari has, too


def minari_path(out: str | os.PathLike[str]) -> Path:
    """Return the folder of a data set by its id; UserError if it is none."""
    from minari.storage.datasets_root_dir import get_dataset_path

    if not ID.fullmatch(os.fspath(out)):
        raise UserError(
            f"{os.fspath(out)!r} is not a Minari id: write it with its version, such as mine/flights-v0; its folder "
            "lies in MINARI_DATASETS_PATH, or else in ~/.minari/datasets"
        )
    try:
        path = Path(get_dataset_path(os.fspath(out)))
    except OSError as error:
        raise UserError(f"{error.filename} cannot be made ({error.strerror}): change MINARI_DATASETS_PATH") from None
    for above in path.parents[: os.fspath(out).count("/")]:
        if (above / "data").is_dir():
            raise UserError(f"{out} would lie inside {above}, which is a data set: choose another id")
    return path


def write_minari(job: Job) -> None:
    """Write the folder of a data set, with its episodes numbered from 0."""
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    parts = job.dataset.observation_space.parts
    storage = MinariStorage.new(
        job.path / "data",
        observation_space=_space(nested({name: part.to_gymnasium() for name, part in parts.items()})),
        action_space=job.dataset.action_space.to_gymnasium(),
        jpeg_encoding=False,
    )
    storage.update_metadata(_metadata(job))
    storage.update_episodes(
        EpisodeBuffer(
            observations=episode.observations,
            actions=episode.actions,
            rewards=episode.rewards,
            terminations=episode.terminateds,
            truncations=episode.truncateds,
        )
        for episode in job.episodes
    )
    _make_namespace(job.out.rpartition("/")[0])


def _space(parts: Any) -> "gym.Space[Any]":
    """Return a space of its own, or the Dict space of nested ones."""
    from gymnasium import spaces

    return spaces.Dict({name: _space(part) for name, part in parts.items()}) if isinstance(parts, dict) else parts


def _metadata(job: Job) -> dict[str, Any]:
    """Return what Minari is told: all that it once told us, the environment, and where the data come from."""
    import minari

    manifest = job.dataset.manifest
    details = manifest.provenance.details
    said = {key: details[key] for key in KEPT if key in details}
    said |= {"license": manifest.provenance.licence} if manifest.provenance.licence != "unknown" else {}
    said |= {"env_spec": spec} if (spec := _env_spec(job.dataset)) else {}
    return {
        "dataset_id": job.out,
        "minari_version": minari.__version__,
        "description": f"{manifest.name}, from {manifest.provenance.source}",
        **said,
        **({"author": set(details["author"].split(", "))} if "author" in details else {}),
    }


def _env_spec(dataset: Dataset) -> str:
    """Return the environment's specification as Minari keeps it; empty without one, or where it is not Gymnasium's."""
    import gymnasium as gym

    details = dataset.manifest.provenance.details
    scheme, _, name = (dataset.manifest.environment or "").partition(":")
    if "env_spec" in details and "observation_order" not in details:  # which says that a Dict was flattened
        return details["env_spec"]
    try:
        return str(gym.spec(name).to_json()) if scheme == "gymnasium" else ""
    except gym.error.Error:
        return ""


def _make_namespace(name: str) -> None:
    """Make the folder of a data set one of Minari's namespaces, if the id has one."""
    from minari.namespace import create_namespace, list_local_namespaces

    if name and name not in list_local_namespaces():
        create_namespace(name)
