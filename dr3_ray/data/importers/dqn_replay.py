"""The DQN Replay data set: logs of Dopamine's replay memory, with every frame once.

Layout: `$store$_{observation,action,reward,terminal}_ckpt.N.gz`, gzipped .npy with a row for each frame, and
`add_count`, how many were added to the ring in all (https://github.com/google-research/batch_rl). An observation is
the last four frames of its episode, zeros before its first. No frame follows a terminal one. Dopamine adds three rows
of zeros before each episode, which are no steps of it: they are left out.
"""

import gzip
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

import numpy as np

from dr3_ray.data.checks import Findings
from dr3_ray.data.frames import Stack
from dr3_ray.data.importers.files import existing
from dr3_ray.data.importers.npz import Mapped, copied
from dr3_ray.data.importers.rows import Batch
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import BatchTable
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError, first_line, raise_out_of_memory

STACK = 4  # frames of an observation, as Dopamine's agents see them
COLUMNS = {"observations": "observation", "actions": "action", "rewards": "reward", "terminateds": "terminal"}


def is_dqn_replay(path: Path) -> bool:
    """Return whether a folder has logs of a replay memory."""
    return path.is_dir() and any(path.glob("$store$_observation_ckpt.*.gz"))


def dqn_replay_source(path: str, options: Options) -> Source:
    """Return the episodes of all checkpoints in a folder, by their numbers.

    Raises:
        UserError: one cannot be read.
    """
    folder = existing(path)
    numbers = sorted(
        int(match[1])
        for file in folder.glob("$store$_observation_ckpt.*.gz")
        if (match := re.search(r"\.(\d+)\.gz$", file.name))
    )

    @lru_cache(maxsize=1)  # unpacking a checkpoint takes a minute
    def opened(number: int) -> tuple[dict[str, Mapped], int]:
        return _checkpoint(folder, number)

    def read(findings: Findings) -> Iterator[Batch]:
        episode = 0
        for number in numbers:
            for batch in _episodes(*opened(number), findings):
                yield batch | {"episode_ids": np.full(len(batch["rewards"]), episode)}
                episode += 1

    theirs = {ours: [f"$store$_{name}"] for ours, name in COLUMNS.items()}
    source = table_source(
        BatchTable(read, theirs), options, name=folder.name, provenance=Provenance(source=f"dqn-replay:{path}")
    )
    return replace(source, stack=Stack(STACK, axis=2))


def _checkpoint(folder: Path, number: int) -> tuple[dict[str, Mapped], int]:
    """Return the arrays of a checkpoint by our columns, and how many rows were ever added."""
    arrays = {ours: _array(folder / f"$store$_{name}_ckpt.{number}.gz") for ours, name in COLUMNS.items()}
    rows = len(arrays["rewards"])
    if {len(values) for values in arrays.values()} != {rows}:
        raise UserError(f"checkpoint {number} in {folder} has arrays of different lengths: copy it again")
    counts = folder / f"add_count_ckpt.{number}.gz"
    added = int(np.ravel(_array(counts))[0]) if counts.exists() else rows
    return arrays, added


def _episodes(arrays: dict[str, Mapped], added: int, findings: Findings) -> Iterator[Batch]:
    """Yield the episodes of a checkpoint from its oldest row to its newest."""
    rows = len(arrays["rewards"])
    oldest, filled = (added % rows, rows) if added > rows else (0, added)
    order = (np.arange(filled) + oldest) % rows
    ends = np.flatnonzero(np.asarray(arrays["terminateds"])[order] != 0) + 1
    for begin, end in zip(np.append(0, ends).tolist(), np.append(ends, filled).tolist(), strict=True):
        if begin < end:
            taken = order[begin:end]
            batch = {name: np.asarray(values[taken]) for name, values in arrays.items()}
            batch["observations"] = _stacked(batch["observations"])
            # the frames before the oldest row are gone, so that its first stacks are not whole
            left_out = STACK - 1 if begin == 0 and oldest else _padding(batch)
            if not (begin == 0 and oldest):
                findings.add("padding", left_out)
            yield {name: values[left_out:] for name, values in batch.items()}


def _padding(episode: Batch) -> int:
    """Return how many rows of zeros the replay memory put before the first frame of an episode: 3, or none."""
    first = [values[: STACK - 1] for values in episode.values()]
    return STACK - 1 if len(first[0]) == STACK - 1 and not any(values.any() for values in first) else 0


def _stacked(frames: Array) -> Array:
    """Return frames [T, H, W] as stacks [T, H, W, 4], the newest last."""
    padded = np.concatenate([np.zeros((STACK - 1, *frames.shape[1:]), frames.dtype), frames])
    return np.stack([padded[index : index + len(frames)] for index in range(STACK)], axis=-1)


def _array(path: Path) -> Mapped:
    """Read an array into a temporary file, and map it from there."""
    try:
        with gzip.open(path) as stream:
            return Mapped(copied(cast(IO[bytes], stream)))
    except (OSError, EOFError, ValueError) as error:
        raise_out_of_memory(error)
        raise UserError(f"{path} is not a readable log ({first_line(error)}): copy it again") from None
