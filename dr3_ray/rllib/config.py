"""RLlib configs: which data, which options, which members."""

import dataclasses
import functools
from typing import Any, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.offline.offline_data import OfflineData
from ray.tune.search.sample import Domain
from torch import Tensor

from dr3_ray.algorithms.registry import find, kinds_of
from dr3_ray.compiled import USUAL
from dr3_ray.data import load_dataset
from dr3_ray.errors import UserError
from dr3_ray.member import REGULARIZERS, Member, check_members
from dr3_ray.normalization import observation_statistics
from dr3_ray.observations import each_part
from dr3_ray.options import checked
from dr3_ray.population import Execution
from dr3_ray.rllib.documentation import ByKind, describe, documented
from dr3_ray.rllib.env_runner import PopulationEnvRunner
from dr3_ray.rllib.learner import PopulationLearner
from dr3_ray.rllib.module import PopulationModule, spaces_of

OLD_STACK_KEYS = ("model", "optimizer", "replay_buffer_config")  # in every dict of RLlib's, and mean nothing here
OPTION_METHODS = ("training", "regularization")
RLLIB_KEYS = (*OLD_STACK_KEYS, "class", "multiagent")


def algorithm_class(name: str) -> type:
    """The RLlib Algorithm of that name."""
    from dr3_ray.rllib import algorithms  # it imports this module

    return algorithms.CLASSES[name]


@functools.lru_cache
def statistics_of(source: str, fingerprint: str) -> tuple[Any, Any]:
    """Mean and standard deviation of the observations in `source`, as nested lists; read once for each contents."""
    mean, std = observation_statistics(load_dataset(source))
    return each_part(Tensor.tolist, mean), each_part(Tensor.tolist, std)


class MappedData(OfflineData):
    """RLlib's slot for offline data. Learners map the shards themselves, so nothing is read here."""

    def __init__(self, config: AlgorithmConfig):
        self.config = config


