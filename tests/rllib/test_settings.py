"""No setting of RLlib's is accepted and ignored: the table is whole, and what it refuses is refused on every way in."""

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import tune
from ray.rllib.algorithms.algorithm_config import DEPRECATED_VALUE, AlgorithmConfig, NotProvided
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.utils.serialization import TuneFunctionDecoder, TuneFunctionEncoder

import dr3_ray
from dr3_ray import UserError
from dr3_ray.rllib import settings
from dr3_ray.rllib.config import CLASSES
from dr3_ray.rllib.env_runner import PopulationEnvRunner
from dr3_ray.rllib.learner import PopulationLearner
from dr3_ray.rllib.module import PopulationModule
from dr3_ray.rllib.setting_values import (
    COUNT,
    EPISODES,
    FLAG,
    FUNCTION,
    FUNCTIONS,
    NAMED,
    POSITIVE,
    PROCESSES,
    RESOURCES,
    SECONDS,
    SHARE,
    SPACE,
    VALUES,
    Values,
)
from dr3_ray.rllib.settings import SETTINGS, Setting, Use, attribute_of, documented_table, parameter_of

DATA = "embedded:breakout-replay"
PAGE = Path(__file__).parents[2] / "docs" / "rllib.md"
ATTRIBUTES = vars(AlgorithmConfig())
ATTRIBUTE_OF = {parameter_of(attribute): attribute for attribute in ATTRIBUTES}
BUILDERS = [method for name, method in inspect.getmembers(AlgorithmConfig, inspect.isfunction) if name[0] != "_"]
REFUSED = [name for name, setting in SETTINGS.items() if setting.use is Use.REFUSED and name != "gamma"]
OWN = ("members", "updates_per_iteration", "planned_updates", "execution", "inherited")
OTHERS = {
    "env_to_module_connector": max,
    "module_to_env_connector": max,
    "merge_env_runner_states": False,
    "gym_env_vectorize_mode": "async",
}


def config() -> Any:
    return dr3_ray.DR3CQLConfig().offline_data(input_=DATA).training(hidden_sizes=[8], batch_size=8)


def other(value: Any, name: str = "") -> Any:
    """A value of the same kind that is not the same."""
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 2
    if isinstance(value, dict):
        return {**value, "of mine": 1}
    return "another"


def one_line(action: Callable[[], object], name: str) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and name in message, message
    return message


def test_every_attribute_and_every_parameter_of_rllibs_configs_stands_in_the_table() -> None:
    attributes = {parameter_of(name) for name, value in ATTRIBUTES.items() if not settings.is_internal(name)}
    given_up = {name for name in attributes if ATTRIBUTES.get(name) == DEPRECATED_VALUE}
    parameters = {
        name
        for method in BUILDERS
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.default is NotProvided  # RLlib's mark of a setting; others have another default
    }
    assert attributes - given_up - SETTINGS.keys() == set(), "say in settings_table.py what these do here"
    assert parameters - SETTINGS.keys() == set(), "say in settings_table.py what these do here"
    assert SETTINGS.keys() - attributes == set(), "RLlib has these no longer"


def test_a_new_setting_of_rllibs_would_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    without = {name: setting for name, setting in SETTINGS.items() if name != "evaluation_interval"}
    monkeypatch.setattr(settings, "SETTINGS", without)
    assert "does not know" in one_line(lambda: config().evaluation(evaluation_interval=3), "evaluation_interval")


