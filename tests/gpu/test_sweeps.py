"""Sweeps and RLlib's algorithms on a GPU: `pytest -m gpu` on a machine that has one."""

import os
import time
from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

import dr3_ray
from dr3_ray.runs.directory import read_run
from dr3_ray.sweep.packs.calibration import choices, measure
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.training.execution.cuda_graphs import CudaGraphs
from tests.sweep.conftest import statuses, wait_for
from tests.sweep.disturbed import checkpoints, meanwhile, outcome, raylet_of, sweep, trial_of

pytestmark = pytest.mark.gpu


def population_of(algorithm: Any) -> Any:
    return algorithm.learner_group._learner.population


def parameters(algorithm: Any) -> list[torch.Tensor]:
    module = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID]
    return [each.detach().clone() for each in module.state_dict().values()]


def iql(seeds: int) -> Any:
    config = dr3_ray.DR3IQLConfig().offline_data(input_="embedded:pendulum-replay").environment("Pendulum-v1")
    config.training(hidden_sizes=[32], batch_size=32).learners(num_gpus_per_learner=1)
    config.evaluation(evaluation_interval=1, evaluation_duration=2)
    return config.population([{"seed": seed} for seed in range(seeds)], updates_per_iteration=50)


def test_an_algorithm_trains_on_the_gpu_and_goes_on_from_a_checkpoint_to_the_bit(tmp_path):
    first = iql(3).build_algo()
    first.train()
    assert population_of(first).device.type == "cuda" and population_of(first).graphs
    checkpoint = first.save_to_path(str(tmp_path / "checkpoint"))
    measured = first.train()["members"]
    second = iql(3).build_algo()
    second.restore_from_path(checkpoint)
    assert second.train()["members"] == measured
    assert all(map(torch.equal, parameters(first), parameters(second)))
    assert measured["000"]["episode_return_mean"] < 0
    first.stop(), second.stop()


def test_updates_are_timed_until_the_gpu_has_made_them():
    """They were started in a hundredth of the time."""
    config = iql(3).population([{"seed": seed} for seed in range(64)], updates_per_iteration=1_000)
    algorithm = config.evaluation(evaluation_interval=None).build_algo()
    algorithm.train()
    started = time.perf_counter()
    rate = algorithm.train()["updates_per_second"]
    assert 1.0 <= rate * (time.perf_counter() - started) / 64_000 < 2.0
    algorithm.stop()


def test_trials_in_a_used_process_leave_no_memory_of_the_gpu_behind():
    algorithm, reserved = iql(3).build_algo(), []
    for _ in range(4):
        algorithm.train()
        algorithm.reset_config(iql(3).to_dict())
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[1:] == [reserved[1]] * 3
    algorithm.stop()


def test_what_is_measured_for_a_plan_are_replayed_graphs(monkeypatch):
    graphs = []
    run = CudaGraphs.__call__
    monkeypatch.setattr(CudaGraphs, "__call__", lambda self, *given: (graphs.append(self), run(self, *given))[1])
    spec = SweepSpec(
        datasets=["embedded:breakout-replay"], seeds=4, coefficients=[0.1], steps=100, evaluations=1, environment="none"
    )
    cost = measure(list(members(spec).values()), cpus=1, gpus=1)
    assert 0 < cost.update < 1 and any(graphs[0]._recorded.values())
    (chosen,) = choices([list(members(spec).values())], cpus=1, gpus=0.5, slots=2)
    assert chosen.size == 4 and 2**20 < chosen.packed.memory < 2**26
    assert chosen.room < 0.25 * torch.cuda.mem_get_info()[1]


def test_a_sweep_shares_the_gpu_between_packs_of_a_size_that_it_chose(cluster, tmp_path, capfd):
    spec = SweepSpec(
        datasets=["embedded:pendulum-replay"],
        algorithms=["DR3-IQL", "DR3-TD3BC"],
        coefficients=[0, 0.1],
        seeds=4,
        steps=400,
        evaluations=2,
        evaluation_episodes=1,
        pack="auto",
        gpus=0.5,
        options={"hidden_sizes": [32]},
        out=tmp_path / "run",
    )
    report = train_sweep(spec)
    assert report.statuses == {"finished": 16}
    assert "pack auto: up to " in capfd.readouterr().err
    assert read_run(spec.out)["pack"]["limit"] == 8  # two at a time have as many


def test_a_sweep_whose_trial_is_killed_on_the_gpu_ends_as_one_left_alone(cluster, tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    train_sweep(sweep(alone, gpus=1))

    def kill() -> None:
        wait_for(lambda: len(checkpoints(killed)) >= 3)
        trial_of(raylet_of(os.getpid())).kill()

    thread = meanwhile(kill)
    train_sweep(sweep(killed, gpus=1, retries=2))
    thread.join()
    assert outcome(killed) == outcome(alone)
    assert statuses(killed) == {"finished": 4}
