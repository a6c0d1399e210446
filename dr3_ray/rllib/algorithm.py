"""The RLlib Algorithm around a population."""

import reprlib
import tempfile
from collections.abc import Iterable, Sequence
from statistics import fmean
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
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS, LEARNER_RESULTS

from dr3_ray.algorithms.registry import ALGORITHMS
from dr3_ray.cluster.environments import publish
from dr3_ray.cluster.pickles import unpickle
from dr3_ray.data import load_dataset
from dr3_ray.errors import UserError, first_line
from dr3_ray.evaluation.contract import REMEDY, Recorded, contract, shown
from dr3_ray.rllib.checkpoint import (
    STATE,
    folder_to_read,
    read_metadata,
)
from dr3_ray.rllib.config import CLASSES, OfflineConfig
from dr3_ray.rllib.env_runner import PopulationEnvRunner
from dr3_ray.rllib.evaluating import Evaluating
from dr3_ray.rllib.methods import refuses_what_has_no_effect
from dr3_ray.rllib.module import PopulationModule, module_state_of
from dr3_ray.rllib.restoring import SETTINGS, Restoring
from dr3_ray.rllib.reuse import Reusable
from dr3_ray.rllib.room import check_room, lack_is_told
from dr3_ray.rllib.trials import resolve_data
from dr3_ray.runs.plain import is_plain, read_plain
from dr3_ray.training.inheriting import Beginning, begin_from
from dr3_ray.training.population import state_of