def test_the_documentation_shows_the_table() -> None:
    assert documented_table() in PAGE.read_text()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_on_every_way_in(name: str) -> None:
    attribute = ATTRIBUTE_OF[name]
    default = getattr(config(), attribute)
    value = other(default)
    message = one_line(lambda: setattr(config(), attribute, value), name)
    assert SETTINGS[name].text in message
    one_line(lambda: config().__setitem__(attribute, value), name)
    one_line(lambda: config().update_from_dict({attribute: value}), name)
    one_line(lambda: config().update_from_dict({attribute: tune.choice([value])}), name)
    with_evaluation = config().evaluation(evaluation_config={attribute: value})
    one_line(lambda: with_evaluation.get_evaluation_config_object(), name)
    if isinstance(default, dict):
        changed = config()
        getattr(changed, attribute)["of mine"] = 1
        one_line(changed.validate, name)


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if setting.use is Use.STOCK_RUNNER])
def test_what_only_rllibs_runner_reads_is_refused_with_ours(name: str) -> None:
    attribute = ATTRIBUTE_OF[name]
    changed = config()
    setattr(changed, attribute, other(getattr(changed, attribute), name))
    one_line(changed.validate, name)
    with_evaluation = config().evaluation(evaluation_config={attribute: other(getattr(config(), attribute), name)})
    one_line(with_evaluation.get_evaluation_config_object, name)
    with_evaluation.env_runners(env_runner_cls=SingleAgentEnvRunner).get_evaluation_config_object()


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if setting.use is Use.WORKS])
def test_evaluation_has_no_other_training_settings(name: str) -> None:
    attribute = ATTRIBUTE_OF[name]
    if attribute == "evaluation_config":
        return  # RLlib keeps none within it
    changed = config().evaluation(evaluation_config={attribute: other(getattr(config(), attribute))})
    one_line(changed.get_evaluation_config_object, name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.learners(learner_config_dict={"dr3_coeff": 1.0}).validate(), "set dr3_coeff"),
        (lambda c: c.training(lr=1e-3), "set critic_lr"),
        (lambda c: c.update_from_dict({"lr": 0.001}), "set critic_lr"),  # RLlib's own default
        (lambda c: c.update_from_dict({"train_batch_size": 32}), "set batch_size"),  # also
        (lambda c: c.training(train_batch_size_per_learner=8), "set batch_size"),
        (lambda c: c.training(model={"fcnet_hiddens": [8]}), "set hidden_sizes"),
        (lambda c: c.update_from_dict({"model": {"fcnet_hiddens": [8]}}), "set hidden_sizes"),
        (lambda c: c.rl_module(model_config={"fcnet_hiddens": [8]}), "set hidden_sizes"),
        (lambda c: c.learners(learner_connector=lambda *_: None), "random_crop"),
        (lambda c: c.env_runners(num_env_runners=2), "evaluation_num_env_runners"),
        (lambda c: c.update_from_dict({"num_workers": 2}), "evaluation_num_env_runners"),
        (lambda c: c.multi_agent(policies={"left", "right"}), "an algorithm for each agent"),
        (lambda c: c.update_from_dict({"multiagent": {"policies": {"a"}}}), "an algorithm for each agent"),
        (lambda c: c.framework("tf2"), "TensorFlow"),
        (lambda c: c.evaluation(offline_evaluation_interval=1), "under members"),
        (lambda c: c.update_from_dict({"buffer_size": 100}), "given it up"),
        (lambda c: c.update_from_dict({"replay_buffer_config": {"capacity": 1}}), "no setting 'replay_buffer_config'"),
        (lambda c: setattr(c, "learning_rate", 1.0), "no setting 'learning_rate'"),
        (lambda c: c.population(updates_per_iteration=-1), "RLlib's mark"),
        (lambda c: setattr(c, "cql_alpha", -1), "outside"),
        (lambda c: c.offline_data(input_=["a", "b"]), "names 2 data sets"),
        (lambda c: c.evaluation(evaluation_interval=1).validate(), "there is no environment"),
        (
            lambda c: c.evaluation(evaluation_duration=0).validate(),
            "must be 'auto' or a whole number from 1 to 10^15, not 0",
        ),
        (lambda c: c.evaluation(evaluation_auto_duration_min_env_steps_per_sample=5000).validate(), "is more than"),
        (lambda c: c.update_from_dict(3), "a dict whose keys are texts"),
        (lambda c: c.update_from_dict({3: 3}), "a dict whose keys are texts"),
        (lambda c: c.population([]).validate(), "at least one member"),
        (lambda c: c.evaluation(evaluation_duration="auto").validate(), "evaluation_parallel_to_training"),
        (lambda c: c.evaluation(evaluation_duration_unit="minutes").validate(), "one of 'episodes', 'timesteps', not"),
        (lambda c: c.environment(lambda env_config: None).build_algo(), "env is a name or a class"),
        (lambda c: c.evaluation(evaluation_config={"dr3_coeff": 0.5}).get_evaluation_config_object(), "no effect on"),
        (lambda c: c.learners(learner_class=TorchLearner).validate(), "with_dr3_learner"),
        (lambda c: c.rl_module(rl_module_spec=RLModuleSpec(module_class=TorchRLModule)).validate(), "subclass of"),
        (lambda c: c.rl_module(rl_module_spec=RLModuleSpec(model_config={"a": 1})).validate(), "and nothing else"),
        (lambda c: dr3_ray.rllib.DR3CQL(AlgorithmConfig()), "takes a DR3CQLConfig, not AlgorithmConfig"),
        (lambda c: dr3_ray.rllib.DR3CQL(dr3_ray.BCConfig()), "takes a DR3CQLConfig, not BCConfig"),
    ],
)
def test_what_people_bring_from_rllib_is_one_line(change: Any, message: str) -> None:
    one_line(lambda: change(config()), message)


