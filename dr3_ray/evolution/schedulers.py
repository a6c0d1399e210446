"""Tune's schedulers of populations, as members of equal age that may be interrupted need them."""

import copy
import importlib.util
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.schedulers.pb2 import PB2
from ray.tune.utils.util import unflatten_dict

from dr3_ray.compat.ray import most_promising
from dr3_ray.errors import UserError
from dr3_ray.evolution.schedule import checkpoint_in, entry, known, run_of

Bounds = dict[str, tuple[float, float]]
"""The numbers that change, each with the least and the largest value. Above 0 they are drawn by their logarithms."""

SchedulerName = Literal["pbt", "pb2"]
LOST = -1e9  # the score of a member that has diverged: finite, so that schedulers can sort
RECENT = 199  # gains that a model is fitted to: from 200 on Tune fits dozens of models to see how many are worth it


class _InStep:
    """A scheduler whose members meet after each interval, also when an experiment is restored without it.

    Members that had waited for the others wait again, with the score that they had.
    """

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        saved = trial.run_metadata.checkpoint_manager.latest_checkpoint_result
        if saved:  # of another member, which Tune does not look for where the experiment was moved to
            place = checkpoint_in(Path(trial.storage.experiment_fs_path), saved.checkpoint.path)
            saved.checkpoint = tune.Checkpoint(str(place), saved.checkpoint.filesystem)
            trial.run_metadata.invalidate_cache()
        super().on_trial_add(controller, trial)  # type: ignore[misc]
        scheduler: Any = self
        states, result = scheduler._trial_state, trial.last_result or {}
        if reached := result.get("training_iteration", 0):
            state = states[trial]
            state.last_train_time, state.last_score, state.last_result = reached, result["score"], result
            if trial.status == trial.PENDING:  # Tune starts these whatever the scheduler says, and loses their saves
                trial.set_status(trial.PAUSED)
        scheduler._next_perturbation_sync = 1 + min(state.last_train_time for state in states.values())

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pause the member until all have come as far, except for lost ones, for which Tune would wait as well."""
        scheduler: Any = self
        for other, state in scheduler._trial_state.items():
            if other.status == other.ERROR:
                state.last_train_time = scheduler._next_perturbation_sync
        return str(super().on_trial_result(controller, trial, result))  # type: ignore[misc]

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        """Have the others go on if they wait for this member alone, which is lost; they copy nobody then."""
        super().on_trial_error(controller, trial)  # type: ignore[misc]
        scheduler: Any = self
        left = {
            other: state
            for other, state in scheduler._trial_state.items()
            if not (other is trial or other.is_finished())
        }
        reached = min((state.last_train_time for state in left.values()), default=0)
        if reached >= scheduler._next_perturbation_sync:
            scheduler._next_perturbation_sync = 1 + reached

    def _exploit(self, controller: Any, trial: Any, trial_to_clone: Any) -> None:
        super()._exploit(controller, trial, trial_to_clone)  # type: ignore[misc]
        trial.run_metadata.invalidate_cache()  # Tune keeps that of the trial's own weights, but saves its new numbers


class InStepPBT(_InStep, PopulationBasedTraining):
    """PBT (Jaderberg et al., arXiv 1711.09846): a copy's numbers are those of its model, changed by chance."""


