"""Races by ASHA: who is stopped is the same, however often the sweep is interrupted."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.experiment import Trial

from dr3_ray.errors import UserError
from dr3_ray.runs.histories import HISTORIES, Histories
from dr3_ray.runs.identity import member_id
from dr3_ray.runs.index import Index
from dr3_ray.sweep.spec.names import option_types
from dr3_ray.sweep.trials.asha import Races

EVALUATIONS = 9
COLUMNS = ("algorithm", "dataset", "seed")


def config(seed: int) -> dict[str, Any]:
    """A member that races; two of three are on one data set."""
    race = {"factor": 3, "first": 1, "objective": {"metric": "td_error"}}
    data = {"dataset": f"data-{seed % 3 > 0}", "data_fingerprint": f"{seed % 3 > 0}"}
    return {"algorithm": "DR3-CQL", **data, "seed": seed, "evaluations": EVALUATIONS, "halving": race}


class Sweep:
    """Members that Races stops, with the files that a sweep writes of them."""

    def __init__(self, run: Path, scores: list[list[float]], ends: list[int]) -> None:
        """`ends` are the evaluations at which members diverge; after the last they do not."""
        self.run, self.scores, self.ends = run, scores, ends
        self.configs = {member_id(config(seed)): config(seed) for seed in range(len(scores))}
        self.reached = dict.fromkeys(self.configs, 0)
        self.status = dict.fromkeys(self.configs, "pending")
        self.start()

    def start(self) -> None:
        """Begin, or go on from what was written."""
        self.races = Races.of(self.run) if any(self.reached.values()) else Races()
        self.trials = {}
        for member in self.reached:
            if self.status[member] == "pending":
                trial = Trial("none", config={"pack": {"members": [self.configs[member]]}}, stub=True)
                self.races.on_trial_add(None, trial)
                self.trials[member] = trial
        self.earlier = {
            member: [self.result(member, n) for n in range(1, self.reached[member] + 1)] for member in self.trials
        }

    def result(self, member: str, number: int) -> dict[str, Any]:
        seed = self.configs[member]["seed"]
        row = {"td_error": self.scores[seed][number - 1], "diverged": number >= self.ends[seed]}
        return {"members": [row], "evaluations": number, "earlier": []}

    def step(self, member: str) -> None:
        """One evaluation, and what follows from it; nothing once the member has ended."""
        if self.status[member] != "pending":
            return
        self.reached[member] += 1
        result = self.result(member, self.reached[member])
        result["earlier"], self.earlier[member] = self.earlier[member], []
        decision = self.races.on_trial_result(None, self.trials[member], result)
        if result["members"][0]["diverged"]:
            self.status[member] = "diverged"
        elif decision == "STOP":
            self.status[member] = "finished" if self.reached[member] == EVALUATIONS else "cut"
        if self.status[member] != "pending":
            self.races.on_trial_complete(None, self.trials[member], result)

    def write(self) -> None:
        """As the driver leaves it when it is interrupted."""
        histories = Histories(self.run, self.configs, COLUMNS, option_types())
        for member, reached in self.reached.items():
            for number in range(1, reached + 1):
                histories.add(member, number, {"td_error": self.result(member, number)["members"][0]["td_error"]})
        histories.flush()
        with Index(self.run) as index:
            for member, status in self.status.items():
                index.write([member], status, configs=self.configs, end=self.reached[member])


def outcome(scores: list[list[float]], ends: list[int], order: list[int], cuts: set[int]) -> dict[str, tuple[str, int]]:
    """What becomes of each member when evaluations come in `order`, and the sweep is interrupted before some."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(Path(folder), scores, ends)
        members = list(sweep.configs)
        for number, seed in enumerate(order):
            if number in cuts:
                sweep.write(), sweep.start()
            sweep.step(members[seed])
        return {member: (sweep.status[member], sweep.reached[member]) for member in members}


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seeds=st.integers(3, 8))
def test_an_interrupted_race_ends_as_an_undisturbed_one(data: st.DataObject, seeds: int) -> None:
    score = st.lists(st.floats(0, 1), min_size=EVALUATIONS, max_size=EVALUATIONS)
    scores = data.draw(st.lists(score, min_size=seeds, max_size=seeds))
    ends = data.draw(st.lists(st.integers(1, 3 * EVALUATIONS), min_size=seeds, max_size=seeds))
    order = data.draw(st.permutations([seed for seed in range(seeds) for _ in range(EVALUATIONS)]))
    cuts = data.draw(st.sets(st.integers(0, len(order) - 1), max_size=3))
    assert outcome(scores, ends, order, cuts) == outcome(scores, ends, order, set())


def test_the_worse_are_stopped_by_those_of_an_earlier_start(tmp_path: Path) -> None:
    """Alone, the last one would win at its first rung."""
    scores = [[value] * EVALUATIONS for value in (0.1, 0.5, 0.2, 0.6, 0.4, 0.3, 0.7, 0.9)]
    order = [seed for seed in range(7) for _ in range(EVALUATIONS)]
    found = outcome(scores, [99] * 8, [*order, 7], {len(order)})
    assert list(found.values())[7] == ("cut", 1)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"no parquet")])
def test_rows_that_are_lost_are_told(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    sweep = Sweep(tmp_path, [[0.0] * EVALUATIONS] * 3, [1, 1, 1])
    sweep.step(next(iter(sweep.configs)))
    sweep.write()
    damage(tmp_path / HISTORIES)
    with pytest.raises(UserError, match=r"histories.parquet is (missing|damaged)"):
        Races.of(tmp_path)
