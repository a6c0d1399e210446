"""Searches for real: Tune, RLlib, packs, Optuna's studies, and a driver that is killed."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from ray.tune.search.optuna import OptunaSearch

from dr3_ray.runs.directory import STUDIES
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.index import INDEX, read_index
from dr3_ray.stats import iqm
from dr3_ray.sweep.directory import open_run
from dr3_ray.sweep.plan import planned_members
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec
from tests.sweep.conftest import statuses, steps, wait_for

pytestmark = pytest.mark.slow

TINY = {
    "options": {"hidden_sizes": [8], "normalize_observations": False}, "evaluation_episodes": 2, "seeds": 2,
    "coefficients": {"log_uniform": [1e-3, 1]},
}  # fmt: skip


def study_of(run) -> optuna.Study:
    (name,) = optuna.get_all_study_names(f"sqlite:///{run / STUDIES}")
    return optuna.load_study(study_name=name, storage=f"sqlite:///{run / STUDIES}")


def told(run, metric: str) -> list[tuple[float, ...]]:
    """The score of every configuration, from the rows of its members."""
    table = read_histories(run).to_pandas()
    last = table[table["step"] == table["step"].max()]
    return sorted(last.groupby(["dr3_coeff", "critic_lr"])[metric].apply(lambda each: float(iqm(each))))


GO_ON = """
import sys
from pathlib import Path
from dr3_ray.sweep.directory import spec_of
from dr3_ray.sweep.run import train_sweep
sys.exit(train_sweep(spec_of(Path(sys.argv[1]))).exit_code)
"""


@pytest.mark.timeout(600)
def test_a_driver_that_is_killed_goes_on_with_its_search(cluster, cartpole, tmp_path):
    """Killed twice, once with a study that has answers: what was asked is trained once, and nothing else is."""
    run = tmp_path / "run"
    spec = SweepSpec(
        datasets=[cartpole], **TINY, steps=100, evaluations=10, environment="none", objective="td_error", pack=2,
        axes={"critic_lr": {"log_uniform": [1e-4, 1e-2]}, "batch_size": [16, 32]}, checkpoint_every=1, out=run,
        search={"trials": 4, "points": [{"dr3_coeff": 0, "batch_size": 16}]},
    )  # fmt: skip
    with open_run(spec, planned_members(spec, print), ["test"]):
        pass

    def go_on(until: Callable[[], Any] | None = None) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", GO_ON, str(run)], start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "RAY_ADDRESS": cluster},
        )  # fmt: skip
        if until:
            wait_for(lambda: until() or process.poll() is not None, seconds=250)
            assert process.poll() is None, process.communicate()
            os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate(timeout=300)
        assert "Traceback" not in out, out
        return process.returncode

    def answers() -> int:
        return sum(trial.state.is_finished() for trial in study_of(run).trials)

    assert go_on(until=lambda: list(run.glob("checkpoints/*/0*"))) == -signal.SIGKILL
    assert statuses(run)["running"]
    asked = [trial.user_attrs["options"] for trial in study_of(run).trials if "options" in trial.user_attrs]
    assert go_on(until=answers) == -signal.SIGKILL
    finished = {record["member"] for record in read_index(run) if record["status"] == "finished"}
    lines = (run / INDEX).read_text().splitlines()
    assert go_on() == 0

    study = study_of(run)
    assert [trial.user_attrs["options"] for trial in study.trials][: len(asked)] == asked
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    assert statuses(run) == {"finished": 8}
    assert set(Counter(record["config"]["critic_lr"] for record in read_index(run)).values()) == {2}
    assert sorted(trial.value for trial in study.trials) == pytest.approx(told(run, "td_error"))
    assert steps(run) == {record["member"]: list(range(10, 101, 10)) for record in read_index(run)}
    later = [json.loads(line)["member"] for line in (run / INDEX).read_text().splitlines()[len(lines) :]]
    assert not finished & set(later)


def test_two_problems_two_objectives_and_members_that_diverge(cluster, cartpole, pendulum, tmp_path, capfd):
    spec = SweepSpec(
        datasets=[cartpole, pendulum], **TINY, steps=20, evaluations=2, concurrent=1, out=tmp_path / "run",
        axes={"critic_lr": [1e-3, 1e30]}, objective=["episode_return_mean", "dot_product"],
        search={"method": "nsga2", "trials": 3, "points": [{"critic_lr": 1e30}, {"critic_lr": 1e-3}]},
    )  # fmt: skip
    summary = train_sweep(spec)
    assert sum(summary.statuses.values()) == 12
    assert summary.statuses["diverged"] >= 4
    assert (summary.exit_code, summary.interrupted) == (0, False)
    names = optuna.get_all_study_names(f"sqlite:///{spec.out / STUDIES}")
    assert [name.partition(" (")[0] for name in sorted(names)] == ["DR3-CQL on cartpole", "DR3-CQL on pendulum"]
    for name in names:
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{spec.out / STUDIES}")
        assert [trial.state.name for trial in study.trials][:2] == ["PRUNED", "COMPLETE"]
        assert len(study.trials[1].values) == 2
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert train_sweep(spec) == summary


def test_any_searcher_of_tune_will_do(cluster, cartpole, tmp_path):
    """Tune's OptunaSearch in memory: two proposals to a pack, each with all seeds."""
    made = []

    def searcher(problem):
        space = {
            "dr3_coeff": FloatDistribution(1e-3, 1, log=True),
            "critic_lr": FloatDistribution(1e-4, 1e-2, log=True),
        }
        made.append(OptunaSearch(space, metric="td_error", mode="min", seed=0))
        return made[0]

    spec = SweepSpec(
        datasets=[cartpole], **TINY, steps=20, evaluations=2, environment="none", objective="td_error",
        axes={"critic_lr": {"log_uniform": [1e-4, 1e-2]}}, search={"trials": 4}, pack=4, concurrent=1,
        out=tmp_path / "run",
    )  # fmt: skip
    assert train_sweep(spec, searcher=searcher).statuses == {"finished": 8}
    (search,) = made
    assert sorted(trial.value for trial in search._ot_study.trials) == pytest.approx(told(spec.out, "td_error"))
    assert {record["pack"].split("-")[2] for record in read_index(spec.out)} == {"4"}
