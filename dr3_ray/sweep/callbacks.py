"""From Tune's trials back to members: every result of a pack becomes a row and, where it matters, an index record."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from dr3_ray.sweep.histories import Histories
from dr3_ray.sweep.index import FINAL, Index, Status
from dr3_ray.sweep.packing import Pack
from dr3_ray.sweep.progress import SweepProgress

NOT_MEASURED = ("diverged", "seed", "dr3_coeff")  # of a member's result: they stand in index and configuration


class MemberLog(tune.Callback):
    """Writes index and histories while Tune runs packs, and moves the progress display.

    The index never runs ahead: a member is `finished` or `diverged` there once its rows are on disk.
    """

    def __init__(self, packs: list[Pack], index: Index, histories: Histories, progress: SweepProgress) -> None:
        self._packs = {pack.name: list(pack.members) for pack in packs}
        self._index, self._histories, self._progress = index, histories, progress
        self._done: list[tuple[list[str], Status, str]] = []  # members, status and pack to record after the next flush
        self._over = {member for pack in packs for member in pack.members if index.status(member) in FINAL}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles callbacks to restore experiments from; a sweep is taken up from its index instead."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The members of the pack are running."""
        members = self._alive(trial)
        self._index.write(members, "running", pack=self._pack(trial))
        self._progress.status(members, "running")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """One row for each member; the row of a member's divergence is its last.

        A pack that goes on from a checkpoint first repeats what it had found by then, of which rows may have been lost.
        """
        for each in (*result["earlier"], result):
            self._add(each, trial)
        if result["earlier"]:
            self._progress.skip(self._members(trial), result["earlier"][-1]["num_updates"])
        self._progress.advance(self._members(trial), result["num_updates"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The members of the pack are finished."""
        self._finish(self._alive(trial), "finished", trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The members of the pack failed; the other packs go on."""
        members, error = self._alive(trial), reason(trial)
        self._index.write(members, "failed", error=error, pack=self._pack(trial))
        self._progress.status(members, "failed", error)

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
            if member in self._over:
                continue
            if measured["diverged"]:
                lost.append(member)
            row = {"time_s": result["time_s"], "updates_per_second": result["updates_per_second"]}
            row |= {"episode_return_mean": float("nan"), "episodes": 0}  # without an environment
            row |= {name: value for name, value in measured.items() if name not in NOT_MEASURED}
            self._histories.add(member, result["num_updates"], row)
        if lost:
            self._finish(lost, "diverged", trial)

    def _finish(self, members: list[str], status: Status, trial: Trial) -> None:
        self._over.update(members)
        self._histories.settle(members)
        self._done.append((members, status, self._pack(trial)))
        self._progress.status(members, status)

    def _alive(self, trial: Trial) -> list[str]:
        return [member for member in self._members(trial) if member not in self._over]

    def _members(self, trial: Trial) -> list[str]:
        return self._packs[self._pack(trial)]

    @staticmethod
    def _pack(trial: Trial) -> str:
        return str(trial.config["pack"]["name"])


def reason(trial: Trial) -> str:
    """The line that says why a trial failed, from the file in which Tune keeps all its errors whole.

    It is the last one of a traceback, and the first one of what Ray has to say of a worker that is gone.
    """
    text = Path(trial.error_file).read_text() if trial.error_file else ""
    lines = text.rpartition("Failure # ")[2].strip().splitlines()[1:] or ["it failed without leaving an error"]
    return lines[-1 if any(line.startswith("  File ") for line in lines) else 0]