def test_classes_of_ones_own_work_if_they_are_ours() -> None:
    class Module(PopulationModule):
        pass

    class Learner(PopulationLearner):
        pass

    own = config().learners(learner_class=Learner).rl_module(rl_module_spec=RLModuleSpec(module_class=Module))
    own.validate()
    assert own.learner_class is Learner and own.rl_module_spec.module_class is Module


def test_a_config_is_the_same_after_a_copy_a_dict_or_tunes_json() -> None:
    given_config = config().environment("minatar:breakout").evaluation(evaluation_config={"explore": False})
    text = json.dumps(given_config.to_dict(), cls=TuneFunctionEncoder)
    saved = json.loads(text, cls=TuneFunctionDecoder, allow_cloudpickle=True)
    dicts = [dr3_ray.DR3CQLConfig().update_from_dict(values) for values in (given_config.to_dict(), saved)]
    for made in (given_config.copy(), *dicts):
        made.validate()
        assert made.to_dict().keys() == given_config.to_dict().keys() and made.env_runner_cls is PopulationEnvRunner


@given(
    st.recursive(
        st.sampled_from(["nature_cnn", "cog", "impala"]),
        lambda inner: st.dictionaries(st.sampled_from(["camera", "wrist"]), inner, min_size=1, max_size=2),
        max_leaves=3,
    )
)
def test_a_search_space_inside_of_an_options_mapping_is_left_to_tune(mapping: Any) -> None:
    searched = {"camera": tune.choice([mapping]), "wrist": "cog"}
    assert config().training(encoder=searched).encoder is searched


