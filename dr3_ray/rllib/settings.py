"""Every setting of RLlib's `AlgorithmConfig`: what it does here, or what takes its place.

`docs/rllib.md` shows this table. A test compares it with RLlib's own attributes and builder methods, so that a new
Ray cannot bring a setting that is accepted and ignored.
"""

from enum import Enum
from typing import Any, NamedTuple

from ray.rllib.algorithms.algorithm_config import DEPRECATED_VALUE
from ray.rllib.core import DEFAULT_MODULE_ID

from dr3_ray.errors import UserError
from dr3_ray.rllib.setting_values import VALUES
from dr3_ray.rllib.settings_table import INTERNAL, REFUSED, WITH_STOCK_RUNNER, WORKS, WORKS_IN_EVALUATION


class Use(Enum):
    """The place where a setting has an effect."""

    WORKS = "yes"
    EVALUATION = "yes, and in `evaluation_config`"
    STOCK_RUNNER = "with an `env_runner_cls` of RLlib's"
    REFUSED = "no"


class Setting(NamedTuple):
    """A setting by its name in RLlib's builder methods."""

    name: str
    use: Use
    text: str  # what it does; if it is refused, what to use instead


def _table() -> dict[str, Setting]:
    works = [Setting(name, Use.WORKS, text) for name, text in WORKS.items()]
    works += [Setting(name, Use.EVALUATION, text) for name, text in WORKS_IN_EVALUATION.items()]
    grouped = [(Use.STOCK_RUNNER, WITH_STOCK_RUNNER), (Use.REFUSED, REFUSED)]
    others = [Setting(name, use, text) for use, groups in grouped for text, names in groups.items() for name in names]
    settings: dict[str, Setting] = {}
    for setting in (*works, *others):
        if setting.name in settings:
            raise AssertionError(f"{setting.name} stands twice in the table of settings")
        settings[setting.name] = setting
    return settings


SETTINGS = _table()
# attributes that RLlib's builder methods set under another name
PARAMETERS = {
    "_env_to_module_connector": "env_to_module_connector",
    "_is_atari": "is_atari",
    "_learner_class": "learner_class",
    "_learner_connector": "learner_connector",
    "_model_config": "model_config",
    "_module_to_env_connector": "module_to_env_connector",
    "_per_module_overrides": "algorithm_config_overrides_per_module",
    "_rl_module_spec": "rl_module_spec",
    "_train_batch_size_per_learner": "train_batch_size_per_learner",
    "dataset_num_iters_per_eval_runner": "dataset_num_iters_per_offline_eval_runner",
    "framework_str": "framework",
    "stats_cls_lookup": "custom_stats_cls_lookup",
}
ATTRIBUTES = {parameter: attribute for attribute, parameter in PARAMETERS.items()}
CALLBACK = "callbacks_"  # before the names of callbacks' attributes


def parameter_of(attribute: str) -> str:
    """Return the name in a builder method for an attribute."""
    if attribute.startswith(f"{CALLBACK}on_"):
        return attribute.removeprefix(CALLBACK)
    return PARAMETERS.get(attribute, attribute)


def attribute_of(parameter: str) -> str:
    """Return the name of the attribute that a builder method sets by a parameter."""
    if parameter.startswith("on_"):
        return f"{CALLBACK}{parameter}"
    return ATTRIBUTES.get(parameter, parameter)


def is_internal(attribute: str) -> bool:
    """Return whether RLlib itself sets the attribute while it builds an algorithm."""
    return attribute in INTERNAL


def has_effect_in_evaluation(attribute: str) -> bool:
    """Return whether `evaluation_config` may change the attribute."""
    setting = SETTINGS.get(parameter_of(attribute))
    return setting is not None and setting.use in (Use.EVALUATION, Use.STOCK_RUNNER)


def check(algorithm: str, attribute: str, value: Any, default: Any, stock_runner: bool | None = None) -> None:
    """Check that the value is the default or has an effect.

    `stock_runner`: whether evaluation is RLlib's own; None: not known yet, so that what only that reads is accepted.

    Raises:
        UserError: it has no effect.
    """
    if is_internal(attribute) or same(attribute, value, default):
        return
    name = parameter_of(attribute)
    setting = SETTINGS.get(name)
    if setting is None:
        if same(attribute, default, DEPRECATED_VALUE):
            raise UserError(f"{algorithm} has no setting {name!r}: RLlib has given it up; leave it out")
        raise UserError(f"{algorithm} does not know RLlib's setting {name!r}: leave it out")
    if setting.use is Use.REFUSED:
        raise UserError(f"{algorithm} has no setting {name!r}: {setting.text}")
    if setting.use is Use.STOCK_RUNNER and stock_runner is False:
        raise UserError(
            f"{name!r} has an effect in RLlib's own runner only: {setting.text}, or "
            "env_runner_cls=SingleAgentEnvRunner, which plays with the first member"
        )


def same(attribute: str, value: Any, default: Any) -> bool:
    """Return whether two values of a setting mean the same."""
    if attribute == "policies":  # RLlib turns what is in it from objects into dicts
        return isinstance(value, dict) and value.keys() == default.keys() == {DEFAULT_MODULE_ID}
    if value is default:
        return True
    if isinstance(value, bool) != isinstance(default, bool):  # 0 is not False
        return False
    try:
        return bool(_as_json(value) == _as_json(default))
    except ValueError:  # arrays
        return False


def _as_json(value: Any) -> Any:
    """Return a value as it comes back from JSON, in which Tune keeps the settings of a trial."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    return value


def documented_table() -> str:
    """Return the table in Markdown, as `docs/rllib.md` shows it."""
    rows = ["| Setting | Works | Here | Takes |", "|---|---|---|---|"]
    for setting in SETTINGS.values():
        if setting.use in (Use.WORKS, Use.EVALUATION):
            values = _cell(VALUES[setting.name].text)
            rows.append(f"| `{setting.name}` | {setting.use.value} | {_cell(setting.text)} | {values} |")
    for use, groups in ((Use.STOCK_RUNNER, WITH_STOCK_RUNNER), (Use.REFUSED, REFUSED)):
        for text, names in groups.items():
            rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {use.value} | {_cell(text)} | |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
