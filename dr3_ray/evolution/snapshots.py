"""What a population goes on from: Tune's snapshot of the experiment, and copies of it that are checked when read.

Tune writes over its snapshot, so that a kill, a power cut or whoever reads meanwhile may find half of it. A copy is
whole or not there at all, as a checkpoint of a sweep is.
"""

import json
import pickle
import pickletools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from dr3_ray.errors import UserError, first_line
from dr3_ray.evolution.schedule import checkpoint_in, known, run_of
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.digests import MANIFEST, is_whole
from dr3_ray.runs.storage import claim
from dr3_ray.stores import replace_file, set_aside

TRIALS = "trials"
TUNER = "tuner.pkl"  # how the experiment was asked for, always the same, which Tune writes again and again
STATES = ("experiment_state-*.json", "basic-variant-state-*.json")  # of trials, and which of them there are; by session
OWNER, COPIES = "population", "experiment"
EVERY = 2.0  # seconds between two copies
REMEDY = "put it back from a copy of yours, or begin in another --out"


class DamagedError(UserError):
    """A file of Tune's that Tune cannot read."""


class Copies(tune.Callback):
    """A callback that keeps copies of Tune's own files in the directory of the population."""

    def __init__(self) -> None:
        self._next = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        """Return an empty callback: Tune pickles callbacks to restore experiments from."""
        return type(self), ()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Copy the files, now and then, unless Tune is about to write one of them."""
        if not trials or time.monotonic() < self._next:
            return
        storage = trials[0].storage
        newest = [_newest(Path(storage.experiment_driver_staging_path), pattern) for pattern in STATES]
        files = [path for path in (Path(storage.experiment_fs_path, TUNER), *newest) if path]
        contents = {path.name: path.read_bytes() for path in files}
        if len(files) == 1 + len(STATES) and all(map(_is_whole, contents.values())):  # Tune has taken a snapshot

            def write(folder: str) -> None:
                for name, content in contents.items():
                    Path(folder, name).write_bytes(content)

            Checkpoints(str(run_of(trials[0])), COPIES, OWNER).save(int(time.time()), write)
            self._next = time.monotonic() + EVERY


def take_up(out: Path, say: Callable[[str], None]) -> bool:
    """Return whether there is a population to go on with; damaged files are put back from the copy.

    Nothing is unpickled. `say` is told of what was put back.

    Raises:
        UserError: members were trained, and what Tune needs to go on is damaged or lost together with its copy.
    """
    claim(str(out), OWNER, str(out))
    problem = _problem(out / TRIALS, copied := _last_copy(out))
    if not problem:
        return True
    if copied:
        put_back(out, copied)
        say(f"{problem}: the population goes on from the copy of a moment before")
        return True
    if known(out):
        raise UserError(f"{problem}, and what was trained cannot go on without it: {REMEDY}")
    if (out / TRIALS).exists():  # it ended before anything was trained
        set_aside(out / TRIALS)
    return False


def restore(out: Path, trainable: type, say: Callable[[str], None]) -> tune.Tuner:
    """Restore Tune's experiment as it was left. It is unpickled: whoever made it can run code here.

    Raises:
        UserError: it is another version's, or damaged, or a checkpoint that a member goes on from is.
    """
    try:
        tuner = _restored(out, trainable)
    except DamagedError as error:
        if not (copied := _last_copy(out)):
            raise
        put_back(out, copied)
        tuner = _restored(out, trainable)
        say(f"{error}; the population goes on from the copy of a moment before")
    for result in tuner.get_results():
        if result.checkpoint:
            check_whole(checkpoint_in(out / TRIALS, result.checkpoint.path))
    return tuner


def put_back(out: Path, copied: dict[str, bytes]) -> None:
    """Have Tune go on from a copy; what was there is kept beside."""
    trials = out / TRIALS
    trials.mkdir(exist_ok=True)
    for path in [path for pattern in STATES for path in trials.glob(pattern)]:
        set_aside(path)
    for name, content in copied.items():
        if (path := trials / name).exists() and path.read_bytes() != content:
            set_aside(path)
        replace_file(path, content)


def check_whole(checkpoint: Path) -> None:
    """Check that a member's checkpoint is whole; version 0.1 wrote no digests, and is believed.

    Raises:
        UserError: it is damaged or lost.
    """
    if not (checkpoint.is_dir() and (is_whole(checkpoint) or not (checkpoint / MANIFEST).exists())):
        raise UserError(f"the checkpoint {checkpoint} is damaged: {REMEDY}")


def _restored(out: Path, trainable: type) -> tune.Tuner:
    try:
        tuner = tune.Tuner.restore(str(out / TRIALS), trainable, resume_unfinished=True, resume_errored=True)
        tuner.get_results()
    except (ImportError, AttributeError) as error:  # a name of ours that Tune has pickled
        raise UserError(
            f"{out} was begun by another version of dr3-ray, from whose pickles this one cannot go on "
            f"({first_line(error)}): go on with that version, or use another --out"
        ) from None
    except Exception as error:  # pickles that are damaged raise anything
        raise DamagedError(f"Tune's files in {out / TRIALS} are damaged ({first_line(error)}): {REMEDY}") from None
    return tuner


def _last_copy(out: Path) -> dict[str, bytes]:
    """Return the files of the last copy that is whole, by name; empty without one.

    Earlier versions copied files while Tune wrote them.
    """
    files: dict[str, bytes] = {}

    def read(folder: str) -> None:
        files.update({path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != MANIFEST})

    Checkpoints(str(out), COPIES, OWNER).load(read)
    return files if all(map(_is_whole, files.values())) else {}


def _problem(trials: Path, copied: dict[str, bytes]) -> str:
    """Return what is wrong with the files of Tune's experiment; empty where they look whole."""
    tuner = trials / TUNER
    if not tuner.is_file():
        return f"{tuner} is missing"
    if copied and tuner.read_bytes() != copied[TUNER]:
        return f"{tuner} is damaged"
    for pattern in STATES:
        if (path := _newest(trials, pattern)) is None:
            return f"{trials / pattern} is missing"
        if not _is_whole(path.read_bytes()):
            return f"{path} is damaged"
    return ""


def _is_whole(content: bytes) -> bool:
    """Return whether this is JSON, or a pickle up to its end; nothing is unpickled. Tune names both `.json`."""
    try:
        if content.startswith(pickle.PROTO):
            *_, (_, _, end) = pickletools.genops(content)
            return end == len(content) - 1
        json.loads(content)
    except Exception:  # pickles that are damaged raise anything
        return False
    return True


def _newest(folder: Path, pattern: str) -> Path | None:
    return max(folder.glob(pattern), key=lambda path: path.name, default=None)
