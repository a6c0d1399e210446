"""Successive halving: who is cut, in which packs, and what is left of that in the files; also after kill -9."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.errors import UserError
from dr3_ray.report import write_report
from dr3_ray.report.reader import read_tables
from dr3_ray.report.tables import summarize
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.identity import configuration, configurations
from dr3_ray.runs.index import read_index
from dr3_ray.runs.status import read_status
from dr3_ray.sweep.directory import open_run
from dr3_ray.sweep.estimate import estimate_sweep, estimate_table
from dr3_ray.sweep.packs.packing import pack_members, structure
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.halving import Halving, Race
from dr3_ray.sweep.spec.objective import Criterion
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from tests.sweep.conftest import statuses, steps, wait_for
from tests.sweep.disturbed import PARAMETERS, checkpoints, raylet_of, results, trial_of
from tests.sweep.trials.test_loggers import tensorboard

pytestmark = pytest.mark.slow


def test_rungs_and_what_they_leave():
    halving = Halving(factor=3, first=2)
    assert halving.rungs(20) == [2, 6, 18]
    assert halving.rungs(18) == [2, 6]
    assert halving.rungs(2) == []
    assert [halving.kept(n) for n in (12, 4, 2, 1)] == [4, 2, 1, 1]
    assert halving.share(12, 20) == pytest.approx((12 * 2 + 4 * 4 + 2 * 12 + 1 * 2) / (12 * 20))


def test_the_best_configurations_stay_and_what_lost_seeds_comes_last():
    race = Race(factor=3, first=1, objective=Criterion(metric="td_error", over_seeds="mean"))
    values = [(5.0, 5.0), (4.0, 4.1), (0.0, None), (3.0, 9.0), (None, None), (float("nan"), 0.0), (1.0, 7.0)]
    places = [[2 * n, 2 * n + 1] for n in range(len(values))]
    flat = [value for pair in values for value in pair]
    measured = {n: {"td_error": value, "diverged": value is None} for n, value in enumerate(flat)}
    assert race.losers(places, measured) == [place for place in range(14) if place not in (2, 3, 12, 13, 0, 1)]
    assert race.losers([[4, 5], [8, 9]], {n: measured[n] for n in (4, 5, 8, 9)}) == [5, 8, 9]
    assert race.losers([[0, 1]], {n: measured[n] for n in (0, 1)}) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"halving": 1}, "halving.factor: it has to be at least 2, not 1"),
        ({"halving": {"facter": 3}}, "unknown key in halving 'facter': did you mean 'factor'?"),
        ({"halving": 3, "evaluations": 2}, "cuts for the first time after 2 evaluations, and there are 2: give it"),
        (
            {"halving": 4, "seeds": 300},
            "packs of 1200 members, and 1000 is the most: use fewer seeds, or pack: 1",
        ),
        ({"halving": 3, "search": {"trials": 5}}, "a search learns from whole runs, and halving cuts them: leave out"),
        ({"halving": 3, "objective": "episode_return_mean"}, "needs rollouts, and DR3-CQL on .* has none"),
    ],
)
def test_mistakes_are_one_line(values: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message) as mistake:
        members(SweepSpec(datasets=["embedded:pendulum-replay"], environment="none", **values))
    assert "\n" not in str(mistake.value)


def test_halving_is_part_of_a_member_only_where_it_is_on():
    asked: dict[str, Any] = {"datasets": ["embedded:breakout-replay"], "environment": "none", "objective": "td_error"}
    plain, halved, other = (
        members(SweepSpec(**asked, **more)) for more in ({}, {"halving": 3}, {"halving": {"factor": 3, "first": 4}})
    )
    assert not any("halving" in config for config in plain.values())
    assert not plain.keys() & halved.keys() and not halved.keys() & other.keys()
    without = [{name: value for name, value in config.items() if name != "halving"} for config in halved.values()]
    assert without == list(plain.values())


halved = st.fixed_dictionaries(
    {
        "algorithm": st.just("DR3-CQL"),
        "batch_size": st.sampled_from([32, 64]),
        "dr3_coeff": st.integers(0, 9),
        "seed": st.integers(0, 3),
        "halving": st.just({"factor": 3, "first": 1, "objective": {}}),
    }
)


@given(configs=st.lists(halved, min_size=1, unique_by=repr), limit=st.integers(2, 20), slots=st.integers(1, 5))
def test_configurations_that_race_are_whole_and_not_alone(configs, limit, slots):
    packs = pack_members({f"{n:04d}": config for n, config in enumerate(configs)}, limit, slots)
    assert sorted(each for pack in packs for each in pack.members) == [f"{n:04d}" for n in range(len(configs))]
    here = Counter(configuration(config) for pack in packs for config in pack.members.values())
    for pack in packs:
        own = list(pack.members.values())
        assert all(Counter(map(configuration, own))[name] == here[name] for name in map(configuration, own))
        kind = {configuration(config) for config in configs if structure(config) == structure(own[0])}
        assert len(configurations(own)) >= min(3, len(kind))


def sweep(run: Path, **more: Any) -> SweepSpec:
    """Six configurations with two seeds; cuts after evaluations 1 and 3 leave two of them, then one."""
    asked = {
        "datasets": ["embedded:pendulum-replay"],
        "coefficients": [0, 0.003, 0.01, 0.03, 0.1, 0.3],
        "seeds": 2,
        "steps": 60,
        "evaluations": 6,
        "environment": "none",
        "objective": "dot_product",
        "halving": {"factor": 3, "first": 1},
        "concurrent": 1,
        "checkpoint_every": 1,
        "options": {"hidden_sizes": [8], "critic_lr": 1e-2},
    }
    return SweepSpec(**asked | {"out": run} | more)


def outcome(run: Path) -> tuple[str, list[str], list[Any]]:
    """The digest of the parameters that are left, all rows but for what they took, and what became of each member."""
    rows = read_histories(run).drop_columns(["time_s", "updates_per_second"]).to_pylist()
    (last,) = checkpoints(run)
    found = json.loads((last / "manifest.json").read_text())[PARAMETERS]
    return found, sorted(map(repr, rows)), [(each["member"], each["status"]) for each in read_index(run)]


def updates_of(run: Path) -> int:
    """How far the last checkpoint is."""
    return max((int(path.name) for path in checkpoints(run)), default=0)


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("halved") / "run"
    summary = train_sweep(sweep(run, log=["tensorboard"]))
    assert summary.statuses == {"finished": 2, "cut": 10} and summary.exit_code == 0
    return run


def test_losers_end_at_their_cut_and_the_best_go_on(undisturbed):
    assert Counter(map(tuple, steps(undisturbed).values())) == {
        (10,): 8,
        (10, 20, 30): 2,
        (10, 20, 30, 40, 50, 60): 2,
    }
    run = read_tables(undisturbed)
    for step, kept in ((10, 2), (30, 1)):
        at = run.histories[run.histories["step"] == step]
        best = at.groupby("dr3_coeff")["dot_product"].mean().nsmallest(kept).index
        left = run.histories[run.histories["step"] > step]["dr3_coeff"].unique()
        assert sorted(left) == sorted(best)
    (last,) = checkpoints(undisturbed)
    cut = [each["cut"] for each in results(last)]
    assert [len(each) for each in cut] == [8, 0, 2, 0, 0, 0]
    for place, row in enumerate(results(last)[3]["members"]):
        assert (row is None) == (place in cut[0] + cut[2])


def test_files_and_reports_say_what_was_cut(undisturbed):
    status = read_status(undisturbed)
    assert status.over and status.counts["cut"] == 10
    folders = undisturbed.glob("logs/tensorboard/*/seed-*")
    logged = [len({step for _, step in tensorboard(folder)}) for folder in folders]
    assert sorted(logged) == [1] * 8 + [3] * 2 + [6] * 2
    summary = summarize(read_tables(undisturbed))
    assert summary["cut"].sum() == 10 and summary["cut_short"].sum() == 5
    assert sorted(summary["step"]) == [10] * 4 + [30, 60]
    page = write_report(undisturbed).page.read_text()
    assert "10 cut" in page and page.count("†</td>") == 5


@pytest.mark.timeout(300)
def test_killed_before_a_cut_and_after_it_it_ends_alike(undisturbed, cluster, tmp_path):
    run = tmp_path / "run"
    asked = sweep(run, retries=1)
    with open_run(asked, members(asked), ["test"]):
        pass
    driver = subprocess.Popen(
        [sys.executable, "-m", "dr3_ray", "sweep", "--resume", str(run)],
        start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": cluster},
    )
    for updates, end in ((20, lambda: trial_of(raylet_of(os.getpid())).kill()), (30, driver.kill)):
        wait_for(lambda reached=updates: updates_of(run) == reached)
        end()
        assert updates_of(run) == updates  # before the cut after update 30, then after it
    driver.wait()
    assert train_sweep(asked).statuses == {"finished": 2, "cut": 10}
    assert outcome(run) == outcome(undisturbed)


def test_alone_in_their_trials_they_race_by_asha(cluster, tmp_path):
    asked = sweep(
        tmp_path / "run", pack=1, concurrent=2, coefficients=[0, 0.01, 0.1, 1], steps=4, evaluations=4,
        halving={"factor": 2, "first": 1},
    )  # fmt: skip
    found = train_sweep(asked).statuses
    assert found["cut"] + found["finished"] == 8 and found["cut"] >= 1 and found["finished"] >= 1
    ends = {member: rows[-1] for member, rows in steps(asked.out).items()}
    for record in read_index(asked.out):
        assert ends[record["member"]] in {"finished": (4,), "cut": (1, 2)}[record["status"]]
        assert record["end"] == ends[record["member"]]
    assert train_sweep(asked).statuses == found  # nothing is left to be done


def test_a_plan_counts_what_is_saved(tmp_path):
    estimate = estimate_sweep(sweep(tmp_path / "run", pack=5), calibrate=False)
    (kind,) = estimate.kinds
    assert [len(pack.members) for pack in kind.packs] == [6, 6]
    assert kind.why == "3 configurations a pack at least, to be halved"
    estimate = estimate_sweep(sweep(tmp_path / "run"), calibrate=False)
    (kind,) = estimate.kinds
    assert [len(pack.members) for pack in kind.packs] == [12]
    said = " ".join(str(line) for line in estimate_table(estimate).renderables[1:])
    assert "Halving by 3 after evaluation 1, 3 saves 64% of 720 updates." in said
    assert "260 updates in all" in said
    assert statuses(tmp_path / "run") == Counter()
