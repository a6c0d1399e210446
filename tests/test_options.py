"""Every option is documented, read, and checked; options stack over members and slice back."""

import dataclasses
import math
import re
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dr3_ray.algorithms.registry import ALGORITHMS, find, kinds_of
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data.mixing import Mixing
from dr3_ray.errors import UserError
from dr3_ray.options import Options, checked
from dr3_ray.regularizers.head import Head
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS
from dr3_ray.training.member import Member
from tests.conftest import IMAGE, SPACES, random_data

ALL_OPTIONS: list[type[Options]] = [
    *dict.fromkeys(spec.options for kinds in ALGORITHMS.values() for spec in kinds.values()),
    *REGULARIZER_OPTIONS,
]
# what a field is changed to where the rule below does not do, and what has to stand beside it to show
CHANGED = {
    "critic_actions": "input",
    "td_actions": "sampled",
    "q_of_target": "min",
    "hidden_sizes": (10,),
    "loss": "squared",
    "dr3_form": "abs",
    "dr3_features": "encoder",
    "dr3_divisor": "batch",
    "bc_steps": 2.0,
    "warm_start_steps": 0.0,
    "divergence": "mmd",
    "mmd_kernel": "gaussian",
    "cql_form": "rho",
    "max_backup": "max_min",
    "lagrange": "common",
    "gamma": 0.5,
    "policy_noise": 0.5,
    "normalize_observations": True,
    "mixture": "one_hot",
    "dr3_warmup_steps": 100.0,
    "dr3_adaptive": "dot_product",
    "critic_norm": "unit",
    "critic_dropout": 0.5,
    "huber_kappa": 0.01,
    "encoder": "cog",
    "precision": "bf16",
    "target_share": 0.5,
    "reward_scaling": "return_range",
    "hindsight": "future",
    "critic_head": "two_hot",
    "v_min": -5.0,
    "v_max": 5.0,
}
BESIDE: dict[str, dict[str, Any]] = {
    "tau": {"target_period": 1},
    "target_period": {"target_period": 1},
    "loss": {"critic_lr": 0.1},
    "double_q": {"critic_lr": 0.1},
    "weight_clip": {"weight_clip": 1.0},
    "noise_clip": {"policy_noise": 1.0},
    "policy_delay": {"policy_delay": 1},
    "behaviour_steps": {"behaviour_steps": 1},
    "mmd_kernel": {"divergence": "mmd"},
    "mmd_sigma": {"divergence": "mmd"},
    "cql_clip_below": {"cql_form": "rho", "cql_clip_below": 0.0},  # this form's gap is sometimes negative
    "cql_clip_above": {"cql_clip_above": 1.0},
    "lagrange_threshold": {"lagrange": "authors"},
    "lagrange_lr": {"lagrange": "authors"},
    "dr3_threshold": {"dr3_adaptive": "dot_product"},
    "dr3_multiplier_lr": {"dr3_adaptive": "dot_product"},
    "bottleneck_coeff": {"critic_bottleneck": True},
    "dr3_features": {"encoder": "cog"},
    **{name: {"critic_head": "hl_gauss"} for name in ("bins", "v_min", "v_max", "sigma")},
    "precision": {"hidden_sizes": (256, 256), "batch_size": 64},  # small products are exact
    "hindsight": {"hindsight": "final", "hindsight_threshold": 1.0},  # random rewards do not tell it
    "hindsight_ratio": {"hindsight": "final", "hindsight_threshold": 1.0},
    "hindsight_threshold": {"hindsight": "final", "hindsight_threshold": 1.0},
    "hindsight_terminal": {"hindsight": "final", "hindsight_threshold": 1.0},
    "dr3_form": {"hidden_sizes": ()},  # φ is the observation itself: of either sign, as a ReLU's output never is
}


def changed(field: "dataclasses.Field[Any]", value: Any) -> Any:
    """Another allowed value."""
    if field.name in CHANGED:
        return CHANGED[field.name]
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 0.5 + 0.1


