"""V-D4RL's pixels: .npz files of 64 pixels, one an episode, or HDF5 files of 84 pixels.

Layout: `image` [T+1, 64, 64, 3], `action`, `reward`, `discount`, `is_first`, `is_last`, `is_terminal`, [T+1, ...] in
each .npz; `observation`, `action`, `reward`, `discount`, `step_type` (0 first, 1 within, 2 last) in HDF5. Action
and reward stand beside the observation that they led to, so that both are shifted by one (https://github.com/conglu1997/v-d4rl).
An episode begins with a first row and has its last or terminal one at its end: what differs is refused.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.files import existing, hdf5, hdf5_keys
from dr3_ray.data.importers.npz import Npz
from dr3_ray.data.importers.rows import Batch
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import BatchTable
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError

NPZ = {"image", "action", "reward", "is_first"}
HDF5 = {"observation", "action", "reward", "step_type"}


def is_v_d4rl(path: Path) -> bool:
    """Return whether a folder has episodes of 64 pixels, or a file those of 84."""
    if not path.is_dir():
        return hdf5_keys(path) >= HDF5
    first = next(iter(sorted(path.glob("*.npz"))), None)
    return first is not None and set(Npz(first)) >= NPZ


def v_d4rl_source(path: str, options: Options) -> Source:
    """Return the episodes of a folder of .npz files, by their names, or of an HDF5 file.

    Raises:
        UserError: it is neither.
    """
    place = existing(path)

    def read(findings: Findings) -> Iterator[Batch]:
        return _from_hdf5(place) if place.is_file() else _from_npz(place)

    theirs = {"actions": ["action, of the row after"], "rewards": ["reward, of the row after"]}
    return table_source(
        BatchTable(read, theirs), options, name=place.stem, provenance=Provenance(source=f"v-d4rl:{path}")
    )


def _from_npz(folder: Path) -> Iterator[Batch]:
    for number, path in enumerate(sorted(folder.glob("*.npz"))):
        arrays = Npz(path)
        if missing := NPZ - set(arrays):
            raise UserError(f"{path} has no {sorted(missing)[0]}: an episode of V-D4RL has {', '.join(sorted(NPZ))}")
        terminal = np.ravel(arrays["is_terminal"]) if "is_terminal" in arrays else np.zeros(1)
        begins = np.ravel(arrays["is_first"])
        if (wrong := np.append(np.flatnonzero(begins[1:]) + 1, np.flatnonzero(terminal[:-1]))).size:
            raise UserError(f"{path} has another episode from row {wrong.min()} on: save a file for each episode")
        yield _shifted(arrays["image"], arrays["action"], arrays["reward"], bool(terminal[-1]), number)


def _from_hdf5(path: Path) -> Iterator[Batch]:
    with hdf5(path) as file:
        if missing := HDF5 - set(file):
            raise UserError(f"{path} has no {sorted(missing)[0]}: a file of V-D4RL has {', '.join(sorted(HDF5))}")
        begins = _beginnings(path, np.ravel(file["step_type"]))
        ends = np.append(begins[1:], len(file["step_type"]))
        for number, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            seen, actions, rewards = (file[name][begin:end] for name in ("observation", "action", "reward"))
            terminal = "discount" in file and float(np.ravel(file["discount"][end - 1])[0]) == 0
            yield _shifted(seen, actions, rewards, terminal, number)


def _beginnings(path: Path, kinds: Array) -> Array:
    """Return the rows at which episodes begin.

    Raises:
        UserError: 0 does not stand there, 2 not only before the next 0, or 1 not elsewhere.
    """
    follows_last = np.append(True, kinds[:-1] == 2)
    wrong = ~np.isin(kinds, (0, 1, 2)) | (follows_last & (kinds != 0))
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{path} has step_type {kinds[row]} at row {row}, where an episode begins with 0, goes on with 1 and ends "
            "with 2: drop the rows that are of no whole episode"
        )
    return np.flatnonzero(kinds == 0)


def _shifted(observations: Array, actions: Array, rewards: Array, terminal: bool, number: int) -> Batch:
    steps = len(observations) - 1
    last = np.arange(steps) == steps - 1
    return {
        "observations": observations[:-1],
        "actions": actions[1:],
        "rewards": np.ravel(rewards)[1:],
        "terminateds": last & terminal,
        "truncateds": last & (not terminal),
        "next_observations": observations[1:],
        "episode_ids": np.full(steps, number),
    }
