"""From a spec to members: what is expanded, hashed and refused."""

import json
import random
import shutil
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr3_ray.algorithms.registry import ALGORITHMS, find
from dr3_ray.data import load_dataset
from dr3_ray.errors import UserError
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS
from dr3_ray.runs.identity import member_id
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.training.member import Member

numbers = st.lists(st.floats(0, 10), min_size=1, max_size=3, unique=True)


def test_a_member_is_its_full_configuration(cartpole):
    sweep = SweepSpec(datasets=[cartpole], coefficients=[0.5], seeds=1, steps=40, evaluations=4)
    (config,) = members(sweep).values()
    about = {
        "algorithm": "DR3-CQL",
        "dataset": cartpole,
        "data_fingerprint": load_dataset(cartpole).fingerprint,
        "steps": 40,
        "evaluations": 4,
        "environment": "gymnasium:CartPole-v1",
        "evaluation_episodes": 20,
        "seed": 0,
    }
    options = find("DR3-CQL", "discrete").options().to_dict()
    assert {"batch_size": 32, "hidden_sizes": [256, 256], "cql_alpha": 0.1}.items() <= options.items()
    for regularizer in REGULARIZER_OPTIONS:
        options |= regularizer().to_dict()
    assert config == about | options | {"dr3_coeff": 0.5}


@settings(deadline=None)
@given(coefficients=numbers, alphas=numbers, seeds=st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=3))
def test_every_combination_is_there_once(cartpole, coefficients, alphas, seeds):
    sweep = SweepSpec(
        datasets=[cartpole, cartpole],
        coefficients=coefficients,
        seeds=list(seeds),
        axes={"cql_alpha": alphas, "double_q": [True, False]},
        environment="none",
    )
    found = members(sweep)
    keys = {(c["dr3_coeff"], c["cql_alpha"], c["double_q"], c["seed"]) for c in found.values()}
    assert len(found) == len(keys) == len(coefficients) * len(alphas) * 2 * len(seeds)
    assert keys == {(c, a, q, s) for c in coefficients for a in alphas for q in (True, False) for s in seeds}


@pytest.fixture(scope="module")
def of_cartpole(cartpole):
    return members(SweepSpec(datasets=[cartpole], seeds=2, environment="none"))


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_hash_does_not_depend_on_the_order_of_keys(of_cartpole, source: random.Random):
    for member, config in of_cartpole.items():
        items = list(json.loads(json.dumps(config)).items())
        source.shuffle(items)
        assert member_id(dict(items)) == member


@pytest.mark.parametrize(
    ("asked", "here", "cpus"),
    [({}, 2, 1.0), ({"gpus": 0.5}, 2, 4.0), ({"gpus": 1}, 2, 8.0), ({"gpus": 0.01}, 2, 1.0), ({"gpus": 0.5}, 0, 1.0),
     ({"gpus": 0.5, "cpus": 3}, 2, 3.0)],
)  # fmt: skip
def test_a_trial_with_a_gpu_has_its_share_of_the_cpus(cartpole, monkeypatch, asked, here, cpus):
    monkeypatch.setattr("dr3_ray.compat.ray.get_num_cpus", lambda: 16)
    monkeypatch.setattr("torch.cuda.device_count", lambda: here)
    spec = SweepSpec(datasets=[cartpole], **asked)
    assert spec.cpus == cpus
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert SweepSpec(**spec.model_dump()).cpus == cpus  # what was written down for a run stays


def test_the_hash_of_a_configuration_stays_what_it_was():
    config = {"algorithm": "DR3-CQL", "dataset": "x", "dr3_coeff": 0.1, "hidden_sizes": [8, 8], "seed": 0, "steps": 10}
    assert member_id(config) == "6cc446cd6f5348fa"


