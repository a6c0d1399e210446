"""From Tune's trials back to members: every result of a pack becomes a row and, where it matters, an index record."""

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from dr3_ray.errors import UserError, first_line, line_of
from dr3_ray.runs.histories import Histories
from dr3_ray.runs.index import FINAL, Index
from dr3_ray.runs.records import Status
from dr3_ray.runs.results import row_of
from dr3_ray.stores import tells_of_no_room
from dr3_ray.sweep.packs.packing import Pack
from dr3_ray.sweep.trials.progress import SweepProgress

WATCH_EVERY = 5.0  # seconds
DEATH = re.compile(r"^The actor is dead because (.+?)(?= There are some potential root causes|$)", re.MULTILINE)
SILENT = 60.0  # seconds without a running trial, until that is said


class MemberLog(tune.Callback):
    """A callback that writes index and histories while Tune runs packs, and moves the progress display.

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
        self._done: list[tuple[list[str], Status, str, int]] = []  # to record after the next flush: with pack and step
        self._over: set[str] = set()
        self._errors: dict[str, str | None] = {}  # why a member diverged, or else the first that was wrong
        self._ended = ended
        self.full = ""  # what a trial said that found no room
        self.trouble: OSError | None = None  # why the index could not be written

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state: Tune pickles callbacks to restore from, but a sweep goes on from its index."""
        return {}

    def expect(self, pack: Pack) -> None:
        """Note that a pack is about to be trained."""
        self._packs[pack.name] = list(pack.members)
        self._over |= {member for member in pack.members if self._index.status(member) in FINAL}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that the members of the pack are running."""
        members = self._alive(trial)
        self._write(members, "running", self._pack(trial))
        self._progress.status(members, "running")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Write one row for each member; the row of a member's divergence, or of its cut, is its last.

        A pack that goes on from a checkpoint first repeats its results by then, whose rows may have been lost.
        """
        for answer in (*result["earlier"], result):
            rows = zip(self._members(trial), answer["members"], strict=True)
            trained = [member for member, measured in rows if measured is not None]
            self._progress.advance(trained, answer["num_updates"])
            if answer is not result:
                self._progress.skip(trained, answer["num_updates"])
            self._add(answer, trial)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that the members of the pack are finished; those that the scheduler stopped are cut."""
        whole = trial.last_result["num_updates"] >= trial.config["pack"]["members"][0]["steps"]
        self._progress.end(self._alive(trial), trial.last_result["num_updates"])
        self._finish(self._alive(trial), "finished" if whole else "cut", trial, trial.last_result["num_updates"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that the members of the pack failed; the other packs go on."""
        members, error = self._alive(trial), reason(trial)
        self._see_whether_it_is_full(error)
        self._write(members, "failed", self._pack(trial), error)
        self._progress.status(members, "failed", error)
        self._ended(members, "failed")

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that the pack is started again, unless the disk is full."""
        self._see_whether_it_is_full(reason(trial))

    def _see_whether_it_is_full(self, error: str) -> None:
        """Look for a full disk: to train on without room for checkpoints would fail every pack after the other."""
        if tells_of_no_room(error) and not self.full:
            said = error.rpartition("Error: ")[2]
            self.full = said if said.startswith("no room left") else f"no room left ({said}): make some, and resume"

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Keep the files and the display up to date, at little cost.

        Raises:
            UserError: a trial found no room on its disk.
        """
        if self.full:
            raise UserError(self.full)
        self.flush(force=False)
        self._progress.refresh()

    def waits(self, trial: Trial, member: str, call: str) -> None:
        """Note and say that a member waits for an environment."""
        if member in self._alive(trial):
            self._write([member], "running", self._pack(trial), call)
            self._progress.say(
                f"member {member}: {call}: it is waited for; stop this, correct the environment or give it a limit of "
                "its own, and resume"
            )

    def goes_on(self, trial: Trial) -> None:
        """Note that the members of the pack wait for nothing any more."""
        waited = [member for member in self._alive(trial) if self._index.records[member]["error"]]
        self._write(waited, "running", self._pack(trial))

    def flush(self, force: bool = True) -> None:
        """Write all rows, then the ends in the index that they allow."""
        if self._histories.flush(force):
            for members, status, pack, end in self._done:
                # a signal came in between, where some have this status already
                left = [member for member in members if self._index.status(member) != status]
                for error, those in self._by_error(left).items():
                    self._write(those, status, pack, error, end)
            self._done.clear()

    def _write(
        self, members: list[str], status: Status, pack: str, error: str | None = None, end: int | None = None
    ) -> None:
        """Write to the index and keep an error: Tune makes text of what its callbacks raise, and may go on."""
        try:
            self._index.write(members, status, pack=pack, error=error, end=end)
        except OSError as trouble:
            self.trouble = self.trouble or trouble
            raise

    def _add(self, result: dict[str, Any], trial: Trial) -> None:
        lost, told = [], Counter[str]()
        for member, measured in zip(self._members(trial), result["members"], strict=True):
            if measured is None or member in self._over:
                continue
            error = measured.get("error")
            if measured["diverged"]:
                lost.append(member)
                self._errors[member] = error
            elif error and member not in self._errors:
                self._errors[member] = error
                told[error] += 1
            self._histories.add(member, result["num_updates"], row_of(result, measured))
        for error, count in told.items():
            self._progress.say(f"{count} go on: {error}")
        if lost:
            self._finish(lost, "diverged", trial, result["num_updates"])
        if cut := [self._members(trial)[place] for place in result["cut"]]:
            self._progress.end(cut, result["num_updates"])
            self._finish([member for member in cut if member not in self._over], "cut", trial, result["num_updates"])

    def _finish(self, members: list[str], status: Status, trial: Trial, end: int) -> None:
        self._over.update(members)
        self._histories.settle(members)
        self._done.append((members, status, self._pack(trial), end))
        for error, those in self._by_error(members).items():
            self._progress.status(those, status, error)
        self._ended(members, status)

    def _by_error(self, members: list[str]) -> dict[str | None, list[str]]:
        grouped: dict[str | None, list[str]] = {}
        for member in members:
            grouped.setdefault(self._errors.get(member), []).append(member)
        return grouped

    def _alive(self, trial: Trial) -> list[str]:
        return [member for member in self._members(trial) if member not in self._over]

    def _members(self, trial: Trial) -> list[str]:
        return self._packs[self._pack(trial)]

    @staticmethod
    def _pack(trial: Trial) -> str:
        return str(trial.config["pack"]["name"])


