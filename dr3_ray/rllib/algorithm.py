"""The RLlib Algorithm around a population, and the restoring that RLlib 2.60 lacks for offline algorithms."""

from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS, LEARNER_RESULTS
from ray.tune.registry import register_env

from dr3_ray.evaluation.environments import is_ours, make_environment
from dr3_ray.rllib.config import OfflineConfig


class OfflineAlgorithm(Algorithm):
    """One `train()` is `updates_per_iteration` gradient steps of every member, diagnostics, and rollouts if asked for.

    The result holds `members`: {"000": {metric: number}, …}, `num_updates` and `updates_per_second`.
    """

    config_class: type[OfflineConfig]

    @classmethod
    def get_default_config(cls) -> OfflineConfig:
        """The config that names this algorithm."""
        return cls.config_class(cls)

    @staticmethod
    def _get_env_id_and_creator(env_specifier: Any, config: AlgorithmConfig) -> Any:
        if is_ours(env_specifier):
            register_env(env_specifier, lambda _: make_environment(env_specifier))
        return Algorithm._get_env_id_and_creator(env_specifier, config)

    def training_step(self) -> None:
        """Train for one iteration."""
        results = self.learner_group.update(training_data=TrainingData(data_iterators=[None]))
        self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def step(self) -> dict[str, Any]:
        """One iteration; adds what is known of each member under `members`."""
        results = super().step()
        learner = results[LEARNER_RESULTS][DEFAULT_MODULE_ID]
        trained = learner.pop("members")
        played = results.get(EVALUATION_RESULTS, {}).get(ENV_RUNNER_RESULTS, {}).pop("members", {})
        results["num_updates"] = int(learner["num_updates"])
        results["updates_per_second"] = float(learner["updates_per_second"])
        results["members"] = {}
        for key, config in zip(sorted(trained, key=int), self.config.full_members(), strict=True):
            row = {name: float(value) for name, value in trained[key].items()}
            row |= {"diverged": bool(row["diverged"]), "seed": config["seed"]}
            if "dr3_coeff" in config:
                row["dr3_coeff"] = config["dr3_coeff"]
            if key in played:
                episodes = int(played[key]["episodes"])
                row |= {
                    "episode_return_mean": float(played[key]["episode_return_sum"]) / episodes,
                    "episodes": episodes,
                }
            results["members"][key] = row
        return results

    # RLlib 2.60 restores every algorithm as if it had runners that collect training data; an offline one has none.

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore; evaluation runners get their weights at the next evaluation."""
        with _NoTrainingRunners(self):
            super().set_state({name: value for name, value in state.items() if name != "eval_env_runner"})

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Restore from a checkpoint directory."""
        with _NoTrainingRunners(self):
            super().restore_from_path(path, *args, **kwargs)


class _NoTrainingRunners:
    """Stands in for the missing group of training runners while RLlib restores."""

    def __init__(self, algorithm: Algorithm):
        self.algorithm = algorithm

    def __enter__(self) -> None:
        self.before = self.algorithm.env_runner_group
        self.algorithm.env_runner_group = self

    def __exit__(self, *_: object) -> None:
        self.algorithm.env_runner_group = self.before

    def sync_weights(self, **kwargs: Any) -> None:
        """Nothing to synchronise."""

    def sync_env_runner_states(self, **kwargs: Any) -> None:
        """Nothing to synchronise."""

    def num_remote_env_runners(self) -> int:
        """None."""
        return 0
