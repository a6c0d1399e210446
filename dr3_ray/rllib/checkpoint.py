"""The checkpoint of an algorithm: written and read without pickles, and checked before anything is changed.

Its state is plain (`dr3_ray.runs.plain`), and so are the settings that it is built from. RLlib's pickled constructors
lie beside it for RLlib's own `Algorithm.from_checkpoint` and `RLModule.from_checkpoint`; nothing here needs them.
"""

import json
import os
import reprlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
from pyarrow.fs import FileSystem
from ray import cloudpickle
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.tune import Checkpoint
from ray.tune.result import TRAINING_ITERATION

from dr3_ray.errors import UserError
from dr3_ray.evaluation.contract import Recorded, check_same
from dr3_ray.remote import open_store
from dr3_ray.runs.keys import sign

STATE = Algorithm.STATE_FILE_NAME
STRUCTURE = ("algorithm", "spaces", "options", "tensors")  # what has to agree, in the order in which it is told
CONSTRUCTOR = Algorithm.CLASS_AND_CTOR_ARGS_FILE_NAME


def read_metadata(path: Any, filesystem: FileSystem | None = None) -> dict[str, Any]:
    """Read the metadata that `OfflineAlgorithm.save_to_path` wrote beside the state: `structure`, `num_updates`."""
    filesystem, root, path = _place(path, filesystem)
    try:
        with filesystem.open_input_stream(f"{root}/{Algorithm.METADATA_FILE_NAME}") as file:
            metadata: dict[str, Any] = json.loads(file.read())
    except OSError:
        raise UserError(f"no checkpoint in {path}: give the directory that save_to_path made") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"the checkpoint in {path} is damaged ({error}): take another one") from None
    structure = metadata.get("structure") if isinstance(metadata, dict) else None
    if not isinstance(structure, dict) or not structure.keys() >= set(STRUCTURE) or "num_updates" not in metadata:
        raise UserError(f"the checkpoint in {path} was not made by an algorithm of dr3_ray")
    return metadata


@contextmanager
def folder_to_write(path: Any, filesystem: FileSystem | None = None) -> Iterator[Path]:
    """Yield a folder of this machine, whose files are put to `path` at the end, where that is elsewhere."""
    filesystem, root, _ = _place(path, filesystem)
    if isinstance(filesystem, pafs.LocalFileSystem):
        try:
            Path(root).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write a checkpoint to {path} ({error.strerror}): choose another place") from None
        yield Path(root)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        filesystem.create_dir(root, recursive=True)
        pafs.copy_files(folder, root, destination_filesystem=filesystem)


@contextmanager
def folder_to_read(path: Any, filesystem: FileSystem | None = None) -> Iterator[Path]:
    """Yield a folder of this machine with the files of `path`."""
    filesystem, root, _ = _place(path, filesystem)
    if isinstance(filesystem, pafs.LocalFileSystem):
        yield Path(root)
        return
    with tempfile.TemporaryDirectory() as folder:
        pafs.copy_files(root, folder, source_filesystem=filesystem)
        yield Path(folder)


def write_constructor(folder: Path, made: type, arguments: Any) -> None:
    """Write a pickle by which RLlib builds an object, with this user's signature."""
    content = cloudpickle.dumps({"class": made, "ctor_args_and_kwargs": arguments})
    (folder / CONSTRUCTOR).write_bytes(content)
    sign(folder, [CONSTRUCTOR])


def check_fits(state: dict[str, Any], own: dict[str, Any], origin: str) -> None:
    """Check that a state of structure `found` can be loaded into an algorithm of structure `own`.

    Of a structure `algorithm`, `spaces` and `tensors` have to agree, and what was `recorded` has to mean the same;
    `options` only say why the tensors do not.

    Raises:
        UserError: it cannot.
    """
    different = [name for name in STRUCTURE if state[name] != own[name]]
    if not set(different) - {"options"}:
        if "recorded" in state:
            check_same(Recorded.from_dict(state["recorded"]), Recorded.from_dict(own["recorded"]), origin)
        return
    there, here = state[different[0]], own[different[0]]
    if isinstance(here, dict) and isinstance(there, dict):
        names = [name for name in there | here if there.get(name) != here.get(name)]
        there, here = ({name: spaces.get(name) for name in names} for spaces in (there, here))
    raise UserError(f"{origin} does not fit this algorithm: {different[0]} {there} there, {here} here")


def check_state(state: Any, structure: Mapping[str, Any], origin: str, whole: bool = False) -> None:
    """Check that a state, or unless it is to be `whole` what `get_state(components=…)` returns, can be taken.

    RLlib passes over names that it does not know, and networks that lack some of their parameters.

    Raises:
        UserError: it cannot.
    """
    given = state if isinstance(state, Mapping) else {}
    if not given.keys() & {COMPONENT_LEARNER_GROUP, TRAINING_ITERATION}:
        raise UserError(f"{origin} is {reprlib.repr(state)}: give what get_state() returned")
    if "structure" in given:
        check_fits(given["structure"], dict(structure), origin)
    try:
        modules = given.get(COMPONENT_LEARNER_GROUP, {}).get(COMPONENT_LEARNER, {}).get(COMPONENT_RL_MODULE)
        if modules is None and not whole:
            return
        expected = {name: list(np.shape(values)) for name, values in modules[DEFAULT_MODULE_ID].items()}
    except (AttributeError, KeyError, TypeError):
        raise UserError(
            f"{origin} has no networks called {DEFAULT_MODULE_ID}: give what get_state() returned"
        ) from None
    for name in sorted(expected | structure["tensors"]):
        there, here = (shapes.get(name, "nothing") for shapes in (expected, structure["tensors"]))
        if there != here:
            raise UserError(f"{origin} does not fit this algorithm: {name} is {there} there, {here} here")


def _place(path: Any, filesystem: FileSystem | None) -> tuple[FileSystem, str, str]:
    """Return the file system of a path, the path in it, and its name."""
    if isinstance(path, Checkpoint):
        path, filesystem = path.path, path.filesystem
    if not isinstance(path, str | os.PathLike) or not isinstance(path := os.fspath(path), str):
        raise UserError(f"{path!r} is no path of a checkpoint: give a directory or a URI")
    if filesystem is not None:
        return filesystem, path.rstrip("/"), path
    return *open_store(path), path
