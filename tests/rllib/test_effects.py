"""What docs/rllib.md says of a setting of RLlib's that works is seen here, where no other test sees it."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.utils.metrics.metrics_logger import DEFAULT_STATS_CLS_LOOKUP
from ray.rllib.utils.metrics.stats import MaxStats

import dr3_ray
from dr3_ray.rllib.settings_table import WORKS, WORKS_IN_EVALUATION
from tests.rllib.conftest import TINY

pytestmark = pytest.mark.usefixtures("local_ray")

GPU_ALONE = {"local_gpu_idx"}  # tests/gpu


def tiny(data: str) -> Any:
    config = dr3_ray.DR3CQLConfig().offline_data(input_=data).training(**TINY).population(updates_per_iteration=20)
    return config.environment("CartPole-v1", env_config={"max_episode_steps": 10})


def test_every_setting_that_works_is_seen_to_work() -> None:
    """By a test that names it."""
    here = Path(__file__)
    tests = "".join(path.read_text() for path in (*here.parent.glob("*.py"), *here.parents[1].glob("gpu/*.py")))
    assert not {name for name in WORKS | WORKS_IN_EVALUATION if name not in tests} - GPU_ALONE


@pytest.mark.slow
def test_what_a_trial_asks_for_is_reserved_for_it(cartpole: str) -> None:
    config = tiny(cartpole).resources(
        num_cpus_for_main_process=3, custom_resources_for_main_process={"rack": 1.0}, placement_strategy="SPREAD"
    )
    config.learners(
        num_learners=1, num_cpus_per_learner=2, num_gpus_per_learner=0, custom_resources_per_learner={"tray": 2}
    )
    config.env_runners(num_cpus_per_env_runner=4, num_gpus_per_env_runner=0.5)
    config.env_runners(custom_resources_per_env_runner={"shelf": 3})
    config.evaluation(evaluation_interval=1, evaluation_num_env_runners=1)
    asked = config.algo_class.default_resource_request(config)
    assert asked.strategy == "SPREAD"
    assert {"CPU": 3.0, "rack": 1.0}.items() <= asked.bundles[0].items()
    assert {"CPU": 4.0, "GPU": 0.5, "shelf": 3.0} in asked.bundles
    assert any({"CPU": 2.0, "tray": 2.0}.items() <= bundle.items() for bundle in asked.bundles)


class Counts(RLlibCallback):
    """How often each is called."""

    calls: Counter[str] = Counter()

    def on_evaluate_start(self, **given: Any) -> None:
        self.calls["on_evaluate_start"] += 1

    def on_evaluate_end(self, *, evaluation_metrics: dict[str, Any], **given: Any) -> None:
        assert evaluation_metrics["env_runners"]["num_episodes"] == 2
        self.calls["on_evaluate_end"] += 1


class ForResults(RLlibCallback):
    def on_train_result(self, *, result: dict[str, Any], **given: Any) -> None:
        result["noted"] = True


def test_callbacks_of_an_algorithm_are_called(cartpole: str, tmp_path: Path) -> None:
    """As functions, and as a list of classes in `callbacks_class`."""
    loaded: list[Any] = []
    config = tiny(cartpole).evaluation(evaluation_interval=1, evaluation_duration=2)
    config.callbacks(callbacks_class=[Counts, ForResults], on_checkpoint_loaded=lambda algorithm, **_: loaded.append(1))
    Counts.calls.clear()
    algorithm = config.build_algo()
    assert algorithm.train()["noted"]
    assert Counts.calls == {"on_evaluate_start": 1, "on_evaluate_end": 1}
    algorithm.save(str(tmp_path / "saved"))
    assert not loaded
    algorithm.restore(str(tmp_path / "saved"))
    assert len(loaded) == 1
    algorithm.stop()


@pytest.mark.parametrize("arrays", [True, False])
def test_episodes_of_callbacks_hold_arrays_or_lists(arrays: bool, cartpole: str) -> None:
    """`episodes_to_numpy`."""
    seen: list[bool] = []
    config = tiny(cartpole).evaluation(evaluation_interval=1, evaluation_duration=2)
    config.env_runners(episodes_to_numpy=arrays)
    config.callbacks(on_sample_end=lambda samples, **_: seen.extend(episode.is_numpy for episode in samples))
    algorithm = config.build_algo()
    algorithm.train()
    algorithm.stop()
    assert seen == [arrays, arrays]


@pytest.mark.slow
def test_a_runner_that_is_lost_comes_back_if_it_is_to(cartpole: str) -> None:
    """`restart_failed_env_runners`, and the limits of it."""
    recreated: list[list[int]] = []
    config = tiny(cartpole).evaluation(
        evaluation_interval=1,
        evaluation_duration=2,
        evaluation_num_env_runners=1,
        evaluation_unhealthy_workers_timeout_s=30.0,
    )
    config.fault_tolerance(
        restart_failed_env_runners=True,
        max_num_env_runner_restarts=5,
        delay_between_env_runner_restarts_s=0.1,
        env_runner_health_probe_timeout_s=30.0,
    )
    config.callbacks(
        on_env_runners_recreated=lambda env_runner_indices, **_: recreated.append(list(env_runner_indices))
    )
    algorithm = config.build_algo()
    before = algorithm.train()["evaluation"]["env_runners"]["num_episodes"]
    (runner,) = algorithm.eval_env_runner_group._worker_manager.actors().values()
    ray.kill(runner, no_restart=False)
    after = [algorithm.train().get("evaluation", {}).get("env_runners", {}).get("num_episodes") for _ in range(3)]
    algorithm.stop()
    assert before == 2 and after[-1] == 2
    assert recreated == [[1]]


@pytest.mark.slow
def test_evaluation_takes_no_results_of_a_runner_that_is_too_slow(cartpole: str) -> None:
    config = tiny(cartpole).evaluation(evaluation_interval=1, evaluation_duration=2, evaluation_num_env_runners=1)
    algorithm = config.evaluation(evaluation_sample_timeout_s=0.0).build_algo()
    assert not algorithm.train().get("evaluation", {}).get("env_runners", {}).get("num_episodes")
    algorithm.stop()


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [True, False])
def test_a_runner_that_stays_away_is_an_error_at_once_or_after_some_evaluations(ignored: bool, cartpole: str) -> None:
    """`ignore_env_runner_failures`."""
    config = tiny(cartpole).evaluation(
        evaluation_interval=1,
        evaluation_duration=2,
        evaluation_num_env_runners=1,
        evaluation_unhealthy_workers_timeout_s=0.1,
        evaluation_error_after_n_consecutive_skips=2,
    )
    config.fault_tolerance(ignore_env_runner_failures=ignored, restart_failed_env_runners=False)
    algorithm = config.build_algo()
    algorithm.train()
    for runner in algorithm.eval_env_runner_group._worker_manager.actors().values():
        ray.kill(runner)
    trained = 0
    with pytest.raises(
        Exception, match="unhealthy for 2 consecutive evaluation iterations" if ignored else "died|dead"
    ):
        for _ in range(6):
            algorithm.train()
            trained += 1
    assert (trained > 0) == ignored
    algorithm.stop()


@pytest.mark.slow
@pytest.mark.parametrize("steps", [20, 200])
def test_a_round_of_auto_has_about_so_many_steps(steps: int, cartpole: str) -> None:
    bounds = {
        "evaluation_auto_duration_min_env_steps_per_sample": steps,
        "evaluation_auto_duration_max_env_steps_per_sample": steps,
    }
    config = tiny(cartpole).evaluation(
        evaluation_interval=1,
        evaluation_duration="auto",
        evaluation_num_env_runners=1,
        evaluation_parallel_to_training=True,
        **bounds,
    )
    config.env_runners(max_requests_in_flight_per_env_runner=1, validate_env_runners_after_construction=True)
    config.callbacks(
        on_sample_end=lambda samples, metrics_logger, **_: metrics_logger.log_value(
            "in_a_round", sum(map(len, samples)), reduce="max"
        )
    )
    algorithm = config.build_algo()
    found = algorithm.train()["evaluation"]["env_runners"]
    algorithm.stop()
    assert steps <= found["in_a_round"] < steps + 20


def test_the_log_and_the_statistics_are_as_in_rllib(cartpole: str) -> None:
    class Largest(MaxStats):
        pass

    lookup = dict(DEFAULT_STATS_CLS_LOOKUP) | {"largest": Largest}

    def note(metrics_logger: Any, **_: Any) -> None:
        for number in (1.0, 3.0, 2.0):
            metrics_logger.log_value("noted", number, reduce="largest")

    level = logging.getLogger("ray.rllib").level
    config = tiny(cartpole).debugging(log_level="ERROR", log_sys_usage=False)
    config.reporting(custom_stats_cls_lookup=lookup).callbacks(on_algorithm_init=note)
    algorithm = config.build_algo()
    assert logging.getLogger("ray.rllib").level == logging.ERROR
    logging.getLogger("ray.rllib").setLevel(level)
    result = algorithm.train()
    assert result["noted"] == 3.0 and "perf" not in result
    algorithm.stop()
    assert tiny(cartpole).debugging(log_sys_usage=True).build_algo().train()["perf"]


def test_rllibs_own_checks_can_be_left_out(cartpole: str) -> None:
    """`_validate_config`."""
    assert tiny(cartpole).experimental(_validate_config=False)._validate_config is False