def every_option() -> list[Any]:
    return [
        pytest.param(spec, field, id=f"{name}-{kind}-{field.name}")
        for name, kinds in ALGORITHMS.items()
        for kind, spec in kinds.items()
        for options in (spec.options, *(REGULARIZER_OPTIONS if spec.has_critic else ()))
        for field in dataclasses.fields(options)
        if field.name != "compile"  # which changes nothing but how long it takes: see test_compiled.py
        if not (kind == "continuous" and field.name == "dr3_match_actions")
        if not (name == "DR3-CalQL" and field.name.startswith(("hindsight", "reward_clip")))  # refused: test_cal_ql.py
        if not (options is Head and {"n_quantiles", "n_heads"} & set(spec.options.names()))
        and not (field.name == "precision" and not torch.ops.mkldnn._is_mkldnn_bf16_supported())
    ]


@pytest.fixture(scope="module")
def bases() -> dict[str, dict[str, Tensor]]:
    """What runs end in whose option is not changed: many options are compared with the same one."""
    return {}


@pytest.mark.spread(3)
@pytest.mark.parametrize(("algorithm", "field"), every_option())
@pytest.mark.usefixtures("without_shape_checks")
def test_every_option_changes_the_run(
    algorithm: AlgorithmSpec, field: Any, make_population: Any, bases: dict[str, dict[str, Tensor]]
):
    """Three updates from the same seed end in other losses, or other parameters."""

    spaces = SPACES[algorithm.action_kind]
    if field.name in ("encoder", "random_crop", "dr3_features"):
        spaces = spaces._replace(observation_shape=IMAGE)
    if field.name.startswith("hindsight"):
        spaces = spaces._replace(observation_shape={"achieved_goal": (2,), "desired_goal": (2,), "observation": (3,)})
    data = random_data(algorithm.action_kind, shape=spaces.observation_shape)
    if field.name == "target_share":
        data.mixing = Mixing(("prior", "target"), (150, 50), ((Fraction(9, 10), Fraction(1, 10)),))

    def outcome(values: dict[str, Any]) -> dict[str, Tensor]:
        population = make_population(algorithm, [values], spaces=spaces, data=data)
        return population.update(3) | population.networks.state_dict()

    known = Member.from_dict(algorithm, {}).to_dict()
    beside = {name: value for name, value in BESIDE.get(field.name, {}).items() if name in known}
    key = f"{algorithm.name} {spaces} {beside} {data.mixing}"
    base = bases[key] = bases.get(key) or outcome(beside)
    value = Member.from_dict(algorithm, beside).to_dict()[field.name]
    other = outcome(beside | {field.name: changed(field, value)})
    assert any(base[name].shape != other[name].shape or not torch.equal(base[name], other[name]) for name in base), (
        f"{field.name} is read nowhere"
    )


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=lambda options: options.__name__)
def test_every_option_is_documented_and_has_a_default(options: type[Options]):
    for field in dataclasses.fields(options):
        assert len(field.metadata["doc"]) > 5, field.name
        assert getattr(options(), field.name) == (
            float(field.default) if field.metadata["number"] else field.default
        ), field.name
    assert dict(options()).keys() == {field.name for field in dataclasses.fields(options)}


