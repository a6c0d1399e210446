"""The RLlib Algorithm around a population, and the restoring that RLlib 2.60 lacks for offline algorithms."""

from collections.abc import Callable, Sequence
from typing import Any, Self

from ray.exceptions import RayTaskError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import (
    COMPONENT_LEARNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_METRICS_LOGGER,
    COMPONENT_OPTIMIZER,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS, LEARNER_RESULTS
from ray.tune.registry import register_env

from dr3_ray.errors import UserError
from dr3_ray.evaluation.environments import is_ours, make_environment
from dr3_ray.population import state_of
from dr3_ray.rllib.checkpoint import check_fits, read_metadata
from dr3_ray.rllib.config import OfflineConfig
from dr3_ray.rllib.learner import PopulationLearner
from dr3_ray.rllib.module import module_state_of
from dr3_ray.rllib.reuse import Reusable


class OfflineAlgorithm(Reusable):
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

    def setup(self, config: AlgorithmConfig) -> None:
        """Build learners and evaluation runners."""
        try:
            super().setup(config)
        except RayTaskError as error:  # of a remote learner; its own text is a page long
            cause, gpus = error.cause, config.num_gpus_per_learner
            if gpus and "NCCL" in str(cause):  # raised before the learner could look for a GPU
                cause = UserError(f"num_gpus_per_learner = {gpus}, but torch finds no GPU for the learner: {cause}")
            raise cause if isinstance(cause, UserError) else error from None
        self.members = self.config.full_members()
        self.structure = self._ask(lambda learner: learner.structure())[0]

    def training_step(self) -> None:
        """Train for one iteration."""
        n = max(1, self.config.num_learners)  # learners draw their batches themselves, but RLlib deals out iterators
        results = self.learner_group.update(training_data=TrainingData(data_iterators=[None] * n))
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
        for key, config in zip(sorted(trained, key=int), self.members, strict=True):
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

    def keep(self, rows: Sequence[int]) -> Self:
        """An algorithm of these members alone, which goes on as they would have gone on here; this one is stopped.

        It is one that could have been built with these members: so are its checkpoints.
        """
        config = self.config.copy(copy_frozen=False).population([self.config.members[row] for row in rows])
        state = self.get_state()
        self.stop()  # first, because learners and runners of both may not fit
        kept: Self = config.build_algo()
        learner = state[COMPONENT_LEARNER_GROUP][COMPONENT_LEARNER]
        learner[COMPONENT_RL_MODULE] = {
            name: module_state_of(module, rows) for name, module in learner[COMPONENT_RL_MODULE].items()
        }
        learner[COMPONENT_OPTIMIZER] = state_of(learner[COMPONENT_OPTIMIZER], rows)
        for logged in (state, learner):
            del logged[COMPONENT_METRICS_LOGGER]  # by places in the pack
        kept.set_state(state | {"structure": kept.structure})
        return kept

    def _ask(self, question: Callable[[PopulationLearner], Any]) -> list[Any]:
        """Every learner's answer."""
        return [each.get() for each in self.learner_group.foreach_learner(question)]

    def get_metadata(self) -> dict[str, Any]:
        """RLlib's, the structure that a checkpoint must have, and the number of gradient steps."""
        num_updates = self._ask(lambda learner: learner.population.step)[0]
        return super().get_metadata() | {"structure": self.structure, "num_updates": num_updates}

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib's, and the structure."""
        return super().get_state(*args, **kwargs) | {"structure": self.structure}

    @classmethod
    def from_checkpoint(cls, path: Any, filesystem: Any = None, **kwargs: Any) -> Self:
        """The algorithm saved in `path`; UserError where there is none, or another than this class's."""
        name = read_metadata(path, filesystem)["structure"]["algorithm"]
        if cls is not OfflineAlgorithm and name != cls.config_class.algorithm_name:
            raise UserError(f"the checkpoint in {path} is of {name}, not of {cls.config_class.algorithm_name}")
        return super().from_checkpoint(path, filesystem, **kwargs)

    # RLlib 2.60 restores every algorithm as if it had runners that collect training data; an offline one has none.

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore; evaluation runners get their weights at the next evaluation."""
        if "structure" in state:
            check_fits(state["structure"], self.structure, "the given state")
        with _NoTrainingRunners(self):
            super().set_state({name: value for name, value in state.items() if name != "eval_env_runner"})

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Restore from a checkpoint directory, or with `component` from a directory inside one."""
        saved = None if kwargs.get("component") else read_metadata(path, kwargs.get("filesystem"))
        if saved:
            check_fits(saved["structure"], self.structure, f"the checkpoint in {path}")
        with _NoTrainingRunners(self):
            super().restore_from_path(path, *args, **kwargs)
        # RLlib leaves the errors of remote learners unread
        if saved and {saved["num_updates"]} != set(self._ask(lambda learner: learner.population.step)):
            raise UserError(f"not all learners could read the checkpoint in {path}: is it complete?")


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
