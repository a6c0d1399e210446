"""Halving where every member is a trial of its own: Tune's ASHA (Li et al., arXiv 1810.05934)."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from dr3_ray.sweep.halving import Race


class Races(FIFOScheduler):
    """One race for every algorithm on every data set: returns on different ones are not compared.

    It is asynchronous: who is stopped depends on who came first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._races: dict[tuple[str, str], ASHAScheduler] = {}

    def race_of(self, trial: Trial) -> ASHAScheduler:
        """The race that a trial takes part in."""
        (member,) = trial.config["pack"]["members"]
        name = member["algorithm"], member["data_fingerprint"]
        if name not in self._races:
            race = Race.of(member)
            assert race is not None
            self._races[name] = ASHAScheduler(
                time_attr="evaluations", metric="score", mode="max", max_t=member["evaluations"],
                grace_period=race.first, reduction_factor=race.factor,
            )  # fmt: skip
        return self._races[name]

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """It joins its race."""
        self.race_of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether it goes on."""
        return str(self.race_of(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """It has come to its end."""
        self.race_of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """It will not come to its end."""
        self.race_of(trial).on_trial_remove(tune_controller, trial)
