"""Populations: a copy has the weights of the best and numbers of its own, and nothing stops them for good."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

import dr3_ray
from dr3_ray.report.evolution import ancestor, draw, read_schedule, schedule_table
from dr3_ray.sweep.evolution import Evolution, Evolving, claim
from dr3_ray.sweep.spec import SweepSpec
from tests.sweep.conftest import wait_for

SCRIPT = Path(__file__).parents[2] / "sweeps" / "population_based.py"
MEMBERS, INTERVALS, STEPS = 4, 4, 20
CHANGE = {"dr3_coeff": (0.01, 0.3), "critic_lr": (1e-4, 1e-2)}


class EvolvingCQL(Evolving, dr3_ray.rllib.DR3CQL):
    """As `evolve` makes it."""


def config(data: str, seed: int, dr3_coeff: float, critic_lr: float) -> Any:
    made = dr3_ray.DR3CQLConfig().offline_data(input_=data).environment("CartPole-v1").evaluation(evaluation_interval=1)
    made.training(hidden_sizes=[8], batch_size=8, critic_lr=critic_lr, target_period=3)
    made.regularization(dr3_coeff=dr3_coeff).population([{"seed": seed}], updates_per_iteration=5)
    made.algo_class = EvolvingCQL
    return made


def arguments(data: str, out: Path, scheduler: str) -> list[str]:
    change = [part for name, (low, high) in CHANGE.items() for part in ("--change", f"{name}={low},{high}")]
    sizes = ["--steps", str(STEPS), "--intervals", str(INTERVALS), "--members", str(MEMBERS), "--episodes", "1"]
    small = ["--set", "hidden_sizes=[8]", "--set", "batch_size=8"]
    rest = ["--scheduler", scheduler, "--cpus", "2", "--out", str(out)]
    return ["--dataset", data, *change, *sizes, *small, *rest]


def in_force(run: Path) -> None:
    """Every result was trained with the coefficient that the schedule says: the loss is c0 times the penalty."""
    for result in map(json.loads, (run / "schedule.jsonl").read_text().splitlines()):
        row, c0 = result["measured"], result["numbers"]["dr3_coeff"]
        assert row["loss_dr3"] == pytest.approx(c0 * row["dr3_penalty"], rel=1e-4, abs=1e-7)
        assert CHANGE["dr3_coeff"][0] <= c0 <= CHANGE["dr3_coeff"][1] and row["dr3_coeff"] == c0


def whole(run: Path) -> pd.DataFrame:
    """The schedule, in which every member has every interval once."""
    schedule = read_schedule(run)
    changed = schedule.groupby("member")["dr3_coeff"].diff().fillna(0) != 0
    assert (schedule[changed]["copied_from"] != "").all()  # numbers change with weights
    steps = schedule.groupby("member")["step"].apply(list)
    assert len(steps) == MEMBERS
    assert all(each == [5, 10, 15, 20] for each in steps)
    return schedule


def test_a_copy_has_weights_and_optimiser_of_its_model_and_its_own_numbers(
    cartpole: str, cluster: str, tmp_path: Path
) -> None:
    model, copy = (config(cartpole, 1, 0.01, 1e-3).build_algo(), config(cartpole, 2, 0.2, 1e-2).build_algo())
    model.train(), copy.train()
    model.save_checkpoint(str(tmp_path))
    lineage = tmp_path / "lineage.json"
    lineage.write_text(json.dumps({"member": "member-001"}))  # outside of Tune it has no name
    copy.load_checkpoint(str(tmp_path))
    nets = [each.learner_group._learner.module[DEFAULT_MODULE_ID].state_dict() for each in (model, copy)]
    assert all(torch.equal(one, other) for one, other in zip(*(each.values() for each in nets), strict=True))
    one, other = (each.learner_group._learner.population for each in (model, copy))
    for part in one.parts:
        assert torch.equal(one.parts[part].adam.exp_avg_sq, other.parts[part].adam.exp_avg_sq)
    assert other.parts["critic"].adam._settings[0][0] == 1e-2
    after = copy.train()
    row = after["members"]["000"]
    assert after["copied_from"] == "member-001" and after["numbers"]["dr3_coeff"] == 0.2
    assert row["loss_dr3"] == pytest.approx(0.2 * row["dr3_penalty"], rel=1e-5)
    assert copy.train()["copied_from"] == ""
    model.stop(), copy.stop()


@pytest.mark.parametrize("scheduler", ["pbt", "pb2"])
def test_a_population_goes_on_after_sigterm_and_kill_9(
    cartpole: str, cluster: str, tmp_path: Path, scheduler: str
) -> None:
    """Started three times by the same command: ended by SIGTERM, by kill -9, and not at all."""
    out = tmp_path / "run"
    environment = os.environ | {"RAY_ADDRESS": cluster}
    command = [sys.executable, str(SCRIPT), *arguments(cartpole, out, scheduler)]

    def stopped_by(number: int, least: int) -> int:
        """Start it, wait for so many rows of the schedule, send the signal; the exit code."""
        driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        rows = out / "schedule.jsonl"
        wait_for(lambda: rows.exists() and len(rows.read_text().splitlines()) >= least)
        driver.send_signal(number)
        said = driver.communicate(timeout=90)[0]
        assert "Traceback" not in said
        return driver.returncode

    assert stopped_by(signal.SIGTERM, least=2) == 130
    assert stopped_by(signal.SIGKILL, least=7) == -signal.SIGKILL
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "4 members, 20 updates" in done.stdout
    schedule = whole(out)
    in_force(out)
    copies = schedule[schedule["copied_from"] != ""]
    assert len(copies) and set(copies["copied_from"]) <= set(schedule["member"])
    if scheduler == "pb2":  # a meeting that is repeated after the kill knows already what was learned before it
        model = schedule.set_index(["member", "step"])["dr3_coeff"]
        moved = [row["dr3_coeff"] != model[row["copied_from"], row["step"] - 5] for _, row in copies.iterrows()]
        assert any(moved)
    assert {"schedule.csv", "schedule.parquet", "schedule.png"} <= {path.name for path in out.iterdir()}
    pd.testing.assert_frame_equal(pd.read_parquet(out / "schedule.parquet"), schedule)


def test_a_directory_of_other_options_or_in_use_is_refused(cartpole: str, tmp_path: Path) -> None:
    spec = SweepSpec(datasets=[cartpole], seeds=4, steps=20, evaluations=4, out=tmp_path)
    asked = Evolution(spec, {"dr3_coeff": (0.01, 0.1)}, seed=0)
    claim(tmp_path, asked).close()
    longer = asked._replace(spec=spec.model_copy(update={"steps": 40}))
    with pytest.raises(dr3_ray.UserError, match=r"was begun with other options \(steps 20 then, 40 now\)"):
        claim(tmp_path, longer)
    with claim(tmp_path, asked), pytest.raises(dr3_ray.UserError, match="a population is being trained in"):
        claim(tmp_path, asked)
    (tmp_path / "evolution.json").rename(tmp_path / "other.json")
    with pytest.raises(dr3_ray.UserError, match="exists and is not a population's"):
        claim(tmp_path, asked)


def test_the_schedule_says_from_whom_everyone_descends() -> None:
    rows = [("a", 5, ""), ("b", 5, ""), ("c", 5, ""), ("a", 10, "b"), ("b", 10, ""), ("c", 10, "")]
    rows += [("a", 15, ""), ("b", 15, "c"), ("c", 15, "a")]
    columns = {"return": 1.0, "dot_product": 2.0, "dr3_coeff": 0.1}
    schedule = pd.DataFrame([dict(zip(("member", "step", "copied_from"), row, strict=True)) | columns for row in rows])
    assert [ancestor(schedule, member) for member in "abc"] == ["b", "c", "b"]
    assert len(schedule_table(schedule, ["dr3_coeff"]).rows) == 3
    assert len(draw(schedule, ["dr3_coeff"]).axes) == 2