@pytest.mark.parametrize("wrap", [str, Path, lambda path: [path], lambda path: [Path(path)]])
def test_a_data_set_is_a_text_a_path_or_a_list_of_one(
    wrap: Any, cartpole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").symlink_to(cartpole)
    monkeypatch.chdir(tmp_path)
    made = dr3_ray.DR3CQLConfig().offline_data(input_=wrap("data"))
    monkeypatch.chdir("/")
    made.validate()
    assert made.is_offline and Path(made.input_).is_absolute()


def test_settings_have_one_text_each() -> None:
    assert all(isinstance(each, Setting) and each.text.strip() for each in SETTINGS.values())


class Wrong(NamedTuple):
    """Whatever people may give a setting, by its text."""

    values: dict[str, Any]

    def but(self, *taken: str) -> set[str]:
        return self.values.keys() - taken


ODD = Wrong(
    {
        "None": None, "True": True, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-2": -2, "-0.5": -0.5, "0": 0,
        "1.5": 1.5, "10**5": 10**5, "10**9": 10**9, "10**400": 10**400, "1e300": 1e300, "'1'": "1", "''": "",
        "'nonsense'": "nonsense", "[]": [], "[None]": [None], "[max]": [max], "{}": {}, "{3: 1}": {3: 1},
        "{'CPU': 1}": {"CPU": 1}, "{'x': 1}": {"x": 1}, "{'x': nan}": {"x": math.nan}, "max": max, "str": str,
        "[{}]": [{}],
    }
)  # fmt: skip
# which of these are values: of a kind, and of settings that are of none
OF_KINDS: list[tuple[Values, tuple[str, ...]]] = [
    (COUNT, ("0", "10**5", "10**9")),
    (POSITIVE, ("10**5", "10**9")),
    (PROCESSES, ("0",)),
    (EPISODES, ("10**5",)),
    (SHARE, ("0", "1.5")),
    (SECONDS, ("0", "1.5", "10**5")),
    (FLAG, ("True",)),
    (FUNCTION.or_none(), ("None", "max", "str")),
    (FUNCTIONS.or_none(), ("None", "max", "str", "[]", "[max]")),
    (NAMED, ("{}", "{'CPU': 1}", "{'x': 1}", "{'x': nan}")),
    (NAMED.or_none(), ("None", "{}", "{'CPU': 1}", "{'x': 1}", "{'x': nan}")),
    (RESOURCES, ("{}", "{'x': 1}")),
    (SPACE, ("None",)),
]
OF_SETTINGS: dict[str, tuple[str, ...]] = {
    "num_cpus_per_learner": ("0", "1.5"),
    "learner_class": ("None",),
    "rl_module_spec": ("None",),
    "input_": ("'1'", "'nonsense'"),
    "evaluation_interval": ("None", "0", "10**5", "10**9"),
    "evaluation_duration": ("10**5", "10**9"),
    "evaluation_duration_unit": (),
    "evaluation_error_after_n_consecutive_skips": ("None", "10**5", "10**9"),
    "min_time_s_per_iteration": ("None", "0", "1.5", "10**5"),
    "custom_stats_cls_lookup": ("{}",),
    "log_level": (),
    "placement_strategy": (),
    "env": ("None", "'1'", "'nonsense'", "max", "str"),
    "env_runner_cls": (),
    "callbacks_class": ("None", "[]"),
    "seed": ("None", "0", "10**5", "10**9"),
    "merge_env_runner_states": ("True",),
    "gym_env_vectorize_mode": (),
    "members": ("[]", "[{}]"),
    "execution": (),
}


def sets(method: Callable[..., Any], name: str) -> bool:
    parameter = inspect.signature(method).parameters.get(name)
    return parameter is not None and parameter.default is NotProvided


def taken_by(name: str) -> tuple[str, ...]:
    return next((taken for kind, taken in OF_KINDS if VALUES[name] == kind), OF_SETTINGS.get(name, ("no kind",)))


def test_every_setting_that_works_has_its_values() -> None:
    own = vars(config()).keys() - ATTRIBUTES.keys() - {*config().option_names(), "trial_seed", "_is_checked"}
    works = {name for name, setting in SETTINGS.items() if setting.use is not Use.REFUSED}
    assert works | own == VALUES.keys()
    assert all(set(taken_by(name)) <= ODD.values.keys() for name in VALUES)


@pytest.mark.parametrize("name", CLASSES)
def test_the_defaults_are_values(name: str) -> None:
    CLASSES[name].get_default_config().offline_data(input_=DATA).check_settings()


@pytest.mark.parametrize("name", VALUES)
def test_no_value_without_a_meaning_is_accepted_on_any_way_in(name: str) -> None:
    attribute = attribute_of(name)
    builder = next((method for method in BUILDERS if sets(method, name)), None)
    for text in ODD.but(*taken_by(name)):
        value = ODD.values[text]
        expected = one_line(lambda value=value: setattr(config(), attribute, value), name)
        one_line(lambda value=value: config().update_from_dict({attribute: value}), name)
        if builder or name in OWN:
            build = getattr(config(), builder.__name__ if builder else "population")
            assert one_line(lambda build=build, value=value: build(**{name: value}), name) == expected
        if settings.has_effect_in_evaluation(attribute):
            within = config().evaluation(evaluation_config={attribute: value})
            assert one_line(within.get_evaluation_config_object, name) == expected


@pytest.mark.parametrize("name", VALUES)
def test_values_with_a_meaning_and_search_spaces_are_accepted(name: str) -> None:
    attribute = attribute_of(name)
    for text in taken_by(name):
        config().update_from_dict({attribute: ODD.values[text]})
    setattr(config(), attribute, tune.choice([config()[attribute]]))


def test_what_was_changed_in_place_is_checked_before_training() -> None:
    changed = config().population([{"seed": 0}])
    changed.members.append(None)
    one_line(changed.validate, "members")
    changed = config().resources(custom_resources_for_main_process={"x": 1})
    changed.custom_resources_for_main_process["x"] = math.nan
    one_line(changed.validate, "custom_resources_for_main_process")