@refuses_what_has_no_effect
class OfflineAlgorithm(Evaluating, Restoring, Reusable):
    """An RLlib Algorithm that trains a population: `updates_per_iteration` gradient steps, diagnostics, and rollouts.

    The result of `train()` holds `members`: {"000": {metric: number}, …}, `num_updates` and `updates_per_second`.
    """

    config_class: type[OfflineConfig]

    def __init__(self, config: Any = None, *args: Any, **kwargs: Any) -> None:
        if isinstance(config, AlgorithmConfig) and not isinstance(config, self.config_class):
            raise UserError(f"{type(self).__name__} takes a {self.config_class.__name__}, not {type(config).__name__}")
        super().__init__(config, *args, **kwargs)

    @classmethod
    def get_default_config(cls) -> OfflineConfig:
        """Return the config that names this algorithm."""
        return cls.config_class(cls)

    @staticmethod
    def _get_env_id_and_creator(env_specifier: Any, config: AlgorithmConfig) -> Any:
        publish(env_specifier)  # again: a checkpoint may have brought it into this process
        try:
            return Algorithm._get_env_id_and_creator(env_specifier, config)
        except ValueError as error:
            raise UserError(f"env is a name or a class: {first_line(error)}") from None

    def _setup_logdir(self) -> None:
        """Take the folder of Tune's trial; else log nothing, without RLlib's empty folder in the home directory."""
        if self._storage:
            super()._setup_logdir()
        else:
            self._logdir = tempfile.gettempdir()

    def setup(self, config: AlgorithmConfig) -> None:
        """Build learners and evaluation runners."""
        check_room(config)
        try:
            with lack_is_told(config):
                super().setup(config)
        except RayTaskError as error:  # of a remote learner; its own text is a page long
            cause, gpus = error.cause, config.num_gpus_per_learner
            if gpus and "NCCL" in str(cause):  # raised before the learner could look for a GPU
                cause = UserError(f"num_gpus_per_learner = {gpus}, but torch finds no GPU for the learner: {cause}")
            raise cause if isinstance(cause, UserError) else error from None
        self._check_environment()
        self.members = self.config.full_members()
        self.structure = self._ask(lambda learner: learner.structure())[0]

    def _check_environment(self) -> None:
        """Check that the environment to evaluate in, whoever named it, has a contract with the data.

        Raises:
            UserError: it has none.
        """
        group, config = self.eval_env_runner_group, self.evaluation_config
        if group is None:
            return
        theirs = group.get_spaces()[INPUT_ENV_SINGLE_SPACES]
        recorded = Recorded.of(load_dataset(self.config.input_))
        agreed = contract(recorded, theirs[0], theirs[1], f"environment {config.env}")
        box = recorded.actions.n is None
        flat = len(recorded.actions.shape) == (1 if box else 0)
        plain = agreed.exact and flat and recorded.actions.start == 0
        if not (plain or issubclass(config.env_runner_cls, PopulationEnvRunner)):
            played, stored = (" and ".join(map(shown, pair)) for pair in (theirs, recorded.to_gymnasium()))
            raise UserError(
                f"{config.env_runner_cls.__name__} converts nothing, where {agreed.where} has {played} and the data "
                f"set {recorded.name} {stored}: use the default runner, or {REMEDY}"
            )

    def training_step(self) -> None:
        """Train for one iteration."""
        self.weights_are_sent.wait()
        n = max(1, self.config.num_learners)  # learners draw their batches themselves, but RLlib deals out iterators
        results = self.learner_group.update(training_data=TrainingData(data_iterators=[None] * n))
        self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def step(self) -> dict[str, Any]:
        """Make one iteration, and add what is known of each member under `members`."""
        results = super().step()
        if DEFAULT_MODULE_ID not in results.get(LEARNER_RESULTS, {}):
            raise UserError("no learner is left, and nothing was trained: take from_checkpoint()")
        learner = results[LEARNER_RESULTS][DEFAULT_MODULE_ID]
        trained = learner.pop("members")
        played = results.get(EVALUATION_RESULTS, {}).get(ENV_RUNNER_RESULTS, {}).pop("members", {})
        learner |= means_over_members(trained.values())
        results["num_updates"] = int(learner["num_updates"])
        results["updates_per_second"] = float(learner["updates_per_second"])
        results["members"] = {}
        # evaluation beside training plays with the weights before it
        ahead = self.config.updates_per_iteration if self.config.evaluation_parallel_to_training else 0
        for key, config in zip(sorted(trained, key=int), self.members, strict=True):
            row = {name: float(value) for name, value in trained[key].items()}
            row |= {"diverged": bool(row["diverged"]), "seed": config["seed"]}
            if "dr3_coeff" in config:
                row["dr3_coeff"] = config["dr3_coeff"]
            row |= _told(played.get(key), results["num_updates"] - ahead)
            results["members"][key] = row
        if lost := [int(key) for key, row in results["members"].items() if row["diverged"] and "error" in row]:
            self._ask(lambda learner: learner.population.lose(lost))
        return results

    def get_module(self, module_id: str = DEFAULT_MODULE_ID) -> PopulationModule | None:
        """Return the networks of all members: a local learner's own, otherwise a copy; None for another id."""
        if module_id != DEFAULT_MODULE_ID:
            return None
        module: PopulationModule = self._ask(lambda learner: learner.module[DEFAULT_MODULE_ID].unwrapped())[0]
        return module

    def set_weights(self, weights: dict[str, Any]) -> None:
        """Set the networks' parameters, as `get_weights` returns them; runners get them when they play."""
        self.set_state({COMPONENT_LEARNER_GROUP: {COMPONENT_LEARNER: {COMPONENT_RL_MODULE: weights}}})

    @classmethod
    def default_resource_request(cls, config: Any) -> Any:
        """Resolve the data set of a trial here, on the driver, and return RLlib's request."""
        if isinstance(config, dict):
            resolve_data(config)
        return super().default_resource_request(config)

    def keep(self, rows: Sequence[int]) -> Self:
        """Return an algorithm of these members alone, which go on as they would have here; this one is stopped.

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

    def begin_from(self, beginnings: Sequence[Beginning], anew: Sequence[bool] = ()) -> None:
        """Have the members, which have not begun, go on from others; see `training.inheriting.begin_from`."""
        self._ask(lambda learner: begin_from(learner.population, beginnings, anew))

    @classmethod
    def from_checkpoint(
        cls, path: Any, filesystem: Any = None, *, config: OfflineConfig | None = None, trust: bool = False, **_: Any
    ) -> Self:
        """Return the algorithm saved in `path`, built from the plain settings there, or from another `config`.

        Where settings are not plain (an environment that is a function, callbacks) it is unpickled, if this user signed
        it or with `trust`.

        Raises:
            UserError: there is none, it is of another class, or not trusted.
        """
        if config is not None and not isinstance(config, OfflineConfig):
            raise UserError(f"config = {reprlib.repr(config)}: give a config of dr3_ray, such as DR3CQLConfig()")
        name = read_metadata(path, filesystem)["structure"]["algorithm"]
        if name not in ALGORITHMS:
            raise UserError(f"the checkpoint in {path} is of {name!r}, which is no algorithm here: take another one")
        if cls is not OfflineAlgorithm and name != cls.config_class.algorithm_name:
            raise UserError(f"the checkpoint in {path} is of {name}, not of {cls.config_class.algorithm_name}")
        made: Any = CLASSES[name] if cls is OfflineAlgorithm else cls
        with folder_to_read(path, filesystem) as folder:
            settings = read_plain(folder, STATE).get(SETTINGS) if is_plain(folder, STATE) else None
            if config is None and settings is not None:
                config = made.config_class.from_settings(settings, made)
            if config is None:
                saved = unpickle(folder, cls.CLASS_AND_CTOR_ARGS_FILE_NAME, trust)
                arguments, options = saved["ctor_args_and_kwargs"]
                algorithm: Self = saved["class"](*arguments, **options)
            else:
                algorithm = config.build_algo()
            algorithm.restore_from_path(folder, trust=trust)
        return algorithm


def _told(played: dict[str, Any] | None, update: int) -> dict[str, Any]:
    """Return the measurements of a member's episodes for a result, with the weights of update `update`."""
    if played is None or "episode_return_mean" not in played:  # what RLlib still has of an evaluation before
        return {}
    row: dict[str, Any] = {name: played[name] for name in ("episode_return_mean", "episodes")}
    if played["no_action"]:
        row |= {"diverged": True, "error": f"its policy gave NaN or infinity for an action at update {update}"}
    elif played["broken_episodes"]:
        row["error"] = (
            f"its environment gave NaN or infinity for an observation or a reward in {played['broken_episodes']} of "
            f"{played['episodes']} episodes at update {update}"
        )
    return row


def means_over_members(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the mean of each metric over members that have not diverged, and the losses' sum as `total_loss`."""
    alive = [row for row in rows if not row["diverged"]]
    names = alive[0].keys() - {"diverged"} if alive else ()
    means = {name: fmean(float(row[name]) for row in alive) for name in sorted(names)}
    losses = [value for name, value in means.items() if name.startswith("loss_")]
    return means | ({"total_loss": sum(losses)} if losses else {})
