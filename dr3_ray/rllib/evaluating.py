"""Evaluation of an offline algorithm, where RLlib 2.60 counts on runners that collect training data."""

import math
import reprlib
import threading
from contextlib import nullcontext
from functools import partial
from statistics import fmean
from typing import Any

from ray.exceptions import RayTaskError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EPISODE_RETURN_MEAN, EVALUATION_RESULTS

from dr3_ray.errors import UserError


class Evaluating(Algorithm):
    """A mixin: all members play, whenever there is an environment."""

    def setup(self, config: AlgorithmConfig) -> None:
        """Build the algorithm."""
        self.weights_are_sent = threading.Event()
        self.weights_are_sent.set()
        super().setup(config)

    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Play with every member; the result holds `env_runners`, and there `members` with the returns of each.

        Raises:
            UserError: there is no environment to play in, or the duration is that of a training iteration.
        """
        played = self.eval_env_runner_group is not None
        if not played and not self.config.custom_evaluation_function:
            raise UserError("there is no environment to play in: .environment(env='CartPole-v1') before build_algo()")
        if self.config.evaluation_duration == "auto" and parallel_train_future is None:
            raise UserError("evaluation_duration = 'auto' is as long as a training iteration: call train(), or set it")
        self.custom_results: dict[str, Any] = {}
        try:
            with nullcontext() if played else NoTrainingRunners(self):
                results: dict[str, Any] = super().evaluate(parallel_train_future)
        except RayTaskError as error:  # of a remote runner; its own text is a page long
            raise error.cause if isinstance(error.cause, UserError) else error from None
        if members := results.get(ENV_RUNNER_RESULTS, {}).get("members"):
            for row in members.values():
                row |= {name: int(row[name]) for name in ("episodes", "no_action", "broken_episodes")}
                row["episode_return_mean"] = float(row.pop("episode_return_sum")) / row["episodes"]
            # RLlib's mean of runners' means is another one where they have played unequally
            means = [mean for row in members.values() if math.isfinite(mean := row["episode_return_mean"])]
            results[ENV_RUNNER_RESULTS][EPISODE_RETURN_MEAN] = fmean(means) if means else math.nan
        return results | self.custom_results

    def _evaluate_with_custom_eval_function(self) -> tuple[dict[str, Any], int, int]:
        answer = self.config.custom_evaluation_function(self, self.eval_env_runner_group)
        if not (isinstance(answer, tuple) and [type(result) for result in answer] == [dict, int, int]):
            raise UserError(
                f"custom_evaluation_function returned {reprlib.repr(answer)}: return its results, a dict, and the "
                "numbers of steps of the environment and of the agent"
            )
        self.custom_results = answer[0]  # which RLlib drops
        return answer

    def _evaluate_with_auto_duration(self, parallel_train_future: Any) -> tuple[None, int, int, list[Any]]:
        """Play rounds of evaluation until the training iteration has ended; RLlib's may return before the first has."""
        config = self.config
        steps = config.evaluation_auto_duration_min_env_steps_per_sample
        restart, played = config.evaluation_force_reset_envs_before_iteration, 0
        rounds: list[Any] = []
        while not rounds or not parallel_train_future.done():
            answers = self.eval_env_runner_group.foreach_env_runner(
                partial(sample_and_measure, steps=steps, restart=restart and not rounds),
                local_env_runner=False,
                timeout_seconds=config.evaluation_sample_timeout_s,
            )
            if not answers:
                break
            played += sum(number for number, _ in answers)
            rounds += [measured for _, measured in answers]
            steps = min(2 * steps, config.evaluation_auto_duration_max_env_steps_per_sample)
        self.metrics.aggregate(rounds, key=(EVALUATION_RESULTS, ENV_RUNNER_RESULTS))
        return None, played, played, []

    # Weights are sent to the runners before training changes them, which a thread of this process does.

    def _run_one_evaluation(self, parallel_train_future: Any = None) -> dict[str, Any]:
        try:
            results: dict[str, Any] = super()._run_one_evaluation(parallel_train_future)
        finally:
            self.weights_are_sent.set()
        return results

    def _run_one_training_iteration_and_evaluation_in_parallel(self) -> Any:
        self.weights_are_sent.clear()
        return super()._run_one_training_iteration_and_evaluation_in_parallel()

    def _maybe_wait_for_eval_env_runner_recovery(self) -> None:
        runners = self.eval_env_runner_group
        before = set(runners.healthy_worker_ids()) if runners else set()
        super()._maybe_wait_for_eval_env_runner_recovery()
        self.weights_are_sent.set()
        if (
            back := sorted(set(runners.healthy_worker_ids()) - before) if runners else []
        ):  # RLlib does not tell of these
            self._make_on_env_runners_recreated_callbacks(
                config=self.evaluation_config, env_runner_group=runners, restored_env_runner_indices=back
            )

    @classmethod
    def _should_create_evaluation_env_runners(cls, eval_config: AlgorithmConfig) -> bool:
        return eval_config.env is not None  # so that `evaluate` can be called without settings of evaluation

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Bring back lost evaluation runners, which RLlib does not do for offline algorithms; return their numbers."""
        if env_runner_group is not self.eval_env_runner_group or not env_runner_group:
            return []
        return list(env_runner_group.probe_unhealthy_env_runners())  # they get their weights when they play


def sample_and_measure(runner: Any, steps: int, restart: bool) -> tuple[int, Any]:
    """Return the number of steps that a runner has played, and its metrics."""
    episodes = runner.sample(num_timesteps=steps, force_reset=restart)
    return sum(episode.env_steps() for episode in episodes), runner.get_metrics()


class NoTrainingRunners:
    """A stand-in for the missing group of training runners while RLlib restores or evaluates."""

    local_env_runner = None

    def __init__(self, algorithm: Algorithm):
        self.algorithm = algorithm

    def __enter__(self) -> None:
        self.before = self.algorithm.env_runner_group
        self.algorithm.env_runner_group = self

    def __exit__(self, *_: object) -> None:
        self.algorithm.env_runner_group = self.before

    def sync_weights(self, **kwargs: Any) -> None:
        """Do nothing: there is nothing to synchronise."""

    def sync_env_runner_states(self, **kwargs: Any) -> None:
        """Do nothing: there is nothing to synchronise."""

    def num_remote_env_runners(self) -> int:
        """Return 0."""
        return 0