HASHES = {  # of members with the defaults, as they were written: no change of the code may change one
    "DR3-DQN discrete": "5b4cee7dc758337f",
    "DR3-CQL discrete": "e0d97f4447c5c5f9",
    "DR3-CQL continuous": "7727af3ac8d593e8",
    "DR3-CalQL continuous": "74eff1cb173911ec",
    "DR3-SARSA discrete": "ab7ab443a979a34a",
    "DR3-SARSA continuous": "cfd5e80e9c914c7f",
    "DR3-IQL discrete": "461342ab619bd8b4",
    "DR3-IQL continuous": "ed24cd1d112968c2",
    "DR3-AWAC discrete": "f309adf31001c923",
    "DR3-AWAC continuous": "ef01b36dee167fec",
    "DR3-REM discrete": "578613d510cc29c1",
    "DR3-TD3BC continuous": "0245c46f5a5a4541",
    "DR3-ReBRAC continuous": "c39a079f70c71c0e",
    "DR3-EDAC continuous": "cc0aa1d282acb099",
    "DR3-FQL continuous": "9774f218641958ba",
    "DR3-BRAC continuous": "4dcb778feea5c13a",
    "DR3-QRDQN discrete": "2678e04365f5034d",
    "DR3-QRCQL discrete": "d9ce5c205e0b5dbe",
    "DR3-TD discrete": "93fe0c1e67b4c2b2",
    "DR3-TD continuous": "5f080f96edbdb1f1",
    "DR3-MC discrete": "de16c0c432fba4fe",
    "DR3-MC continuous": "a56b890ac991954f",
    "BC discrete": "035a90109c3fc2c7",
    "BC continuous": "aa285f8bab928dae",
}


def test_options_that_came_later_do_not_change_the_members_that_were_there():
    """Or a sweep that was begun before them would train everything again; `identity.LATER` names their defaults."""
    data = {"discrete": "embedded:breakout-replay", "continuous": "embedded:pendulum-replay"}
    about = {"coefficients": [0.1], "seeds": 1, "steps": 100, "evaluations": 2, "environment": "none"}
    found = {
        f"{name} {kind}": next(iter(members(SweepSpec(algorithms=[name], datasets=[data[kind]], **about))))
        for name, forms in ALGORITHMS.items()
        for kind in forms
    }
    assert {name: found[name] for name in HASHES} == HASHES


def test_a_spec_without_drawing_has_the_members_it_always_had(cartpole):
    """Options one by one in a product, in this order: runs of earlier versions are found again."""
    sweep = SweepSpec(
        datasets=[cartpole], coefficients=[0, 0.1], seeds=[4, 2], axes={"tau": [1, 0.5], "double_q": [True, False]},
        options={"batch_size": 16}, steps=40, evaluations=4, environment="none",
    )  # fmt: skip
    about = {"algorithm": "DR3-CQL", "dataset": cartpole, "data_fingerprint": load_dataset(cartpole).fingerprint}
    about |= {"steps": 40, "evaluations": 4, "environment": None, "evaluation_episodes": 0}
    names = ("tau", "double_q", "dr3_coeff", "seed")
    configs = [
        about
        | Member.from_dict(
            find("DR3-CQL", "discrete"), {"batch_size": 16, **dict(zip(names, values, strict=True))}
        ).to_dict()
        for values in product([1, 0.5], [True, False], [0, 0.1], [4, 2])
    ]
    assert list(members(sweep).items()) == [(member_id(config), config) for config in configs]


def test_the_hash_depends_on_everything_but_where_the_data_lie(cartpole, pendulum, tmp_path):
    (member, config), *_ = members(SweepSpec(datasets=[cartpole], seeds=1)).items()
    assert len(member) == 16
    assert int(member, 16) >= 0
    for name in config:
        other = member_id(config | {name: "something else"})
        assert (other == member) == (name == "dataset")
    copied = str(shutil.copytree(cartpole, tmp_path / "copy"))
    assert next(iter(members(SweepSpec(datasets=[copied], seeds=1)))) == member