class OfflineConfig(AlgorithmConfig):
    """Config of all our algorithms. An option that is not set has the default of the algorithm on the data's space."""

    algorithm_name: str
    observation_space: Any
    action_space: Any

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or algorithm_class(self.algorithm_name))
        self._is_online = False
        self.lr = None
        self.gamma = None
        self.offline_data_class = MappedData
        self.env_runner_cls = PopulationEnvRunner
        self.num_env_runners = 0
        self.min_time_s_per_iteration = None
        self.evaluation_duration = 20
        for name in self.option_names():
            setattr(self, name, None)
        self.members: list[dict[str, Any]] = [{}]
        self.updates_per_iteration = 1000
        self.planned_updates = USUAL
        self.execution: Execution = "auto"

    @classmethod
    def options_of(cls, method: str) -> ByKind:
        """What `training` or `regularization` sets, by kind of action space.

        The options of DR3 and of what it is compared with are none for an algorithm without a critic.
        """
        found: dict[str, list[dataclasses.Field[Any]]] = {}
        for kind, spec in kinds_of(cls.algorithm_name).items():
            classes = [spec.options] if method == "training" else REGULARIZERS if spec.has_critic else []
            found[kind] = [option for each in classes for option in dataclasses.fields(each)]
        return found

    @classmethod
    def option_names(cls) -> list[str]:
        """All options of a member but its seed."""
        kinds = [kind for method in OPTION_METHODS for kind in cls.options_of(method).values()]
        return list(dict.fromkeys(option.name for kind in kinds for option in kind))

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

    def _set(self, options: dict[str, Any], method: str) -> Self:
        known = {option.name: option for kind in self.options_of(method).values() for option in kind}
        for name, value in options.items():
            if name not in known:
                raise UserError(
                    f"{self.algorithm_name}: .{method}() has no option {name!r}; it has {', '.join(known) or 'none'}"
                )
            searched = isinstance(value, Domain) or (isinstance(value, dict) and "grid_search" in value)
            # at once, not only in `validate`: RLlib takes -1 for a deprecated value and would drop it in between
            setattr(self, name, value if searched else checked(known[name], value))
        return self

    def update_from_dict(self, config_dict: dict[str, Any]) -> Self:
        """As RLlib's, but a key that nothing reads is an error, where RLlib would keep it in silence."""
        for key in config_dict:
            ours = hasattr(self, self._translate_special_keys(key, warn_deprecated=False))
            if not ours and key not in RLLIB_KEYS and not key.startswith("__"):  # Tune marks its own keys so
                known = ", ".join(self.option_names())
                raise UserError(f"{self.algorithm_name} has no setting {key!r}; its options are {known}")
        return super().update_from_dict({key: value for key, value in config_dict.items() if key not in OLD_STACK_KEYS})

    def population(
        self,
        members: list[dict[str, Any]] = NotProvided,
        *,
        updates_per_iteration: int = NotProvided,
        planned_updates: int = NotProvided,
        execution: Execution = NotProvided,
    ) -> Self:
        """Train K members in one process.

        Args:
            members: One dict a member: what it has different from `.training()` and `.regularization()`, and `seed`.
                Numbers may differ between members, widths and batch sizes may not. Default: one member.
            updates_per_iteration: Gradient steps of every member in one `train()`.
            planned_updates: Gradient steps of the whole run, by which `compile=True` knows whether it pays. Default:
                100,000.
            execution: `in_turn`, `stacked`, or `auto`: stacked on a GPU and, on a CPU, where that is faster.
        """
        if members is not NotProvided:
            self.members = members
        if updates_per_iteration is not NotProvided:
            self.updates_per_iteration = updates_per_iteration
        if planned_updates is not NotProvided:
            self.planned_updates = planned_updates
        if execution is not NotProvided:
            self.execution = execution
        return self

    @classmethod
    def describe_options(cls) -> str:
        """Every option with its default, range and source, one a line, by kind of action space where it matters."""
        return "\n".join(line for method in OPTION_METHODS for line in describe(cls.options_of(method)))

    def full_members(self) -> list[dict[str, Any]]:
        """The complete configuration of every member, as plain values."""
        common = {name: getattr(self, name) for name in self.option_names() if getattr(self, name) is not None}
        # without a seed of its own a member takes RLlib's
        common["seed"] = self.seed or 0
        spec = find(self.algorithm_name, self._action_kind)
        return [Member.from_dict(spec, common | member).to_dict() for member in self.members]

    @property
    def _action_kind(self) -> str:
        return "discrete" if hasattr(self.action_space, "n") else "continuous"

    def validate(self) -> None:
        """Check everything that can be known before training; UserError in one line."""
        if not isinstance(self.input_, str) or self.input_ == "sampler":
            raise UserError(f"{self.algorithm_name} needs data: .offline_data(input_='embedded:breakout-replay')")
        for name in ("updates_per_iteration", "planned_updates"):
            if type(number := getattr(self, name)) is not int or number < 1:
                raise UserError(f"{name} must be a whole number from 1, not {number!r}")
        if not self.members:
            raise UserError("a population needs at least one member")
        data = load_dataset(self.input_)
        if self.observation_space is None:
            self.observation_space = data.observation_space.to_gymnasium()
        if self.action_space is None:
            self.action_space = data.action_space.to_gymnasium()
        spaces = spaces_of(self.observation_space, self.action_space)
        if spaces != data.spaces:
            raise UserError(f"the config has {spaces}, the data set {self.input_} {data.spaces}")
        spec = find(self.algorithm_name, self._action_kind)
        members = [Member.from_dict(spec, values) for values in self.full_members()]
        options = check_members(spec, spaces, members)
        self._check_learners(options.batch_size)
        if self.env is not None and spec.act is None:
            raise UserError(
                f"{spec.name} on {spec.action_kind} actions evaluates the behaviour policy and has none of its own to "
                "roll out: leave out the environment"
            )
        super().validate()

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
        """Our learner."""
        return PopulationLearner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Our module; what it needs to know travels in `model_config`."""
        return RLModuleSpec(module_class=PopulationModule)

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        members, data = self.full_members(), load_dataset(self.input_)
        return super()._model_config_auto_includes | {
            "algorithm": self.algorithm_name,
            "members": members,
            "spaces": data.spaces,
            "observation_statistics": (
                statistics_of(self.input_, data.fingerprint)
                if members and members[0]["normalize_observations"]
                else None
            ),
        }
