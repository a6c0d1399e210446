"""One process for many trials: a trial in a used process is the trial in a new one, bit for bit."""

import hashlib
import json
import multiprocessing
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray import tune
from ray.rllib.algorithms.dqn import DQN, DQNConfig
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

import dr3_ray
from dr3_ray.rllib import DQNWithFeatures, Reusable
from dr3_ray.rllib.drop_in import DR3Learner


class ReusableDQN(Reusable, DQN):
    """Stock DQN that may stay in its process."""


class Learner(DR3Learner, DQNTorchLearner):
    """As `with_dr3_learner` makes it, with a name that another process knows."""


def mess() -> None:
    """What a trial may leave behind in its process."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(3)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(99), np.random.seed(99), random.seed(99)
    torch.set_flush_denormal(True)


def ours(data: str, members: list[dict[str, Any]], **options: Any) -> Any:
    tiny = {"hidden_sizes": [16], "batch_size": 8} | options
    config = dr3_ray.DR3CQLConfig().offline_data(input_=data).training(**tiny)
    return config.population(members, updates_per_iteration=10)


def stock(dr3_coeff: float, seed: int, width: int = 8) -> Any:
    return (
        DQNConfig(ReusableDQN)
        .environment("CartPole-v1")
        .env_runners(rollout_fragment_length=8)
        .training(num_steps_sampled_before_learning_starts=20, train_batch_size_per_learner=8)
        .reporting(min_sample_timesteps_per_iteration=60, min_time_s_per_iteration=0)
        .learners(learner_class=Learner, learner_config_dict={"dr3_coeff": dr3_coeff})
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=DQNWithFeatures, model_config={"fcnet_hiddens": [width], "fcnet_activation": "relu"}
            )
        )
        .debugging(seed=seed)
    )


def parameters(algorithm: Any) -> str:
    module = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID]
    digest = hashlib.sha256(b"".join(each.detach().numpy().tobytes() for each in module.state_dict().values()))
    return f"{digest.hexdigest()} {next(module.parameters()).dtype}"


def outcome(algorithm: Any) -> str:
    """Two iterations: every number that was measured of the members, and all parameters."""
    if isinstance(algorithm, DQN):
        return stock_outcome(algorithm)
    measured = [algorithm.train()["members"] for _ in range(2)]
    return json.dumps([measured, parameters(algorithm)], sort_keys=True)


def stock_outcome(algorithm: Any) -> str:
    """First weights, and those after a step on given rows; what DQN replays has no seed."""
    rng = np.random.default_rng(1)
    columns = {name: rng.normal(size=(8, 4)).astype("f4") for name in ("obs", "new_obs")}
    columns |= {"actions": rng.integers(2, size=8), "terminateds": np.zeros(8, bool), "truncateds": np.zeros(8, bool)}
    columns |= {"rewards": np.ones(8, "f4"), "weights": np.ones(8, "f4"), "n_step": np.ones(8, int)}
    before = parameters(algorithm)
    rows = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, 8)
    algorithm.learner_group._learner.update(batch=rows, timesteps={"num_env_steps_sampled_lifetime": 0})
    after = parameters(algorithm)
    assert before != after
    algorithm.train()
    return json.dumps([before, after])


def alone(config: Any) -> str:
    return outcome(config.build_algo())


def one_after_another(configs: list[Any]) -> list[str]:
    algorithm = configs[0].build_algo()
    found = [outcome(algorithm)]
    for config in configs[1:]:
        mess()
        assert algorithm.reset(config.to_dict())
        assert algorithm.iteration == 0
        found.append(outcome(algorithm))
    algorithm.stop()
    return found


def resources_of_fifty_resets(plain: Any, with_rollouts: Any) -> list[tuple[int, int, int, int]]:
    """Every ten: open files, memory maps of data, threads, and MiB in use."""
    algorithm, found = plain.build_algo(), []
    for number in range(1, 51):
        assert algorithm.reset((plain if number % 5 else with_rollouts).to_dict())
        algorithm.train()
        if number % 10 == 0:
            own = Path("/proc/self")
            pages = int((own / "statm").read_text().split()[1])
            maps = sum(".arrow" in line for line in (own / "maps").read_text().splitlines())
            counts = [len(os.listdir(own / "fd")), maps, len(os.listdir(own / "task"))]
            found.append((*counts, pages * os.sysconf("SC_PAGE_SIZE") >> 20))
    return found


def connect(address: str) -> None:
    ray.init(address, log_to_driver=False, logging_level="ERROR")


@pytest.fixture(scope="module")
def new_process(local_ray: None) -> Iterator[ProcessPoolExecutor]:
    """Calls, each in a process of its own, forked from one that has only imported the package."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dr3_ray.rllib", "ray.rllib.algorithms.dqn"])
    address = (ray.get_runtime_context().gcs_address,)
    with ProcessPoolExecutor(1, context, connect, address, max_tasks_per_child=1) as pool:
        yield pool


