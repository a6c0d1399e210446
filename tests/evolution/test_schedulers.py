"""What PB2 learns from, and what it does with it: on made-up scores, by Tune."""

import math
import random
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune import Checkpoint
from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator

from dr3_ray.errors import UserError
from dr3_ray.evolution.evolution import Evolution, Schedule, check_bounds, evolve
from dr3_ray.evolution.schedule import entries
from dr3_ray.evolution.schedulers import (
    LOST,
    check_scheduler,
    distribution,
    gains,
    inside,
    scale,
    scheduler_of,
    score_of,
)
from dr3_ray.sweep.spec.spec import SweepSpec

BOUNDS = {"dr3_coeff": (1e-3, 1.0), "tau": (0.0, 1.0)}
INTERVALS = 5


def entry(member: str, step: int, score: float, numbers: tuple[float, float], copied_from: str = "") -> dict[str, Any]:
    measured = {"episode_return_mean": score, "diverged": score == LOST}
    named = dict(zip(BOUNDS, numbers, strict=True))
    return {"member": member, "step": step, "measured": measured, "numbers": named, "copied_from": copied_from}


def test_a_gain_is_measured_from_the_score_of_the_weights_that_an_interval_began_with():
    old, new, other = (0.1, 0.5), (0.01, 1.0), (1.0, 0.0)
    known = [
        *(entry("a", 5, 10.0, old), entry("b", 5, 30.0, other), entry("c", 5, 20.0, other)),
        *(entry("a", 10, 33.0, new, copied_from="b"), entry("b", 10, 29.0, other), entry("c", 10, LOST, other)),
        *(entry("a", 15, 34.0, new), entry("b", 15, 40.0, other), entry("c", 15, 21.0, other)),
    ]
    drawn_new, drawn_other = [pytest.approx(math.log(0.01)), 1.0], [0.0, 0.0]
    assert gains(reversed(known), BOUNDS) == [
        ("a", [10.0, 30.0, *drawn_new, 3.0]),  # from the weights of b
        ("b", [10.0, 30.0, *drawn_other, -1.0]),
        ("c", [10.0, 20.0, *drawn_other, -10.0]),  # diverged: down to the worst, which is 10
        ("a", [15.0, 33.0, *drawn_new, 1.0]),
        ("b", [15.0, 29.0, *drawn_other, 11.0]),  # and what c did with its lost weights is not known
    ]
    assert gains([entry("a", 5, LOST, old), entry("a", 10, LOST, old)], BOUNDS) == []


def from_the_top(dr3_coeff: float) -> float:
    """Powers of ten."""
    return abs(math.log10(dr3_coeff / 0.1))


class Hill(tune.Trainable):
    """A member whose score grows by up to 10 an interval, most where dr3_coeff is 0.1; it diverges beyond 0.7."""

    def setup(self, config: dict[str, Any]) -> None:
        self.score = 0.0
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        assert new_config["empty"] == {}  # what Tune's own PB2 drops
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        c0 = self.config["dr3_coeff"]
        self.score += 10 - 5 * from_the_top(c0) ** 2
        if c0 > 0.7:
            self.score = math.nan
        measured = {"episode_return_mean": self.score, "diverged": math.isnan(self.score)}
        numbers = {name: self.config[name] for name in BOUNDS}
        result = {"members": {"000": measured}, "numbers": numbers, "copied_from": ""}
        return result | {"score": score_of(measured), "num_updates": 5 * (self.iteration + 1)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "score").write_text(str(self.score))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self.score = float((Path(checkpoint_dir) / "score").read_text())


