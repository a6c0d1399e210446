"""The values that each setting takes, by its name in RLlib's builder methods; `checked.py` holds them to it."""

import logging
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias, get_args

import gymnasium as gym
from pydantic import AfterValidator, Field, InstanceOf, TypeAdapter, ValidationError
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.metrics.stats.base import StatsBase

from dr3_ray import limits
from dr3_ray.errors import UserError
from dr3_ray.training.execution.choice import Execution


@dataclass(frozen=True)
class Values:
    """The values that a setting takes: in words, and as a type for pydantic."""

    text: str
    kind: Any

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.kind)

    def check(self, name: str, value: Any) -> None:
        """Check a value, which has to be of the type itself: neither '1' nor True is a number.

        Raises:
            UserError: it is not.
        """
        try:
            self._adapter.validate_python(value, strict=True)
        except ValidationError:
            raise UserError(f"{name} must be {self.text}, not {reprlib.repr(value)}") from None

    def or_none(self) -> "Values":
        """Return these values and None."""
        return Values(f"{self.text}, or None", self.kind | None)


def one_of(*names: str) -> Values:
    """Return the values that are these texts."""
    return Values(f"one of {', '.join(map(repr, names))}", Literal[names])


def instance_of(kind: Any, text: str) -> Values:
    """Return the values that are instances of a class."""
    return Values(text, Annotated[kind, InstanceOf()])


def subclass_of(base: type) -> Values:
    """Return the values that are subclasses of `base`."""
    return Values(f"a subclass of {base.__name__}", type[base])


def _of_its_own(names: dict[str, float]) -> dict[str, float]:
    if names.keys() & {"CPU", "GPU"}:
        raise ValueError("they have settings of their own")
    return names


Text: TypeAlias = Annotated[str, Field(min_length=1)]
Function: TypeAlias = Callable[..., Any]
Amount: TypeAlias = Annotated[float, Field(ge=0.0, le=limits.RESOURCE)]


def whole(low: int, high: int) -> Values:
    """Return the values that are whole numbers from `low` to `high`."""
    return Values(f"a whole number from {low} to {_shown(high)}", Annotated[int, Field(ge=low, le=high)])


def number(high: int, unit: str = "") -> Values:
    """Return the values that are finite numbers from 0 to `high`."""
    return Values(f"a number{unit} from 0 to {_shown(high)}", Annotated[float, Field(ge=0.0, le=high)])


def _shown(number: int) -> str:
    """Return a limit, a large one as a power of ten."""
    return f"10^{len(str(number)) - 1}" if number > 10**6 else f"{number:,}"


EPISODES = whole(1, limits.EPISODES)
COUNT, POSITIVE, PROCESSES = whole(0, limits.COUNT), whole(1, limits.COUNT), whole(0, limits.PROCESSES)
SHARE, SECONDS = number(limits.SHARE), number(limits.SECONDS, " of seconds")
FLAG = Values("True or False", bool)
FUNCTION, FUNCTIONS = Values("a function", Function), Values("a function or a list of them", Function | list[Function])
NAMED = Values("a dict whose keys are texts", dict[str, Any])
RESOURCES = Values(
    f"a dict of numbers from 0 to {_shown(limits.RESOURCE)}, by other names than CPU and GPU",
    Annotated[dict[Text, Amount], AfterValidator(_of_its_own)],
)
MODES: Any = Literal[*(mode.value for mode in gym.VectorizeMode)]
SPACE = instance_of(gym.Space, "a space of Gymnasium").or_none()