@pytest.mark.slow
def test_a_trial_in_a_used_process_is_the_trial_in_a_new_one_bit_for_bit(
    cartpole: str, pendulum: str, new_process: ProcessPoolExecutor
) -> None:
    """Other data, actions, networks, options, seeds and numbers of members; each trial leaves a mess."""
    rollouts = {"evaluation_interval": 1, "evaluation_duration": 2}
    plain = ours(cartpole, [{"seed": 3}])
    trials = [
        ours(cartpole, [{"seed": 1}, {"seed": 2, "dr3_coeff": 0.5}])
        .regularization(critic_norm="layer", critic_dropout=0.1, dr3_form="abs")
        .environment("CartPole-v1")
        .evaluation(**rollouts),
        plain,
        ours(pendulum, [{}, {"dr3_coeff": 0.0}, {}], hidden_sizes=[8, 8], normalize_observations=True)
        .debugging(seed=7)
        .environment("gymnasium:Pendulum-v1")
        .evaluation(**rollouts, evaluation_config={"env_config": {"g": 5.0}}),
        plain.copy(copy_frozen=False).population([{"seed": 3, "cql_alpha": 0.9}, {"seed": 4}]),
        plain,
    ]
    used = new_process.submit(one_after_another, trials).result()
    assert used[:4] == [new_process.submit(alone, each).result() for each in trials[:4]]
    assert len(set(used)) == 4 and used[1] == used[4]


@pytest.mark.slow
def test_so_is_a_trial_of_a_stock_algorithm_with_our_learner(new_process: ProcessPoolExecutor) -> None:
    trials = [stock(0.0, seed=5), stock(0.1, seed=6, width=16), stock(0.1, seed=5)]
    used = new_process.submit(one_after_another, trials).result()
    assert used == [new_process.submit(alone, each).result() for each in trials]


@pytest.mark.slow
def test_fifty_resets_leave_no_files_maps_threads_or_memory(cartpole: str, new_process: ProcessPoolExecutor) -> None:
    plain, played = ours(cartpole, [{}]), ours(cartpole, [{}, {}]).environment("CartPole-v1")
    played.evaluation(evaluation_interval=1, evaluation_duration=1)
    found = new_process.submit(resources_of_fifty_resets, plain, played).result()
    # Ray's own pools gain and lose some threads on a busy machine; forty resets that left one each would gain forty
    bounds = {"files": 2, "maps": 2, "threads": 5, "MiB": 20}
    for (name, bound), counts in zip(bounds.items(), zip(*found, strict=True), strict=True):
        assert counts[-1] - counts[0] <= bound, f"{name}: {counts}"


def fails_at_a_coefficient(algorithm: Any, **info: Any) -> None:
    if algorithm.config.members[0]["dr3_coeff"] == 0.1:
        raise RuntimeError("a trial of its own kind")


@pytest.mark.slow
def test_tune_reuses_processes_and_starts_another_after_one_that_fails(
    cartpole: str, local_ray: None, tmp_path: Path
) -> None:
    """Five trials, one at a time, the third of which fails in its process."""
    grid = tune.grid_search([[{"dr3_coeff": c0}] for c0 in (0.0, 0.2, 0.1, 0.3, 0.4)])
    dr3_ray.register_algorithms()
    results = tune.Tuner(
        "DR3-CQL",
        param_space=ours(cartpole, [{}]).callbacks(on_algorithm_init=fails_at_a_coefficient).population(grid),
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), name="run", stop={"training_iteration": 2}, verbose=0, log_to_file=True
        ),
    ).fit()
    assert ["a trial of its own kind" in str(result.error) for result in results] == [False, False, True, False, False]
    finished = [result for result in results if result.error is None]
    assert [result.metrics["members"]["000"]["dr3_coeff"] for result in finished] == [0.0, 0.2, 0.3, 0.4]
    assert [result.metrics["training_iteration"] for result in finished] == [2] * 4
    first, second, *later = [result.metrics["pid"] for result in finished]
    assert first == second and later[0] == later[1]
