"""Sweeps for real: Tune, RLlib, worker processes, rollouts and failures. What they survive: test_survival.py."""

import json
import shutil
import threading
import time
from pathlib import Path

import gymnasium as gym
import pytest
import ray
from ray.tune.registry import register_env

from dr3_ray.errors import UserError
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.index import INDEX, read_index
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials import callbacks
from tests.sweep.conftest import statuses, steps, wait_for
from tests.sweep.greedy import Greedy

TINY = {"options": {"hidden_sizes": [16, 16]}, "evaluation_episodes": 2, "steps": 40, "evaluations": 2}
TINY |= {"concurrent": 1}  # trials one after another share a process


def test_from_spec_to_histories_and_a_second_run_has_nothing_to_do(cluster, cartpole, pendulum, tmp_path, capfd):
    """Two data sets, discrete and continuous; half of the members diverge and leave the others of their pack alone."""
    sweep = SweepSpec(
        datasets=[cartpole, pendulum],
        coefficients=[0, 0.03],
        seeds=1,
        axes={"critic_lr": [1e-3, 1e30]},
        out=tmp_path / "run",
        **TINY,
    )
    summary = train_sweep(sweep)
    assert summary.statuses == {"finished": 4, "diverged": 4}
    assert (summary.exit_code, summary.interrupted) == (0, False)
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err
    planned = members(sweep)
    for record in read_index(sweep.out):
        config = record["config"]
        assert config == planned[record["member"]]
        assert record["status"] == ("finished" if config["critic_lr"] < 1 else "diverged")
        assert record["error"] in (None, "its policy gave NaN or infinity for an action at update 20")
        assert record["error"] is None or record["status"] == "diverged"
    table = read_histories(sweep.out).to_pandas()
    assert list(table.columns[:6]) == ["member", "algorithm", "dataset", "seed", "dr3_coeff", "critic_lr"]
    finished = table[table["critic_lr"] < 1]
    assert len(finished) == 8
    assert finished.groupby("member")["step"].apply(list).tolist() == [[20, 40]] * 4
    measured = ["episode_return_mean", "dot_product", "effective_rank", "q_mean", "td_error", "loss_critic", "loss_dr3"]
    assert finished[measured].notna().all().all()
    assert (finished["episodes"] == 2).all()
    assert (finished["updates_per_second"] > 0).all()
    assert (table[table["critic_lr"] > 1].groupby("member").size() == 1).all()

    before = (sweep.out / INDEX).read_bytes(), (sweep.out / "histories.parquet").read_bytes()
    started = time.process_time()
    assert train_sweep(sweep) == summary
    assert time.process_time() - started < 5
    assert ((sweep.out / INDEX).read_bytes(), (sweep.out / "histories.parquet").read_bytes()) == before


@pytest.mark.slow
def test_what_failed_is_redone_and_the_rest_goes_on(cluster, cartpole, collected, tmp_path, capfd):
    """A shard disappears while the sweep runs, before the trial that needs it opens it."""
    fragile = Path(collected(tmp_path / "fragile", "CartPole-v1", episodes=3))
    shard, hidden = fragile / "shard-00000.arrow", tmp_path / "hidden"
    sweep = SweepSpec(
        datasets=[cartpole, str(fragile)],
        seeds=2,
        coefficients=[0.1],
        retries=0,
        out=tmp_path / "run",
        **TINY,
    )

    def vandal() -> None:
        wait_for(lambda: sweep.out.exists() and statuses(sweep.out)["running"])
        shard.rename(hidden)

    thread = threading.Thread(target=vandal)
    thread.start()
    summary = train_sweep(sweep)
    thread.join()
    assert summary.statuses == {"finished": 2, "failed": 2}
    assert summary.exit_code == 1
    errors = {record["error"] for record in read_index(sweep.out)}
    assert None in errors
    (error,) = errors - {None}
    assert "shard-00000.arrow is missing" in error
    shown = capfd.readouterr()
    assert shown.err.count(error) == 1
    assert "Traceback" not in shown.out + shown.err

    hidden.rename(shard)
    finished = {record["member"] for record in read_index(sweep.out) if record["status"] == "finished"}
    lines = len((sweep.out / INDEX).read_text().splitlines())
    assert train_sweep(sweep).statuses == {"finished": 4}
    later = [json.loads(line)["member"] for line in (sweep.out / INDEX).read_text().splitlines()[lines:]]
    assert not finished & set(later)
    assert steps(sweep.out) == {member: [20, 40] for member in members(sweep)}


@pytest.mark.slow
def test_a_trial_in_which_python_gets_no_memory_fails_and_the_others_go_on(cluster, cartpole, tmp_path):
    gym.register("Greedy-v0", Greedy)
    greedy = shutil.copytree(cartpole, tmp_path / "greedy")
    manifest = greedy / "manifest.json"
    manifest.write_text(manifest.read_text().replace("CartPole-v1", "Greedy-v0"))
    once = {"coefficients": [0], "seeds": 2, "retries": 0, "out": tmp_path / "run"}
    summary = train_sweep(SweepSpec(datasets=[cartpole, str(greedy)], **once, **TINY))
    assert summary.statuses == {"finished": 2, "failed": 2}
    errors = {record["config"]["dataset"]: record["error"] for record in read_index(tmp_path / "run")}
    assert errors == {cartpole: None, str(greedy): "MemoryError"}


def test_an_environment_that_this_script_registers_with_ray_is_played(cluster, cartpole, tmp_path):
    register_env("of-this-script", lambda config: gym.make("CartPole-v1", **config))
    sweep = {"datasets": [cartpole], "coefficients": [0], "seeds": 1, "environment": "of-this-script"}
    assert train_sweep(SweepSpec(out=tmp_path / "run", **sweep, **TINY)).statuses == {"finished": 1}
    returns = read_histories(tmp_path / "run", ["episode_return_mean"])["episode_return_mean"].to_pylist()
    assert len(returns) == 2 and min(returns) > 0
    register_env("of-this-script", lambda config: config.missing)
    with pytest.raises(UserError, match="environment 'of-this-script' cannot be made: AttributeError"):
        train_sweep(SweepSpec(out=tmp_path / "other", **sweep, **TINY))


@pytest.mark.slow
def test_a_sweep_that_finds_no_room_says_so_and_begins_when_there_is(cluster, cartpole, tmp_path, capfd, monkeypatch):
    """Others hold all CPUs."""
    monkeypatch.setattr(callbacks, "SILENT", 0.5)
    monkeypatch.setattr(callbacks, "WATCH_EVERY", 0.1)
    cpus = int(ray.cluster_resources()["CPU"])
    held = ray.util.placement_group([{"CPU": cpus}])
    ray.get(held.ready())
    hasty = SweepSpec(datasets=[cartpole], coefficients=[0.1], seeds=1, patience=0.02, out=tmp_path / "run", **TINY)
    with pytest.raises(UserError, match=r"nothing was trained for 0.02 minutes, because no trial got 1 CPUs and 0 GPU"):
        train_sweep(hasty)
    assert statuses(hasty.out) == {"pending": 1}
    release = threading.Timer(2.0, lambda: ray.util.remove_placement_group(held))
    release.start()
    assert train_sweep(hasty.model_copy(update={"patience": None})).statuses == {"finished": 1}
    release.join()
    said = "nothing is trained: 1 trials wait for 1 CPUs and 0 GPUs each, or for their processes to start, and 0 CPUs "
    said += "and 0 GPUs of the cluster are free"
    assert said in capfd.readouterr().err
