"""Halving where every member is a trial of its own: Tune's ASHA (Li et al., arXiv 1810.05934)."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from dr3_ray.runs.histories import histories_of
from dr3_ray.runs.identity import member_id
from dr3_ray.runs.index import FINAL, read_index
from dr3_ray.sweep.spec.halving import Race
from dr3_ray.sweep.spec.spec import Config


class Entrant(NamedTuple):
    """A member as ASHA sees it, whichever trial trains it."""

    trial_id: str


class Races(FIFOScheduler):
    """A Tune scheduler with one race for every algorithm on every data set: their returns are not comparable.

    It is asynchronous: who is stopped depends on who came first. A member keeps its place when the sweep goes on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._races: dict[tuple[str, str], Any] = {}

    @classmethod
    def of(cls, run: Path) -> Self:
        """Return the races of a run directory, with all earlier measurements.

        Raises:
            UserError: members have ended, and their rows are damaged or lost.
        """
        races, records = cls(), {record["member"]: record for record in read_index(run)}
        metrics = {race.objective.metric for record in records.values() if (race := Race.of(record["config"]))}
        ended = any(record["status"] in FINAL for record in records.values())
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in histories_of(run, {"member", "step", *metrics}, ended).sort_by("step").to_pylist():
            rows.setdefault(row["member"], []).append(row | {"diverged": False})
        for member, measured in rows.items():
            measured[-1]["diverged"] = records[member]["status"] == "diverged"
            races._take_up(records[member]["config"], measured)
        return races

    def _take_up(self, member: Config, measured: Iterable[Mapping[str, Any]]) -> None:
        asha, entrant = self.race_of(member), Entrant(member_id(member))
        asha.on_trial_add(None, entrant)
        for number, row in enumerate(measured, 1):
            asha.on_trial_result(None, entrant, _told(member, number, row))
        asha.on_trial_remove(None, entrant)

    def race_of(self, member: Config) -> Any:
        """Return the race that a member takes part in."""
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
        """Add its member to its race."""
        member = _member(trial)
        self.race_of(member).on_trial_add(tune_controller, Entrant(member_id(member)))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Return whether a trial goes on; a measurement from before an interruption no longer stops it."""
        member = _member(trial)
        asha, entrant = self.race_of(member), Entrant(member_id(member))
        for number, earlier in enumerate(result["earlier"], 1):
            asha.on_trial_result(tune_controller, entrant, _told(member, number, earlier["members"][0]))
        told = _told(member, result["evaluations"], result["members"][0])
        return str(asha.on_trial_result(tune_controller, entrant, told))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Take its member out of its race; the rungs have it already, from its results."""
        self.on_trial_remove(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Take its member out of its race; the rungs keep it."""
        member = _member(trial)
        self.race_of(member).on_trial_remove(tune_controller, Entrant(member_id(member)))


def _member(trial: Trial) -> Config:
    (member,) = trial.config["pack"]["members"]
    return dict(member)


def _told(member: Config, number: int, measured: Mapping[str, Any]) -> dict[str, float]:
    """Return an evaluation for ASHA: its number, and a score where more is better; no score after divergence."""
    race = Race.of(member)
    assert race is not None
    score = {} if measured["diverged"] else {"score": race.objective.better(measured[race.objective.metric])}
    return {"evaluations": number} | score