@pytest.mark.slow
def test_pb2_chooses_numbers_near_those_that_gained_most():
    """Of 24 gains with noise; half of the numbers drawn by chance would lie further than 0.75 from the top."""
    scheduler, found = scheduler_of("pb2", BOUNDS), []
    for seed in range(9):
        np.random.seed(seed)
        draw = np.random.default_rng(seed)
        powers, noise = draw.uniform(-3, 0, 24), draw.normal(size=(24, 2))
        learned = [
            [5.0 * (2 + place // 4), 10 + before, math.log(10**power), draw.random(), 10 - 5 * (power + 1) ** 2 + after]
            for place, (power, (before, after)) in enumerate(zip(powers, noise, strict=True))
        ]
        found.append(from_the_top(math.exp(scheduler._most_promising(learned, [], learned[-1])[0])))
    assert np.median(found) < 0.5


def test_pb2_tries_other_numbers_within_bounds_where_nothing_differs():
    np.random.seed(0)
    learned = [[5.0 * (2 + place // 4), 10.0, math.log(0.1), 0.5, 0.0] for place in range(12)]
    c0, tau = scheduler_of("pb2", BOUNDS)._most_promising(learned, [], learned[-1])
    assert 1e-3 <= math.exp(c0) <= 1.0 and 0.0 <= tau <= 1.0
    assert (c0, tau) != (math.log(0.1), 0.5)


@pytest.mark.slow
def test_pb2_tries_other_numbers_within_bounds_and_ends(cluster, tmp_path):
    random.seed(0), np.random.seed(0)
    starts = [0.002, 0.005, 0.6, 0.9]
    path = tmp_path / "schedule.jsonl"
    space = {"dr3_coeff": tune.grid_search(starts), "tau": 0.5, "empty": {}}
    results = tune.Tuner(
        tune.with_resources(Hill, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(scheduler=scheduler_of("pb2", BOUNDS), reuse_actors=True),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(tmp_path),
            stop={"training_iteration": INTERVALS},
            callbacks=[Schedule()],
            verbose=0,
        ),
    ).fit()
    assert not results.errors, results.errors[0]
    rows = list(entries(path))
    assert len(rows) == 4 * INTERVALS
    tried = [row["numbers"]["dr3_coeff"] for row in rows]
    assert all(low <= row["numbers"][name] <= high for row in rows for name, (low, high) in BOUNDS.items())
    assert len(set(tried)) > len(set(starts))


@pytest.mark.parametrize("name", ["pbt", "pb2"])
def test_a_snapshot_has_a_copys_numbers_with_the_weights_of_its_model(name, tmp_path):
    """Taken between the copy and the next interval, of which a run goes on that is killed then."""
    storage = StorageContext(str(tmp_path), "trials")
    scheduler, trials = scheduler_of(name, BOUNDS), []
    for number, c0 in enumerate((0.1, 0.5)):
        trial = Trial("Hill", stub=True, config={"dr3_coeff": c0, "tau": 0.5}, trial_id=str(number), storage=storage)
        saved = _TrainingResult(Checkpoint(str(tmp_path / f"of-{number}")), {"num_updates": 5})
        trial.run_metadata.checkpoint_manager._latest_checkpoint_result = saved
        trial.create_placement_group_factory(), trial.set_status(Trial.PAUSED)
        scheduler.on_trial_add(SimpleNamespace(search_alg=BasicVariantGenerator()), trial)
        state = scheduler._trial_state[trial]
        state.last_score, state.last_result, state.last_checkpoint = 1.0 - number, saved.metrics, saved.checkpoint
        trials.append(trial)
    model, copy = trials
    before = Trial.from_json_state(copy.get_json_state()[0], stub=True).config
    scheduler._exploit(None, copy, model)
    config, metadata = copy.get_json_state()
    restored = Trial.from_json_state(config, stub=True)
    restored.run_metadata = type(copy.run_metadata).from_json_state(metadata)
    assert restored.config != before
    assert restored.checkpoint.path == str(tmp_path / "of-0")


def test_pb2_without_its_package_is_told_in_one_line(monkeypatch):
    check_scheduler("pb2")
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as `import sklearn` finds it where it is not installed
    check_scheduler("pbt")
    with pytest.raises(UserError, match=r"PB2 needs scikit-learn: pip install 'dr3-ray\[pb2\]', or use pbt"):
        check_scheduler("pb2")


NUMBERS = st.floats() | st.integers() | st.sampled_from([10**400, 5e-324, 1e308, 0.0, -0.0])


@settings(deadline=None)
@given(st.sampled_from(["dr3_coeff", "critic_lr", "gamma"]), NUMBERS, NUMBERS)
def test_bounds_are_of_numbers_that_the_algorithm_takes_or_one_line(name, low, high):
    try:
        check_bounds("DR3-CQL", {name: (low, high)})
    except UserError as error:
        assert "\n" not in str(error) and name in str(error) and len(str(error)) < 200
        return
    assert low < high and low >= 0 and math.isfinite(high)
    assert all(math.isfinite(scale(each, (low, high))) for each in (low, high))
    drawn = distribution(low, high).sample()
    assert low <= inside(drawn, (low, high)) <= high


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_a_seed_that_no_generator_takes_is_one_line(cartpole, tmp_path, seed):
    spec = SweepSpec(datasets=[cartpole], coefficients=[0.1], seeds=4, steps=4, evaluations=2, out=tmp_path / "run")
    with pytest.raises(UserError, match=rf"^seed {seed} of what the scheduler draws: give one from 0 to 4294967295$"):
        evolve(Evolution(spec, {"dr3_coeff": (0.1, 0.2)}, seed))
    assert not (tmp_path / "run").exists()


def test_a_number_that_is_to_change_twice_is_one_line(capsys, monkeypatch):
    script = str(Path(__file__).parents[2] / "sweeps" / "population_based.py")
    monkeypatch.setattr("sys.argv", [script, "--change", "critic_lr=1,2", "--change", "critic_lr=3,4"])
    with pytest.raises(SystemExit):
        runpy.run_path(script, run_name="__main__")
    assert capsys.readouterr().err == "error: --change critic_lr is given twice: leave out one of them\n"
