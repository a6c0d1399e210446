"""From Tune's trials back to members: every result of a pack becomes a row and, where it matters, an index record."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from dr3_ray.errors import UserError
from dr3_ray.sweep.histories import Histories
from dr3_ray.sweep.index import FINAL, Index, Status
from dr3_ray.sweep.packing import Pack
from dr3_ray.sweep.progress import SweepProgress

WATCH_EVERY = 5.0  # seconds
SILENT = 60.0  # seconds without a running trial, until that is said
NOT_MEASURED = ("diverged", "seed", "dr3_coeff")  # of a member's result: they stand in index and configuration


class MemberLog(tune.Callback):
    """Writes index and histories while Tune runs packs, and moves the progress display.

    The index never runs ahead: a member is `finished`, `diverged` or `cut` there once its rows are on disk. `ended` is
    told at once.
    """

    def __init__(
        self,
        index: Index,
        histories: Histories,
        progress: SweepProgress,
        ended: Callable[[list[str], Status], None] = lambda members, status: None,
    ) -> None:
        self._packs: dict[str, list[str]] = {}
        self._index, self._histories, self._progress = index, histories, progress
        self._done: list[tuple[list[str], Status, str]] = []  # members, status and pack to record after the next flush
        self._over: set[str] = set()
        self._ended = ended

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles callbacks to restore experiments from; a sweep is taken up from its index instead."""
        return {}

    def expect(self, pack: Pack) -> None:
        """A pack is about to be trained."""
        self._packs[pack.name] = list(pack.members)
        self._over |= {member for member in pack.members if self._index.status(member) in FINAL}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The members of the pack are running."""
        members = self._alive(trial)
        self._index.write(members, "running", pack=self._pack(trial))
        self._progress.status(members, "running")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """One row for each member; the row of a member's divergence, or of its cut, is its last.

        A pack that goes on from a checkpoint first repeats what it had found by then, of which rows may have been lost.
        """
        for each in (*result["earlier"], result):
            rows = zip(self._members(trial), each["members"], strict=True)
            trained = [member for member, measured in rows if measured is not None]
            self._progress.advance(trained, each["num_updates"])
            if each is not result:
                self._progress.skip(trained, each["num_updates"])
            self._add(each, trial)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The members of the pack are finished; those that the scheduler stopped are cut."""
        whole = trial.last_result["num_updates"] >= trial.config["pack"]["members"][0]["steps"]
        self._progress.end(self._alive(trial), trial.last_result["num_updates"])
        self._finish(self._alive(trial), "finished" if whole else "cut", trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The members of the pack failed; the other packs go on."""
        members, error = self._alive(trial), reason(trial)
        self._index.write(members, "failed", error=error, pack=self._pack(trial))
        self._progress.status(members, "failed", error)
        self._ended(members, "failed")

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Keep the files and the display up to date, at little cost."""
        self.flush(force=False)
        self._progress.refresh()

    def flush(self, force: bool = True) -> None:
        """Write all rows, then what they allow to say in the index."""
        if self._histories.flush(force):
            for members, status, pack in self._done:
                self._index.write(members, status, pack=pack)
            self._done.clear()

    def _add(self, result: dict[str, Any], trial: Trial) -> None:
        lost = []
        for member, measured in zip(self._members(trial), result["members"], strict=True):
            if measured is None or member in self._over:
                continue
            if measured["diverged"]:
                lost.append(member)
            row = {"time_s": result["time_s"], "updates_per_second": result["updates_per_second"]}
            row |= {"episode_return_mean": float("nan"), "episodes": 0}  # without an environment
            row |= {name: value for name, value in measured.items() if name not in NOT_MEASURED}
            self._histories.add(member, result["num_updates"], row)
        if lost:
            self._finish(lost, "diverged", trial)
        if cut := [self._members(trial)[place] for place in result["cut"]]:
            self._progress.end(cut, result["num_updates"])
            self._finish([member for member in cut if member not in self._over], "cut", trial)

    def _finish(self, members: list[str], status: Status, trial: Trial) -> None:
        self._over.update(members)
        self._histories.settle(members)
        self._done.append((members, status, self._pack(trial)))
        self._progress.status(members, status)
        self._ended(members, status)

    def _alive(self, trial: Trial) -> list[str]:
        return [member for member in self._members(trial) if member not in self._over]

    def _members(self, trial: Trial) -> list[str]:
        return self._packs[self._pack(trial)]

    @staticmethod
    def _pack(trial: Trial) -> str:
        return str(trial.config["pack"]["name"])


class Watch(tune.Callback):
    """Sees to it that a sweep never waits in silence, as Tune would for ever.

    Ends it when the Ray of this machine has died, and says so when nothing trains because others hold the cluster, or
    because the machines that had room for a trial, which needs `room`, are gone. After `patience` minutes of that it
    ends the sweep, too.
    """

    def __init__(self, run: Path, room: str, say: Callable[[str], None], patience: float | None = None) -> None:
        self._run, self._room, self._say, self._patience = run, room, say, patience
        self._next, self._trained = 0.0, time.monotonic()
        self._said = self._trained

    def __getstate__(self) -> dict[str, Any]:
        """As that of a MemberLog."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look now and then. UserError: this machine is not among the living, or patience is at its end."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + WATCH_EVERY
        here = ray.get_runtime_context().get_node_id()
        if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == here):
            raise UserError(f"Ray has died on this machine: `dr3-ray sweep --resume {self._run}` goes on")
        waiting = sum(trial.status == Trial.PENDING for trial in trials)
        if not waiting or any(trial.status == Trial.RUNNING for trial in trials):
            self._trained = self._said = now
        elif self._patience is not None and now - self._trained >= 60 * self._patience:
            raise UserError(
                f"nothing was trained for {self._patience:g} minutes, because no trial got {self._room}: "
                f"`dr3-ray sweep --resume {self._run}` goes on when there is room"
            )
        elif now - self._said >= SILENT:
            self._said = now
            free = ray.available_resources()
            rest = f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs of the cluster are free"
            self._say(f"nothing is trained: {waiting} trials wait for {self._room} each, and {rest}")


def reason(trial: Trial) -> str:
    """The line that says why a trial failed, from the file in which Tune keeps all its errors whole.

    It is the last one of a traceback, and the first one of what Ray has to say of a worker that is gone.
    """
    text = Path(trial.error_file).read_text() if trial.error_file else ""
    lines = text.rpartition("Failure # ")[2].strip().splitlines()[1:] or ["it failed without leaving an error"]
    return lines[-1 if any(line.startswith("  File ") for line in lines) else 0]
