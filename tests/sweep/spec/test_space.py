"""Values of an axis: drawn, zipped, conditional, left out; and specifications in files."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.cli.specfile import read_spec
from dr3_ray.errors import UserError
from dr3_ray.sweep.spec.condition import ValueCondition, meets
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.space import Choice, LogUniform, Uniform, expand, ordered
from dr3_ray.sweep.spec.spec import SweepSpec


def swept(data: str, *names: str, **values) -> list[tuple]:
    """What members differ in; one seed, no rollouts."""
    sweep = SweepSpec(**{"datasets": [data], "seeds": 1, "coefficients": [0.1], "environment": "none"} | values)
    assert SweepSpec(**json.loads(sweep.model_dump_json())) == sweep  # run.json holds it whole
    return [tuple(config.get(name) for name in names) for config in members(sweep).values()]


def drawn(space, name="critic_lr", seed=0) -> list:
    return [value for point in space.points(name, seed) for value in point.values()]


@given(low=st.floats(1e-9, 1), factor=st.floats(1.01, 1e6), seed=st.integers(0, 9))
def test_drawn_numbers_keep_their_bounds_and_are_the_same_every_time(low, factor, seed):
    for kind, name in ((Uniform, "uniform"), (LogUniform, "log_uniform")):
        few, many = (drawn(kind(**{name: (low, low * factor)}, samples=n), seed=seed) for n in (3, 20))
        assert len(many) == 20
        assert few == many[:3]  # more of them keep those before
        assert all(low <= value <= low * factor for value in many)


def test_what_is_drawn_is_spread_and_differs_by_axis_and_seed():
    space = LogUniform(log_uniform=(1e-6, 1e2), samples=4000, also=(0.0,))
    zero, *values = drawn(space)
    assert zero == 0.0
    logs = [math.log10(value) for value in values]
    assert abs(sum(logs) / 4000 - (-2)) < 0.12  # 8 / sqrt(12 * 4000) = 0.037
    assert all(value == float(f"{value:.4g}") for value in values)
    assert drawn(space) != drawn(space, name="tau") != drawn(space, seed=1)
    assert set(drawn(Choice(choice=("a", "b", "c"), samples=50))) == {"a", "b", "c"}


def test_the_same_numbers_on_every_machine():
    assert drawn(LogUniform(log_uniform=(1e-5, 1e-2), samples=3)) == [1.635e-05, 0.0002983, 1.144e-05]
    assert drawn(Uniform(uniform=(0, 1), samples=3)) == [0.07116, 0.4916, 0.01947]


def test_zipped_lists_go_together(cartpole):
    both = {"zip": {"batch_size": [16, 32, 64], "critic_lr": {"log_uniform": [1e-4, 1e-2], "samples": 3}}}
    alone = drawn(LogUniform(log_uniform=(1e-4, 1e-2), samples=3))
    found = swept(cartpole, "batch_size", "critic_lr", axes={"size and step": both})
    assert found == list(zip([16, 32, 64], alone, strict=True))


def test_conditions_on_algorithm_options_and_coefficient(cartpole):
    axes = {
        "cql_alpha": {"grid": [0.5, 1.0], "when": {"algorithm": "DR3-CQL"}},
        "dr3_warmup_steps": {"grid": [5, 10], "when": {"dr3_coeff": {"min": 0.01}, "cql_alpha": {"not": 0.5}}},
        "double_q": [True],
    }
    names = ("algorithm", "dr3_coeff", "cql_alpha", "dr3_warmup_steps")
    values = {"algorithms": ["DR3-CQL", "DR3-DQN"], "coefficients": [0, 0.1]}
    default = swept(cartpole, "dr3_warmup_steps")[0][0]
    assert swept(cartpole, *names, **values, axes=axes) == [
        ("DR3-CQL", 0, 0.5, default),
        ("DR3-CQL", 0, 1.0, default),
        ("DR3-CQL", 0.1, 0.5, default),
        ("DR3-CQL", 0.1, 1.0, 5),
        ("DR3-CQL", 0.1, 1.0, 10),
        ("DR3-DQN", 0, None, default),
        ("DR3-DQN", 0.1, None, default),  # what is not there meets no condition
    ]


@pytest.mark.parametrize(
    ("condition", "value", "met"),
    [
        ({"x": 1}, 1, True),
        ({"x": 1}, 2, False),
        ({"x": [1, 2]}, 2, True),
        ({"x": [64, 64]}, [64, 64], True),
        ({"x": [[64, 64], [8]]}, [8], True),
        ({"x": "abs"}, "abs", True),
        ({"y": 1}, 1, False),
        ({"x": ValueCondition(min=1, max=2)}, 2, True),
        ({"x": ValueCondition(min=1)}, 0.5, False),
        ({"x": ValueCondition(max=1)}, True, False),
        ({"x": ValueCondition(**{"not": [1, 2]})}, 2, False),
        ({"x": ValueCondition(**{"not": 1})}, "a", True),
        ({"x": ValueCondition(min=0, **{"not": 0})}, 0, False),
        ({}, 1, True),
    ],
)
def test_when_a_condition_is_met(condition, value, met):
    assert meets(condition, {"x": value}) is met


def test_exclude_leaves_out_what_meets_all_of_one_condition(cartpole):
    said: list[str] = []
    axes = {"tau": [0.5, 1.0], "critic_lr": [1e-4, 1e-3]}
    conditions = [{"tau": 0.5, "critic_lr": {"max": 2e-4}}, {"seed": 1, "tau": 1.0}, {"dataset": "elsewhere"}]
    sweep = SweepSpec(
        datasets=[cartpole], seeds=2, coefficients=[0.1], environment="none", axes=axes, exclude=conditions
    )
    found = [(c["tau"], c["critic_lr"], c["seed"]) for c in members(sweep, said.append).values()]
    assert found == [(0.5, 1e-3, 0), (0.5, 1e-3, 1), (1.0, 1e-4, 0), (1.0, 1e-3, 0)]
    assert said == ["exclude.2 leaves nothing out: no member meets it"]


def test_a_value_that_is_listed_twice_is_told_and_trained_once(cartpole):
    said: list[str] = []
    axes = {
        "tau": [0.5, 1.0],
        "batch_size": {"grid": [8, 16, 8, 8]},
        "both": {"zip": {"critic_lr": [1e-3, 1e-4, 1e-3], "target_period": [1, 1, 1]}},
        "n_step": {"choice": [1, 1], "samples": 2},
    }
    sweep = SweepSpec(datasets=[cartpole] * 2, seeds=1, coefficients=[0, 0.1, 0.1], environment="none", axes=axes)
    assert len(members(sweep, said.append)) == 2 * 2 * 2 * 2
    assert said == [
        f"datasets: {cartpole} is there more than once, and is trained once",
        "coefficients: 0.1 is there more than once, and is trained once",
        "axes.batch_size: 8 is there more than once, and is trained once",
        "axes.both: (0.001, 1) is there more than once, and is trained once",
    ]


def test_a_budget_is_equal_for_all_and_a_larger_one_adds_to_it(cartpole, pendulum):
    asked = {"datasets": [cartpole, pendulum], "algorithms": ["DR3-CQL", "BC"], "environment": "none", "seeds": 2}
    asked["axes"] = {"batch_size": [8, 16, 32, 64, 128], "hidden_sizes": [[8], [16]]}

    def drawn_with(budget, sample_seed=0):
        sweep = SweepSpec(**asked, coefficients=[0, 0.1], budget=budget, sample_seed=sample_seed)
        return {
            (c["dataset"], c["algorithm"], c["batch_size"], tuple(c["hidden_sizes"]), c["dr3_coeff"], c["seed"])
            for c in members(sweep).values()
        }

    three, four, everything = drawn_with(3), drawn_with(4), drawn_with(None)
    assert len(three) == 2 * 2 * 3 * 2
    assert three < four < everything == drawn_with(1000)
    assert three != drawn_with(3, sample_seed=1)
    assert {(*each[:-1], 0) for each in three} == {(*each[:-1], 0) for each in three if each[-1] == 1}  # all seeds


def test_two_conditional_axes_that_set_one_option_exclude_each_other():
    axes = {
        "small": SweepSpec(datasets=["x"], axes={"a": {"zip": {"tau": [1]}, "when": {"algorithm": "A"}}}).axes["a"],
        "large": SweepSpec(datasets=["x"], axes={"a": {"zip": {"tau": [2]}, "when": {"algorithm": "B"}}}).axes["a"],
    }
    assert expand(ordered(axes, None), {"algorithm": "B"}, 0) == [{"tau": 2}]
    with pytest.raises(UserError, match=r"axes\.large: another axis has set 'tau' already"):
        expand(ordered(axes | {"small": (1,), "large": axes["large"], "tau": (3,)}, None), {"algorithm": "B"}, 0)


def test_a_file_is_read_as_people_mean_it(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "coefficients: [0, 1e-3, .5, 3E+2, -1, 1., .inf]\nenvironment: none\nwords: [no, on, 1e, 1:30, ~, true]\n"
    )
    assert read_spec(tmp_path / "a.yaml") == {
        "coefficients": [0, 1e-3, 0.5, 300.0, -1, 1.0, math.inf],
        "environment": "none",
        "words": ["no", "on", "1e", "1:30", None, True],
    }
    (tmp_path / "b.yaml").write_text(
        "a: [0777, 0o17, 0x1F, yes, y, 1e4, 12:30:00, 2020-01-01, 2001-12-14t21:59:43Z, =, TRUE, Null, '1', \"no\"]\n"
    )
    assert read_spec(tmp_path / "b.yaml")["a"] == [
        *(777, 15, 31, "yes", "y", 1e4, "12:30:00", "2020-01-01", "2001-12-14t21:59:43Z", "=", True, None, "1", "no")
    ]
    (tmp_path / "a.json").write_text(json.dumps({"steps": 10, "axes": {"tau": [0.1, 1]}}))
    assert read_spec(tmp_path / "a.json") == {"steps": 10, "axes": {"tau": [0.1, 1]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1\nc: 2\n", "line 3 is not YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3 is not YAML: 'a' is there twice"),
        ("axes:\n  tau: [1]\n  tau: [2]\n", "line 3 is not YAML: 'tau' is there twice"),
        ("s: s3://key:secret@b\ns: s3://key:secret@b\n", "line 2 is not YAML: 's' is there twice"),
        ("- a\n- b\n", "is not a specification"),
        ("1: a\n", "is not a specification"),
        ("", "is not a specification"),
        ("a: !!python/object:os.system x\n", "line 1 is not YAML"),
        ("a: " + "[" * 2_000, "is not YAML: it is nested too deeply"),
        ("a: \0\n", "is not YAML: it is not text"),
        ("a: [" + "0.1, " * 50_000 + "]", "is larger than 200 kB: give ranges instead of lists"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_file_that_is_none_is_told_in_one_line(tmp_path: Path, text, message):
    path = tmp_path / "spec.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as error:
        read_spec(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)
