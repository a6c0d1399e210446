"""RLlib configs: which data, which options, which members."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.offline.offline_data import OfflineData
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.errors import UserError
from dr3_ray.evaluation.contract import Recorded, contract
from dr3_ray.evaluation.environments import module_of
from dr3_ray.observations import each_part
from dr3_ray.rllib import settings
from dr3_ray.rllib.checked import CheckedConfig
from dr3_ray.rllib.env_runner import PopulationEnvRunner
from dr3_ray.rllib.learner import PopulationLearner
from dr3_ray.rllib.module import PopulationModule
from dr3_ray.rllib.setting_values import EPISODES
from dr3_ray.training.batches import check_shares
from dr3_ray.training.documentation import ByKind, Method, describe, documented, options_of
from dr3_ray.training.execution.choice import Execution
from dr3_ray.training.execution.compiler import USUAL_UPDATES
from dr3_ray.training.member import Member, check_members
from dr3_ray.training.normalization import observation_statistics
from dr3_ray.training.returns import check_returns
from dr3_ray.training.rewards import return_range
from dr3_ray.training.value_range import check_ranges
from dr3_ray.trust.secrets import remember

CLASSES: dict[str, Any] = {}  # the RLlib Algorithm of each name; `dr3_ray.rllib.algorithms` makes them
OPTION_METHODS: tuple[Method, ...] = ("training", "regularization")
# what `from_checkpoint` builds an algorithm from, besides its options; RLlib would import the names in other settings
PLAIN = (
    "input_", "env", "seed", "members", "updates_per_iteration", "planned_updates", "execution", "evaluation_interval",
    "evaluation_duration", "evaluation_num_env_runners", "num_learners", "num_gpus_per_learner",
    "num_cpus_for_main_process", "log_sys_usage", "inherited",
)  # fmt: skip
DERIVED = ("observation_space", "action_space", "policies", "simple_optimizer", "_is_frozen", "class")  # of the others


@functools.lru_cache
def statistics_of(source: str, fingerprint: str) -> tuple[Any, Any]:
    """Return mean and standard deviation of the observations in `source`, as nested lists; cached by contents."""
    mean, std = observation_statistics(load_dataset(source))
    return each_part(Tensor.tolist, mean), each_part(Tensor.tolist, std)


def same(value: Any, default: Any) -> bool:
    """Return whether a setting has its default."""
    try:
        return bool(value == default)
    except (TypeError, ValueError):  # arrays, say
        return False


class MappedData(OfflineData):
    """RLlib's slot for offline data; learners map the shards themselves, so nothing is read here."""

    def __init__(self, config: AlgorithmConfig):
        self.config = config


@functools.cache
def options_by_name(config_class: "type[OfflineConfig]") -> dict[str, "dataclasses.Field[Any]"]:
    """Return all options of a member but its seed."""
    kinds = [kind for method in OPTION_METHODS for kind in config_class.options_of(method).values()]
    return {option.name: option for kind in kinds for option in kind}