def test_an_algorithm_without_a_critic_is_trained_once_for_all_coefficients(cartpole):
    sweep = SweepSpec(algorithms=["BC"], datasets=[cartpole], coefficients=[0.1, 0.2], seeds=2)
    assert [(config["dr3_coeff"], config["seed"]) for config in members(sweep).values()] == [(0.0, 0), (0.0, 1)]


def test_what_only_evaluates_the_behaviour_policy_has_no_rollouts(pendulum):
    automatic = SweepSpec(algorithms=["DR3-SARSA", "DR3-CQL"], datasets=[pendulum], seeds=1, coefficients=[0])
    environments = {config["algorithm"]: config["environment"] for config in members(automatic).values()}
    assert environments == {"DR3-SARSA": None, "DR3-CQL": "gymnasium:Pendulum-v1"}


def test_an_environment_that_is_not_installed_costs_the_rollouts_only(cartpole, tmp_path):
    copy = shutil.copytree(cartpole, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text()) | {"environment": "gymnasium:Nowhere-v9"}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    said: list[str] = []
    found = members(SweepSpec(datasets=[str(copy)], seeds=1), say=said.append)
    assert {config["environment"] for config in found.values()} == {None}
    assert any("no rollouts in gymnasium:Nowhere-v9" in line for line in said)


