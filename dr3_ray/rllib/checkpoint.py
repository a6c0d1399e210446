"""What a checkpoint must have in common with the algorithm that reads it, checked before anything is changed."""

import json
import os
from typing import Any

from pyarrow.fs import FileSystem
from ray.rllib.algorithms.algorithm import Algorithm
from ray.tune import Checkpoint

from dr3_ray.errors import UserError


def read_metadata(path: Any, filesystem: FileSystem | None = None) -> dict[str, Any]:
    """What `OfflineAlgorithm.save_to_path` wrote beside the state: `structure`, `num_updates`."""
    if isinstance(path, Checkpoint):
        path, filesystem = path.path, path.filesystem
    path = os.fspath(path)
    if filesystem is None:
        filesystem, root = FileSystem.from_uri(path if "://" in path else os.path.abspath(path))
    else:
        root = path
    try:
        with filesystem.open_input_stream(f"{root}/{Algorithm.METADATA_FILE_NAME}") as file:
            metadata: dict[str, Any] = json.loads(file.read())
    except OSError:
        raise UserError(f"no checkpoint in {path}: give the directory that save_to_path made") from None
    if "structure" not in metadata:
        raise UserError(f"the checkpoint in {path} was not made by an algorithm of dr3_ray")
    return metadata


def check_fits(found: dict[str, Any], own: dict[str, Any], origin: str) -> None:
    """UserError unless a state of structure `found` can be loaded into an algorithm of structure `own`.

    Of a structure `algorithm`, `spaces` and `tensors` have to agree; `options` only say why the tensors do not.
    """
    different = [name for name in ("algorithm", "spaces", "options", "tensors") if found[name] != own[name]]
    if not set(different) - {"options"}:
        return
    there, here = found[different[0]], own[different[0]]
    if isinstance(here, dict):
        names = [name for name in there | here if there.get(name) != here.get(name)]
        there, here = ({name: each.get(name) for name in names} for each in (there, here))
    raise UserError(f"{origin} does not fit this algorithm: {different[0]} {there} there, {here} here")