# name -> values
VALUES = {
    **dict.fromkeys(
        (
            "max_num_env_runner_restarts", "episode_lookback_horizon",
        ),
        COUNT,
    ),
    **dict.fromkeys(
        (
            "num_learners", "local_gpu_idx", "evaluation_num_env_runners",
        ),
        PROCESSES,
    ),
    **dict.fromkeys(
        (
            "evaluation_auto_duration_min_env_steps_per_sample", "evaluation_auto_duration_max_env_steps_per_sample",
            "max_requests_in_flight_per_env_runner", "metrics_num_episodes_for_smoothing", "updates_per_iteration",
            "planned_updates",
        ),
        POSITIVE,
    ),
    **dict.fromkeys(
        (
            "num_gpus_per_learner", "num_cpus_for_main_process", "num_cpus_per_env_runner", "num_gpus_per_env_runner",
        ),
        SHARE,
    ),
    **dict.fromkeys(
        (
            "evaluation_sample_timeout_s", "evaluation_unhealthy_workers_timeout_s",
            "delay_between_env_runner_restarts_s", "env_runner_health_probe_timeout_s",
        ),
        SECONDS,
    ),
    **dict.fromkeys(
        (
            "evaluation_parallel_to_training", "evaluation_force_reset_envs_before_iteration", "log_sys_usage",
            "_validate_config", "validate_env_runners_after_construction", "episodes_to_numpy",
            "restart_failed_env_runners", "ignore_env_runner_failures", "explore", "normalize_actions", "clip_actions",
            "add_default_connectors_to_env_to_module_pipeline", "add_default_connectors_to_module_to_env_pipeline",
            "broadcast_env_runner_states", "restart_failed_sub_environments",
        ),
        FLAG,
    ),
    **dict.fromkeys(
        (
            "on_algorithm_init", "on_checkpoint_loaded", "on_env_runners_recreated", "on_evaluate_start",
            "on_evaluate_end", "on_train_result", "on_environment_created", "on_episode_created", "on_episode_start",
            "on_episode_step", "on_episode_end", "on_sample_end",
        ),
        FUNCTIONS.or_none(),
    ),
    **dict.fromkeys(
        ("custom_evaluation_function", "env_to_module_connector", "module_to_env_connector"), FUNCTION.or_none()
    ),
    **dict.fromkeys(
        ("custom_resources_per_learner", "custom_resources_for_main_process", "custom_resources_per_env_runner"),
        RESOURCES,
    ),
    **dict.fromkeys(("observation_space", "action_space"), SPACE),
    "num_cpus_per_learner": Values(f"'auto' or {SHARE.text}", Literal["auto"] | SHARE.kind),
    "num_envs_per_env_runner": EPISODES,
    "learner_class": subclass_of(Learner).or_none(),
    "rl_module_spec": instance_of(RLModuleSpec, "an RLModuleSpec").or_none(),
    "input_": Values("the name of a data set", Text),
    "evaluation_interval": COUNT.or_none(),
    "evaluation_duration": Values(f"'auto' or {POSITIVE.text}", Literal["auto"] | POSITIVE.kind),
    "evaluation_duration_unit": one_of("episodes", "timesteps"),
    "evaluation_error_after_n_consecutive_skips": POSITIVE.or_none(),
    "evaluation_config": NAMED.or_none(),
    "min_time_s_per_iteration": SECONDS.or_none(),
    "custom_stats_cls_lookup": Values("a dict of RLlib's classes of statistics, by name", dict[Text, type[StatsBase]]),
    "log_level": one_of(*logging.getLevelNamesMapping()),
    "placement_strategy": one_of("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"),
    "env": Values("a name or a class", Text | Function).or_none(),
    "env_config": NAMED,
    "env_runner_cls": subclass_of(EnvRunner),
    "callbacks_class": Values(
        "a subclass of RLlibCallback or a list of them", type[RLlibCallback] | list[type[RLlibCallback]]
    ).or_none(),
    "seed": Values("a whole number from 0 to 2^32 - 1", Annotated[int, Field(ge=0, lt=2**32)]).or_none(),
    "merge_env_runner_states": Values("True, False or 'training_only'", bool | Literal["training_only"]),
    "gym_env_vectorize_mode": Values("one of Gymnasium's VectorizeMode, or its name", gym.VectorizeMode | MODES),
    "members": Values("a list of dicts whose keys are texts", list[dict[str, Any]] | tuple[dict[str, Any], ...]),
    "execution": one_of(*get_args(Execution)),
    "inherited": NAMED,
}  # fmt: skip