class OfflineConfig(CheckedConfig):
    """The config of all our algorithms; an unset option has the default of the algorithm on the data's space."""

    observation_space: Any
    action_space: Any

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or CLASSES[self.algorithm_name])
        self._is_online = False
        self.lr = self.gamma = self.train_batch_size = None  # RLlib's defaults would be accepted and ignored
        self.offline_data_class = MappedData
        self.env_runner_cls = PopulationEnvRunner
        self.explore = False
        self.restart_failed_env_runners = False
        self.min_time_s_per_iteration = None
        self.evaluation_duration = 20
        for name in self.option_names():
            setattr(self, name, None)
        self.trial_seed: int | None = None
        self.updates_per_iteration = 1000
        self.planned_updates = USUAL_UPDATES
        self.execution: Execution = "auto"
        self.inherited: dict[str, Any] = {}
        self.members: list[dict[str, Any]] = [{}]
        self._is_checked = True

    @classmethod
    def options_of(cls, method: Method) -> ByKind:
        """Return the options that `training` or `regularization` sets, by kind of action space."""
        return options_of(cls.algorithm_name, method)

    @classmethod
    def option_fields(cls) -> dict[str, "dataclasses.Field[Any]"]:
        """Return all options of a member but its seed, by name."""
        return options_by_name(cls)  # type: ignore[arg-type]  # a class can be hashed

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the names of all options of a member but its seed."""
        return list(options_by_name(cls))  # type: ignore[arg-type]  # as above

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "algorithm_name" in cls.__dict__:
            for method in OPTION_METHODS:
                setattr(cls, method, documented(getattr(cls, method), cls.options_of(method)))

    def training(self, **options: Any) -> Self:
        """Set the algorithm's options; one that is never set has the algorithm's default on the data's actions."""
        return self._set(options, "training")

    def regularization(self, **options: Any) -> Self:
        """Set the options of the regularisers, `dr3_coeff` first of all."""
        return self._set(options, "regularization")

    def _set(self, options: dict[str, Any], method: Method) -> Self:
        known = {option.name: option for kind in self.options_of(method).values() for option in kind}
        for name, value in options.items():
            if name not in known:
                setting = settings.SETTINGS.get(name)
                instead = f": {setting.text}" if setting else f"; it has {', '.join(known) or 'none'}"
                raise UserError(f"{self.algorithm_name}: .{method}() has no option {name!r}{instead}")
            setattr(self, name, value)
        return self

    def population(
        self,
        members: list[dict[str, Any]] = NotProvided,
        *,
        updates_per_iteration: int = NotProvided,
        planned_updates: int = NotProvided,
        execution: Execution = NotProvided,
        inherited: dict[str, Any] = NotProvided,
    ) -> Self:
        """Train K members in one process.

        Args:
            members: One dict a member: what it has different from `.training()` and `.regularization()`, and `seed`.
                Numbers may differ between members, widths and batch sizes may not. Default: one member.
            updates_per_iteration: Gradient steps of every member in one `train()`.
            planned_updates: Gradient steps of the whole run, by which `compile=True` knows whether it pays. Default:
                100,000.
            execution: `in_turn`, `stacked`, or `auto`: stacked on a GPU and, on a CPU, where that is faster.
            inherited: Of the data that networks are used to which others have trained, in place of those of the data:
                `observation_statistics` (mean and standard deviation, as lists) and `return_range`. Default: none.
        """
        if members is not NotProvided:
            self.members = members
        if updates_per_iteration is not NotProvided:
            self.updates_per_iteration = updates_per_iteration
        if planned_updates is not NotProvided:
            self.planned_updates = planned_updates
        if execution is not NotProvided:
            self.execution = execution
        if inherited is not NotProvided:
            self.inherited = inherited
        return self

    @classmethod
    def describe_options(cls) -> str:
        """Describe every option with default, range and source, one a line, by kind of actions if it matters."""
        return "\n".join(line for method in OPTION_METHODS for line in describe(cls.options_of(method)))

    def plain_settings(self) -> dict[str, Any] | None:
        """Return the settings that differ from the defaults as plain values; None where a setting cannot be one."""
        default, usual = vars(type(self)()), {}
        for name, value in vars(self).items():
            if name in DERIVED or (name in default and same(value, default[name])):
                continue
            plain = name in self.option_names() or (
                name in PLAIN and not (name == "env" and (callable(value) or module_of(value)))
            )
            if not plain:
                return None
            usual[name] = remember(value) if name == "input_" else value
        return usual

    @classmethod
    def from_settings(cls, settings: dict[str, Any], algo_class: type) -> Self:
        """Return the config with these plain settings.

        Raises:
            UserError: a setting is not among those that are plain.
        """
        config = cls(algo_class)
        for name, value in settings.items():
            if (name not in PLAIN and name not in cls.option_names()) or (name == "env" and module_of(value)):
                raise UserError(f"a checkpoint may not set {name} to {value!r}: give from_checkpoint a config")
            setattr(config, name, value)
        return config

    def full_members(self) -> list[dict[str, Any]]:
        """Return the complete configuration of every member, as plain values."""
        common = {name: getattr(self, name) for name in self.option_names() if getattr(self, name) is not None}
        # without a seed of its own a member takes RLlib's, or that of its trial
        common["seed"] = (self.trial_seed or 0) if self.seed is None else self.seed
        spec = find(self.algorithm_name, self._action_kind)
        return [Member.from_dict(spec, common | member).to_dict() for member in self.members]

    @property
    def _action_kind(self) -> str:
        numbered = any(hasattr(self.action_space, name) for name in ("n", "nvec"))  # one choice, or several
        return "discrete" if numbered else "continuous"

    def validate(self) -> None:
        """Check everything that can be known before training.

        Raises:
            UserError: a setting is wrong.
        """
        if not isinstance(self.input_, str) or self.input_ == "sampler":
            raise UserError(f"{self.algorithm_name} needs data: .offline_data(input_='embedded:breakout-replay')")
        self.check_settings()
        if not self.members:
            raise UserError("a population needs at least one member")
        fewest, most = (getattr(self, f"evaluation_auto_duration_{end}_env_steps_per_sample") for end in ("min", "max"))
        if fewest > most:
            raise UserError(
                f"evaluation_auto_duration_min_env_steps_per_sample = {fewest} is more than "
                f"evaluation_auto_duration_max_env_steps_per_sample = {most}: lower the one or raise the other"
            )
        if self.evaluation_duration_unit == "episodes" and isinstance(self.evaluation_duration, int):
            EPISODES.check("evaluation_duration", self.evaluation_duration)
        data = load_dataset(self.input_)
        if self.observation_space is None:
            self.observation_space = data.observation_space.to_gymnasium()
        if self.action_space is None:
            self.action_space = data.action_space.to_gymnasium()
        contract(Recorded.of(data), self.observation_space, self.action_space, "the config")
        spec = find(self.algorithm_name, self._action_kind)
        members = [Member.from_dict(spec, values) for values in self.full_members()]
        options = check_members(spec, data.spaces, members)
        check_shares(data, members)
        return_range(options, data)
        check_ranges(members, data)
        check_returns(spec.columns, members, data)
        self._check_learners(options.batch_size)
        if self.env is None and not self.custom_evaluation_function and self._evaluates():
            raise UserError("evaluation is asked for, but there is no environment: .environment(env='CartPole-v1')")
        if self.env is not None and spec.act is None:
            raise UserError(
                f"{spec.name} on {spec.action_kind} actions evaluates the behaviour policy and has none of its own to "
                "roll out: leave out the environment"
            )
        super().validate()

    def _evaluates(self) -> bool:
        elsewhere = (self.evaluation_config or {}).get("env")
        return not elsewhere and bool(self.evaluation_interval or self.evaluation_num_env_runners)

    def _check_learners(self, batch_size: int) -> None:
        n, gpus = self.num_learners, self.num_gpus_per_learner
        if n > 1 and batch_size % n:
            raise UserError(f"batch_size = {batch_size} cannot be shared by {n} learners: choose a multiple of {n}")
        if n > 1 and gpus % 1:
            raise UserError(
                f"num_gpus_per_learner = {gpus}, but NCCL wants a GPU for each of several learners: set it to 1, or "
                "num_learners to 0 to share a GPU between trials"
            )

    def get_default_learner_class(self) -> type:
        """Return our learner."""
        return PopulationLearner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return our module, with its arguments in `model_config`."""
        return RLModuleSpec(module_class=PopulationModule)

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        members, data = self.full_members(), load_dataset(self.input_)
        spec = find(self.algorithm_name, self._action_kind)
        options = [Member.from_dict(spec, values).options for values in members]
        return super()._model_config_auto_includes | {
            "algorithm": self.algorithm_name,
            "members": members,
            "recorded": Recorded.of(data).to_dict(),
            "return_range": self._inherited("return_range", lambda: return_range(options[0], data)) if options else 1.0,
            "task": None if data.task is None else data.task.tolist(),
            "observation_statistics": (
                self._inherited("observation_statistics", lambda: statistics_of(self.input_, data.fingerprint))
                if members and members[0]["normalize_observations"]
                else None
            ),
        }

    def _inherited(self, name: str, of_data: Callable[[], Any]) -> Any:
        return self.inherited[name] if name in self.inherited else of_data()