class InStepPB2(_InStep, PB2):
    """PB2 (Parker-Holder et al., arXiv 2002.02518): a copy's numbers are those that a Gaussian process expects to gain.

    Kernel, fit and acquisition are Tune's. The model learns from the schedule and is therefore whole after a restore,
    where Tune's PB2 would start with nothing. It sees numbers as they are drawn, by their logarithms, and a member that
    has diverged as the worst that was measured.
    """

    def __init__(self, bounds: Bounds, **common: Any) -> None:
        super().__init__(hyperparam_bounds={name: list(bound) for name, bound in bounds.items()}, **common)
        self._bounds = bounds
        self._latest: dict[tuple[str, int], dict[str, Any]] = {}  # entries, some not yet on disk
        self._chosen: tuple[int, list[list[float]]] = (0, [])  # at a meeting, by its step

    def _save_trial_state(self, state: Any, time: int, result: dict[str, Any], trial: Any) -> Any:
        self._latest[str(trial), result["num_updates"]] = entry(trial, unflatten_dict(result))
        return super(PB2, self)._save_trial_state(state, time, result, trial)  # not what PB2 keeps besides

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the model's config with other numbers; with its own, if its gains are not known.

        Tune's would flatten the whole config and lose what is empty in it.
        """
        before = {(entry["member"], entry["step"]): entry for entry in known(run_of(trial))}
        learned = gains((before | self._latest).values(), self._bounds)
        config = copy.deepcopy(trial_to_clone.config)
        own = [row for member, row in learned if member == str(trial_to_clone)]
        if not own:
            return config, {}
        step = self._trial_state[trial_to_clone].last_result["num_updates"]
        chosen = self._chosen[1] if self._chosen[0] == step else []
        point = self._most_promising([row for _, row in learned[-RECENT:]], chosen, own[-1])
        self._chosen = (step, [*chosen, point])
        for (name, bounds), number in zip(self._bounds.items(), point, strict=True):
            config[name] = inside(math.exp(number) if bounds[0] > 0 else number, bounds)
        return config, {}

    def _most_promising(self, learned: list[list[float]], chosen: list[list[float]], own: list[float]) -> list[float]:
        """Return numbers, as they are drawn, for a copy of the member of row `own`; others get those `chosen`."""
        table, taken = np.array(learned), np.array(chosen) if chosen else None
        scaled = {name: tuple(scale(bound, bounds) for bound in bounds) for name, bounds in self._bounds.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where nothing differs, say, the fit ends at the bounds of its parameters
            point = most_promising(table[:, :-1], table[:, -1], taken, np.array(own[:2]), scaled, num_f=2)
        return [float(number) for number in point]


def gains(schedule: Iterable[dict[str, Any]], bounds: Bounds) -> list[tuple[str, list[float]]]:
    """Return what each interval added to the score of the weights that it began with, oldest first.

    For a member: its step, that score, its numbers as they are drawn, and the gain. Intervals that began with nothing
    or with diverged weights are left out; those that diverged have come to the least score of all.
    """
    ordered = sorted(schedule, key=lambda entry: (entry["step"], entry["member"]))
    steps = sorted({entry["step"] for entry in ordered})
    earlier = dict(zip(steps[1:], steps, strict=False))
    scores = {(entry["member"], entry["step"]): score_of(entry["measured"]) for entry in ordered}
    scores = {at: score for at, score in scores.items() if score != LOST}
    rows = []
    for row in ordered:
        before = scores.get((row["copied_from"] or row["member"], earlier.get(row["step"], 0)))
        if before is not None:
            after = scores.get((row["member"], row["step"]), min(scores.values()))
            numbers = [scale(row["numbers"][name], own) for name, own in bounds.items()]
            rows.append((row["member"], [float(row["step"]), before, *numbers, after - before]))
    return rows


def score_of(measured: dict[str, Any]) -> float:
    """Return the score that members are compared by: the return, or LOST."""
    score = float(measured["episode_return_mean"])
    return score if math.isfinite(score) and not measured["diverged"] else LOST


def scale(number: float, bounds: tuple[float, float]) -> float:
    """Return the number as it is drawn between its bounds."""
    return math.log(number) if bounds[0] > 0 else number


def inside(number: float, bounds: tuple[float, float]) -> float:
    """Return the number, or the bound that it is beyond."""
    return min(max(number, bounds[0]), bounds[1])


def distribution(low: float, high: float) -> Any:
    """Return the distribution of a number's first values."""
    low, high = float(low), float(high)  # numpy takes no logarithm of Python's large whole numbers
    return tune.loguniform(low, high) if low > 0 else tune.uniform(low, high)


def check_scheduler(name: SchedulerName) -> None:
    """Check that the package of a scheduler is installed.

    Raises:
        UserError: it is not.
    """
    if name == "pb2" and importlib.util.find_spec("sklearn") is None:
        raise UserError("PB2 needs scikit-learn: pip install 'dr3-ray[pb2]', or use pbt")


def scheduler_of(name: SchedulerName, bounds: Bounds) -> Any:
    """Return a scheduler that changes these numbers of a population."""
    common: dict[str, Any] = {"time_attr": "training_iteration", "metric": "score", "mode": "max", "synch": True}
    common |= {"perturbation_interval": 1, "log_config": False}
    if name == "pb2":
        return InStepPB2(bounds, **common)

    def within(config: dict[str, Any]) -> dict[str, Any]:
        return config | {name: inside(config[name], bound) for name, bound in bounds.items()}

    mutations = {name: distribution(*bound) for name, bound in bounds.items()}
    return InStepPBT(hyperparam_mutations=mutations, custom_explore_fn=within, **common)