class Watchdog(tune.Callback):
    """A callback that sees to it that a sweep never waits in silence, as Tune would for ever.

    It ends the sweep when the Ray of this machine has died, and says so when nothing trains because others hold the
    cluster, or because the machines that had room for a trial, which needs `room`, are gone. After `patience` minutes
    of that it ends the sweep, too. `resume` is the command that goes on.
    """

    def __init__(self, resume: str, room: str, say: Callable[[str], None], patience: float | None = None) -> None:
        self._resume, self._room, self._say, self._patience = resume, room, say, patience
        self._next, self._trained = 0.0, time.monotonic()
        self._said = self._trained

    def __reduce__(self) -> tuple[Any, ...]:
        """Return a watch that prints: Tune pickles callbacks to restore experiments from."""
        return type(self), (self._resume, self._room, print, self._patience)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look now and then whether the sweep can go on.

        Raises:
            UserError: this machine is not among the living, or patience is at its end.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + WATCH_EVERY
        here = ray.get_runtime_context().get_node_id()
        if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == here):
            raise UserError(f"Ray has died on this machine: `{self._resume}` goes on")
        waiting = sum(trial.status == Trial.PENDING for trial in trials)
        if not waiting or any(trial.status == Trial.RUNNING for trial in trials):
            self._trained = self._said = now
        elif self._patience is not None and now - self._trained >= 60 * self._patience:
            raise UserError(
                f"nothing was trained for {self._patience:g} minutes, because no trial got {self._room}: "
                f"`{self._resume}` goes on when there is room"
            )
        elif now - self._said >= SILENT:
            self._said = now
            free = ray.available_resources()
            rest = f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs of the cluster are free"
            self._say(
                f"nothing is trained: {waiting} trials wait for {self._room} each, or for their processes to start, "
                f"and {rest}"
            )


def reason(trial: Trial) -> str:
    """Return the line that says why a trial failed last: type and first line of the error, which Tune keeps whole."""
    text = ""
    with suppress(OSError):  # of a full disk, say: that a trial has failed is known all the same
        text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
    last = text.rpartition("Failure # ")[2].partition("\n")[2].strip()
    if death := DEATH.search(last):
        when = " before it began" if "The actor never ran" in last else ""
        return f"the trial's process was lost{when}: {line_of(death[1])}"
    try:
        error = trial.get_pickled_error()
    except Exception:  # of a class that only the worker knows
        error = None
    if error is not None and str(error).strip() == last:  # and not one of before
        return first_line(error)
    return line_of(last) or "it failed without leaving an error"