def test_two_names_of_the_same_data_are_told(cartpole):
    said: list[str] = []
    names = [f"{cartpole}?take=best:{share}" for share in ("0.1", "0.10", "0.2")]
    found = members(SweepSpec(datasets=names, seeds=1, coefficients=[0], environment="none"), say=said.append)
    assert len({config["data_fingerprint"] for config in found.values()}) == len(found) == 2
    assert [line for line in said if "the same data" in line] == [
        f"{names[1]} holds the same data as {names[0]}: members on both are the same, and are trained once"
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"algorithms": ["FOO"]}, "unknown algorithm 'FOO'"),
        ({"algorithms": []}, "algorithms"),
        ({"datasets": ["nowhere"]}, "nowhere is not a data set"),
        ({"options": {"foo": 1}}, "unknown option 'foo'"),
        ({"axes": {"foo": [1]}}, "unknown option 'foo'"),
        ({"axes": {"tau": []}}, "axes.tau"),
        ({"axes": {"tau": [1]}, "options": {"tau": 1}}, "both set and an axis"),
        ({"axes": {"seed": [1]}}, "give seeds"),
        ({"options": {"dr3_coeff": 1}}, "give coefficients"),
        ({"options": {"batch_size": 0}}, "batch_size must be at least 1"),
        ({"algorithms": ["BC"], "options": {"dr3_form": "abs"}}, "BC has no critic to regularise"),
        ({"coefficients": [-1]}, "dr3_coeff = -1.0 is outside"),
        ({"coefficients": [float("nan")]}, "dr3_coeff must be a finite number"),
        ({"seeds": 0}, "at least one seed"),
        ({"seeds": [-1]}, "seeds.0: it has to be at least 0, not -1"),
        ({"seeds": 100_000}, "100000 seeds are more than"),
        ({"seeds": [1, 2, 1]}, "seeds: seed 1 is there more than once"),
        ({"seeds": [1.5]}, "seeds.0: it has to be a whole number, not 1.5"),
        ({"coefficients": []}, "coefficients: without a value the sweep has no members"),
        ({"coefficients": [0, "much"]}, "coefficients.1: it has to be a number, not 'much'"),
        ({"coefficients": [True]}, "coefficients.0: it has to be a number, not True"),
        ({"exclude": [{"dr3_coeff": {"min": 0}}]}, "the sweep has no members: exclude leaves out all"),
        ({"exclude": [{"cql_alhpa": 1}]}, "unknown name in exclude 'cql_alhpa': did you mean 'cql_alpha'?"),
        ({"exclude": [{"tau": {"mim": 1}}]}, "unknown key in exclude.0.tau 'mim': did you mean 'min'?"),
        ({"coefficient": [1]}, "unknown key 'coefficient': did you mean 'coefficients'?"),
        ({"options": {"critic_rl": 1}}, "unknown option 'critic_rl': did you mean 'critic_lr'?"),
        (
            {"algorithms": ["DR3-CQL", "DR3-DQN"], "options": {"cql_alpha": 1}},
            "DR3-DQN has no option 'cql_alpha': make",
        ),
        (
            {"algorithms": ["DR3-CQL"], "axes": {"td_actions": ["sampled"]}},
            "'td_actions' is an option of DR3-TD, and not",
        ),
        (
            {"datasets": ["embedded:pendulum-replay"], "options": {"critic_actions": "input"}},
            "DR3-CQL has no option 'critic_actions' where actions are continuous, but where they are discrete: leave",
        ),
        ({"budget": 0}, "budget: it has to be more than 0"),
        ({"axes": {"critic_lr": 3}}, "axes.critic_lr: a list, or a mapping with one of grid, choice"),
        ({"axes": {"critic_lr": {"grdi": [3]}}}, "axes.critic_lr: unknown key 'grdi': did you mean 'grid'?"),
        ({"axes": {"critic_lr": {"grid": []}}}, "axes.critic_lr.grid: without a value the sweep has no members"),
        ({"axes": {"critic_lr": {"uniform": [0, 1]}}}, "axes.critic_lr: samples is missing: say how many to draw"),
        ({"axes": {"critic_lr": {"uniform": [1, 0], "samples": 2}}}, "1 to 0 is no range"),
        ({"axes": {"critic_lr": {"log_uniform": [0, 1], "samples": 2}}}, "give also: [0]"),
        (
            {"axes": {"critic_lr": {"log_uniform": [1e-4, 1], "sample": 2}}},
            "unknown key in axes.critic_lr 'sample': did you mean 'samples'?",
        ),
        ({"axes": {"both": {"zip": {"tau": [1], "critic_lr": [1, 2]}}}}, "tau has 1, critic_lr has 2"),
        ({"axes": {"tau": [1], "both": {"zip": {"tau": [1]}}}}, "axes.both: another axis has set 'tau' already"),
        ({"axes": {"both": {"zip": {"seed": [1]}}}}, "give seeds"),
        ({"axes": {"tau": {"grid": [1], "when": {"seed": 1}}}}, "seeds are not looked at"),
        ({"axes": {"tau": {"grid": [1], "when": {"algoritm": 1}}}}, "did you mean 'algorithm'?"),
        (
            {
                "axes": {
                    "tau": {"grid": [1], "when": {"n_step": 2}},
                    "n_step": {"grid": [2], "when": {"double_q": True}},
                }
            },
            "axes.tau depends on 'n_step', which is set after it: move axes.n_step up",
        ),
        ({"pack": 0}, "pack"),
        ({"pack": 1001}, "pack"),
        ({"steps": 1001}, "use 1000 or 1020 steps"),
        ({"steps": 7}, "use 20 steps"),
        ({"environment": "gymnasium:Pendulum-v1"}, "has observations Box([-1. -1. -8.]"),
        ({"environment": "gymnasium:Nowhere-v0"}, "cannot be made"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_mistakes_are_told_in_one_line(cartpole, values, message):
    with pytest.raises(UserError) as error:
        members(SweepSpec(**{"datasets": [cartpole]} | values))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_discrete_algorithm_is_refused_on_continuous_actions(pendulum):
    with pytest.raises(UserError, match="DR3-DQN needs discrete actions"):
        members(SweepSpec(datasets=[pendulum], algorithms=["DR3-DQN"]))


def test_rollouts_of_what_has_no_policy_are_refused(pendulum):
    with pytest.raises(UserError, match="has no policy to roll out"):
        members(SweepSpec(datasets=[pendulum], algorithms=["DR3-SARSA"], environment="gymnasium:Pendulum-v1"))
