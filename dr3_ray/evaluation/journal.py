"""What an unfinished collection keeps on disk: killed at any moment, it goes on from the end of an episode."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from dr3_ray.errors import UserError, first_line
from dr3_ray.evaluation.online import Learning
from dr3_ray.runs.plain import DAMAGES, read_plain, write_plain
from dr3_ray.stores import rename_folder, synchronize

FOLDER = "course"
SECONDS = 10.0  # between two checkpoints, at least
SHARE = 20  # a checkpoint takes no more than one part in so many of the time


class Journal:
    """Checkpoints of a collection in a folder. The newest counts.

    The rows of the replay are in a file for each column, and lengthen it; a checkpoint says how many of them count.

    Args:
        folder: where a data set is being written.
        once: what stays as it was when the collection began.
        seconds: between two checkpoints, at least; 0: there is one after every episode.
    """

    def __init__(self, folder: Path, once: dict[str, Any], seconds: float = SECONDS) -> None:
        self.once, self._folder, self._seconds = once, folder / FOLDER, seconds
        self._rows = self._policies = 0  # that are on disk
        self._due = time.monotonic() + seconds

    def restore(self, learning: Learning) -> None:
        """Put a collection where its newest checkpoint was, if there is one.

        Raises:
            UserError: it is damaged.
        """
        if not (newest := max(self._folder.glob("at-*"), default=None)):
            return
        try:
            state = read_plain(newest, "state")
            replay, rows = learning.replay, state["rows"]
            for number, values in enumerate(replay.columns):
                values[:rows] = np.fromfile(self._column(number), values.dtype, values[:rows].size).reshape(
                    values[:rows].shape
                )
            learning.policies = [read_plain(self._folder, f"policy-{policy}") for policy in range(state["policies"])]
            replay.rows = rows
            learning.load_state(state["learning"])
        except (*DAMAGES, RuntimeError) as error:
            raise UserError(
                f"what was kept of an earlier collection in {self._folder} is damaged ({first_line(error)}): remove "
                "that folder, and the same command begins again"
            ) from None
        self.once, self._rows, self._policies = state["once"], rows, state["policies"]

    def save(self, learning: Learning) -> None:
        """Write a checkpoint, unless the last one is recent."""
        if (begun := time.monotonic()) < self._due:
            return
        self._folder.mkdir(exist_ok=True)
        replay = learning.replay
        for number, values in enumerate(replay.columns):
            with open(self._column(number), "r+b" if self._column(number).exists() else "wb") as file:
                file.seek(self._rows * values[0].nbytes)
                file.write(values[self._rows : len(replay)].tobytes())
                file.flush()
                os.fsync(file.fileno())
        for number in range(self._policies, len(learning.policies)):
            write_plain(self._folder, f"policy-{number}", learning.policies[number])
            for path in self._folder.glob(f"policy-{number}.*"):
                synchronize(path)
        new, name = self._folder / "new", f"at-{len(replay):012d}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        counts = {"rows": len(replay), "policies": len(learning.policies)}
        write_plain(new, "state", {"once": self.once, "learning": learning.state()} | counts)
        rename_folder(new, self._folder / name)
        for older in self._folder.glob("at-*"):
            if older.name != name:
                shutil.rmtree(older)
        self._rows, self._policies = counts.values()
        pause = max(self._seconds, SHARE * (time.monotonic() - begun)) if self._seconds else 0.0
        self._due = time.monotonic() + pause

    def _column(self, number: int) -> Path:
        return self._folder / f"column-{number}"


def forget(folder: Path) -> None:
    """Remove all checkpoints of a collection, which is written."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
