"""Environments that do not answer: a trial that waits for one returns nothing, so it leaves word in Ray's memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from dr3_ray.compat.ray import keep, kept
from dr3_ray.evaluation.turns import SILENT, Unanswered

if TYPE_CHECKING:  # of the driver; this is read by trials as well
    from dr3_ray.sweep.trials.callbacks import MemberLog

LOOK_EVERY = 5.0  # seconds


def leave_word(pack: str, members: Callable[[], list[str]]) -> Callable[[Unanswered | None], None]:
    """Return what is to be told of calls without an answer in the trial of a pack; nothing is said of it so far.

    `members` returns the hashes of those that play, in their order.
    """

    def tell(call: Unanswered | None) -> None:
        """Leave word of the call, or that there was an answer."""
        word = ""
        if call:
            word = f"{members()[call.place.member or 0]} {call.of(None)}"
        keep(_name(pack), word.encode())

    tell(None)
    return tell


def word_of(pack: str) -> tuple[str, str] | None:
    """Return which member waits, and for what; None: nothing is said of it."""
    member, _, call = (kept(_name(pack)) or b"").decode().partition(" ")
    return (member, call) if member else None


class Listener(tune.Callback):
    """A callback that says which environments do not answer, on the terminal and in the index.

    It looks at packs that were silent for `silent` seconds.
    """

    def __init__(self, log: MemberLog, silent: float = SILENT) -> None:
        self._log, self._silent = log, silent
        self._next = 0.0
        self._heard: dict[str, float] = {}
        self._said: dict[str, str] = {}  # by pack, the call

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state, as of a `MemberLog`."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Hear that a pack has begun."""
        self._heard[trial.config["pack"]["name"]] = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Hear of a pack."""
        self._heard[trial.config["pack"]["name"]] = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look now and then what was left by trials that are silent."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + min(LOOK_EVERY, self._silent)
        for trial in trials:
            pack = trial.config["pack"]["name"]
            begun = trial.status in (Trial.PENDING, Trial.RUNNING)  # pending: perhaps its environments are being made
            silent = begun and now - self._heard.setdefault(pack, now) >= self._silent
            word = word_of(pack) if silent else None
            if word and word[1] != self._said.get(pack):
                self._log.waits(trial, *word)
            elif not word and pack in self._said and begun:
                self._log.goes_on(trial)
            if word:
                self._said[pack] = word[1]
            else:
                self._said.pop(pack, None)


def _name(pack: str) -> bytes:
    return f"dr3_ray waits of {ray.get_runtime_context().get_job_id()} {pack}".encode()
