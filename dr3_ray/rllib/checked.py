"""An RLlib config that accepts nothing it ignores, on whatever way it is set."""

import dataclasses
import functools
from typing import Any, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from dr3_ray.cluster.environments import publish
from dr3_ray.errors import UserError
from dr3_ray.options import checked
from dr3_ray.rllib import settings
from dr3_ray.rllib.builders import checks_first
from dr3_ray.rllib.env_runner import PopulationEnvRunner
from dr3_ray.rllib.learner import PopulationLearner
from dr3_ray.rllib.module import PopulationModule
from dr3_ray.rllib.setting_values import NAMED, VALUES
from dr3_ray.rllib.trials import is_searched, source_of

THROUGH_TRAINING = ("model", "optimizer")  # which RLlib's `update_from_dict` gives to `.training()`


@checks_first
class CheckedConfig(AlgorithmConfig):
    """A config that refuses a setting without effect (`settings.py`) when it is set, or when the config is validated.

    A subclass sets its defaults, then `self._is_checked = True`: from then on every value is checked.
    """

    algorithm_name: str
    _is_checked = False

    @property
    def is_guarded(self) -> bool:
        """Whether values are a user's: RLlib prepares its configs of evaluation with settings that have no effect."""
        return self._is_checked and not self.in_evaluation

    @classmethod
    def option_fields(cls) -> dict[str, "dataclasses.Field[Any]"]:
        """Return the algorithm's own options by name."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        accepted = self._accepted(name, value) if self._is_checked else value
        try:
            super().__setattr__(name, accepted)
        except AttributeError:
            raise UserError(
                f"{name} cannot change in an algorithm that was built: set it in config.copy(copy_frozen=False), and "
                "give what that builds the state of this one"
            ) from None

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, self._translate_special_keys(name, warn_deprecated=False), value)

    def _accepted(self, name: str, value: Any) -> Any:
        """Return the value of a setting as it is kept.

        Raises:
            UserError: nothing reads it, or it is no value of that setting.
        """
        if name == "input_":
            check_value(name, value)
            return source_of(value)
        if option := self.option_fields().get(name):
            # at once, not only in `validate`: RLlib takes -1 for a deprecated value and would drop it in between
            return value if value is None or is_searched(value) else checked(option, value)
        if not hasattr(self, name) and not name.startswith("__"):  # Tune marks its own keys so
            known = ", ".join(self.option_fields())
            raise UserError(f"{self.algorithm_name} has no setting {name!r}; its options are {known}")
        if self.is_guarded:
            self.check_setting(name, value)
        if name == "env":
            publish(value)
        return value

    def check_setting(self, name: str, value: Any, stock_runner: bool | None = None) -> None:
        """Check a value of a setting, by the name of its attribute.

        `stock_runner`: whether evaluation is RLlib's own; None: not known yet.

        Raises:
            UserError: it has no effect, or the setting does not take it.
        """
        default = defaults_of(type(self)).get(name)  # type: ignore[arg-type]  # a class can be hashed
        if type(value) is int and value == -1 != default:
            raise UserError(f"{name} = -1 is RLlib's mark of a setting that is not set: choose another value")
        if name in rllib_attributes() and name not in self.option_fields():
            settings.check(self.algorithm_name, name, value, default, stock_runner)
        check_value(name, value)

    def update_from_dict(self, config_dict: dict[str, Any]) -> Self:
        """Update as RLlib does, but refuse a key that nothing reads, which RLlib would keep in silence."""
        if not isinstance(config_dict, AlgorithmConfig):
            NAMED.check("the settings", config_dict)
        others = {}
        for key, value in config_dict.items():
            if key == "multiagent":  # RLlib's dict of what `.multi_agent()` sets
                raise UserError(f"{self.algorithm_name} has no setting {key!r}: {settings.SETTINGS['policies'].text}")
            if key in THROUGH_TRAINING:
                self.check_setting(key, value)
            elif key != "class":
                self._accepted(self._translate_special_keys(key, warn_deprecated=False), value)
                others[key] = value
        return super().update_from_dict(others)

    def check_settings(self) -> None:
        """Check all settings again: mappings and lists may have been changed in place.

        Raises:
            UserError: one has no effect, or a value that it does not take.
        """
        if self.is_guarded:
            for name in vars(self).keys() - self.option_fields().keys():
                self.check_setting(name, getattr(self, name), self._has_stock_runner())

    def validate(self) -> None:
        """Check for settings that were changed in place, and classes that are not ours; then make RLlib's checks.

        Raises:
            UserError: there is one.
        """
        self.check_settings()
        learner, spec = self._learner_class, self._rl_module_spec
        if learner is not None and not issubclass(learner, PopulationLearner):
            raise UserError(
                f"learner_class = {learner.__name__}: name a subclass of PopulationLearner, or give your own learner "
                "DR3 by with_dr3_learner, in its own algorithm"
            )
        if spec is not None and not is_ours(spec):
            raise UserError(
                "rl_module_spec: RLModuleSpec(module_class=…) with a subclass of PopulationModule and nothing else; "
                "networks are set by hidden_sizes and encoder in .training()"
            )
        super().validate()

    def _value_error(self, errmsg: str) -> None:  # by which RLlib says in several lines what it finds wrong
        raise UserError(" ".join(errmsg.split()))

    def get_evaluation_config_object(self) -> Self | None:
        """Return RLlib's config of evaluation.

        Raises:
            UserError: `evaluation_config` names a setting that evaluation does not read.
        """
        config: Self | None = super().get_evaluation_config_object()
        if config is None:
            return None
        for key in self.evaluation_config or ():
            name = self._translate_special_keys(key, warn_deprecated=False)
            value = getattr(config, name)
            if settings.has_effect_in_evaluation(name):
                config.check_setting(name, value, config._has_stock_runner())
            elif not settings.same(name, value, getattr(self, name)):
                raise UserError(f"evaluation_config has no effect on {settings.parameter_of(name)!r}: set it outside")
        return config

    def _has_stock_runner(self) -> bool:
        return not issubclass(self.env_runner_cls, PopulationEnvRunner)


def check_value(attribute: str, value: Any) -> None:
    """Check that a setting takes a value, unless Tune is to choose it.

    Raises:
        UserError: it does not.
    """
    name = settings.parameter_of(attribute)
    if name in VALUES and not is_searched(value):
        VALUES[name].check(name, source_of(value) if name == "input_" else value)


@functools.cache
def rllib_attributes() -> frozenset[str]:
    """Return the names of all attributes of RLlib's own config."""
    return frozenset(vars(AlgorithmConfig()))


@functools.cache
def defaults_of(config_class: type[CheckedConfig]) -> dict[str, Any]:
    """Return every attribute of a config that nobody has changed."""
    return dict(vars(config_class()))


def is_ours(spec: Any) -> bool:
    """Return whether a module's specification names a class of ours and nothing else."""
    empty = vars(RLModuleSpec())
    given = {name: value for name, value in vars(spec).items() if name not in empty or value != empty[name]}
    own = given.get("module_class", PopulationModule)
    return given.keys() <= {"module_class"} and issubclass(own, PopulationModule)