@given(st.sampled_from(ALL_OPTIONS), st.integers(1, 999), st.sampled_from(["k", "M", "K", "e3", "_000"]))
def test_a_count_is_a_number_of_every_option_that_takes_one(options: type[Options], number: int, unit: str):
    """As people write it, wherever the number itself is taken."""
    text, value = f"{number}{unit}", number * (10**6 if unit == "M" else 1000)
    for field in dataclasses.fields(options):
        if type(field.default) not in (int, float):
            continue
        try:
            taken = checked(field, value)
        except UserError as error:
            with pytest.raises(UserError, match=re.escape(str(error))):
                checked(field, text)
        else:
            assert checked(field, text) == taken == value


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=lambda options: options.__name__)
def test_an_unknown_option_fails(options: type[Options]):
    with pytest.raises(UserError, match=r"unknown option 'gama': .* has .*"):
        options.from_dict({"gama": 0.9})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gamma": 1.5}, r"gamma = 1\.5 is outside \[0, 1\]"),
        ({"gamma": math.nan}, "gamma must be a finite number"),
        ({"critic_lr": -1.0}, "critic_lr = -1.0 is outside"),
        ({"critic_lr": math.inf}, "finite"),
        ({"critic_lr": "fast"}, "critic_lr must be a finite number, not 'fast'"),
        ({"critic_lr": True}, "critic_lr must be a finite number"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"batch_size": 32.0}, "batch_size must be of type int, not 32.0"),
        ({"hidden_sizes": [64, 0]}, r"hidden_sizes must be a list of positive integers, not \[64, 0\]"),
        ({"hidden_sizes": [64, True]}, "hidden_sizes must be a list of positive integers"),
        ({"hidden_sizes": "wide"}, "hidden_sizes must be a list of positive integers"),
        ({"double_q": 1}, "double_q must be of type bool"),
        ({"loss": "cubic"}, "loss must be one of huber, squared, not 'cubic'"),
        ({"encoder": "resnet"}, "encoder must be one of flat, nature_cnn, impala, cog, not 'resnet'"),
        ({"encoder": {"camera": 3}}, "encoder must be of type str, not 3"),
        ({"random_crop": -1}, "random_crop must be at least 0, not -1"),
        ({"dr3_coeff": -0.1}, "dr3_coeff = -0.1 is outside"),
        ({"dr3_form": "cosine"}, "dr3_form must be one of dot, abs, not 'cosine'"),
        ({"dr3_coef": 0.1}, "unknown option 'dr3_coef': DR3 has"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 1.0}, "seed must be a whole number"),
    ],
    ids=str,
)
def test_a_wrong_value_fails_in_one_line(values: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message) as error:
        Member.from_dict(find("DR3-DQN", "discrete"), values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=lambda options: options.__name__)
def test_an_option_without_effect_fails_in_one_line(options: type[Options]):
    for field in dataclasses.fields(options):
        for needed, values in field.metadata["needs"].items():
            value = changed(field, field.default)
            with pytest.raises(UserError, match=f"{field.name} has no effect with {needed}=.*: set {needed} to"):
                options.from_dict({field.name: value})
            assert getattr(options.from_dict({field.name: value, needed: values[0]}), field.name) == value


def test_regularising_what_has_no_such_thing_fails():
    with pytest.raises(UserError, match="BC has no critic to regularise: leave out dr3_coeff"):
        Member.from_dict(find("BC", "discrete"), {"dr3_coeff": 0.1})
    with pytest.raises(UserError, match="dr3_match_actions compares the heads of a discrete critic"):
        Member.from_dict(find("DR3-CQL", "continuous"), {"dr3_match_actions": True})


def test_unknown_algorithms_and_spaces_fail_with_what_there_is():
    with pytest.raises(UserError, match="unknown algorithm 'CQL': did you mean 'DR3-CQL'"):
        kinds_of("CQL")
    with pytest.raises(
        UserError, match=r"DR3-DQN needs discrete actions, .* continuous ones: use DR3-CQL, DR3-CalQL, DR3-SARSA"
    ):
        find("DR3-DQN", "continuous")


def test_plain_values_round_trip(spec: AlgorithmSpec):
    member = Member.from_dict(spec, {"seed": 3, "hidden_sizes": [8, 8]})
    assert Member.from_dict(spec, member.to_dict()) == member
    assert member.to_dict()["hidden_sizes"] == [8, 8]


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5), st.data())
def test_stacking_then_slicing_is_the_identity(gammas: list[float], data: st.DataObject):
    options = find("DR3-CQL", "discrete").options
    stacked = options.stack([options(gamma=gamma) for gamma in gammas], dtype=torch.float64)  # type: ignore[call-arg]
    assert stacked.gamma.tolist() == gammas  # type: ignore[attr-defined]
    k = data.draw(st.integers(0, len(gammas) - 1))
    one = stacked.members(slice(k, k + 1))
    for name, value in options(gamma=gammas[k]):  # type: ignore[call-arg]
        sliced = getattr(one, name)
        assert (sliced.tolist() == [value]) if name in options.numbers() else (sliced == value), name


def test_structure_cannot_differ_inside_a_pack():
    with pytest.raises(UserError, match=r"hidden_sizes cannot differ inside a pack \(\(64,\), \(8,\)\)"):
        options = find("DR3-DQN", "discrete").options
        options.stack([options(hidden_sizes=(64,)), options(hidden_sizes=(8,))])  # type: ignore[call-arg]
