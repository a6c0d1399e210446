"""What holds for every regulariser in the table."""

import pytest

from dr3_ray.algorithms.registry import ALGORITHMS, find
from dr3_ray.errors import UserError
from dr3_ray.options import deal
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS, REGULARIZERS
from dr3_ray.training.member import Member

DQN = find("DR3-DQN", "discrete")
CLASSES = (DQN.options, *REGULARIZER_OPTIONS)


def test_options_and_regularisers_have_names_of_their_own():
    names = [name for each in REGULARIZER_OPTIONS for name in each.names()]
    algorithms = {name for kinds in ALGORITHMS.values() for form in kinds.values() for name in form.options.names()}
    assert len(names) == len(set(names)) and not algorithms & set(names)
    assert all(name == each.name for name, each in REGULARIZERS.items())


def test_options_are_dealt_to_those_that_have_them():
    values = {name: value for each in CLASSES for name, value in each().to_dict().items()}
    for each, dealt in zip(CLASSES, deal(values, CLASSES), strict=True):
        assert dealt == each().to_dict()


@pytest.mark.parametrize("options", CLASSES, ids=lambda options: options.__name__)
def test_a_misspelt_option_fails_where_the_right_one_is(options):
    for name in options.names():
        with pytest.raises(UserError, match=f"unknown option '{name}x': {options.__name__} has .*{name}"):
            Member.from_dict(DQN, {f"{name}x": 0.5})


def test_every_trained_child_has_one_step_size_and_members_know_whose_it_is(critic_spec, make_population):
    population = make_population(critic_spec, [{"dr3_adaptive": "cosine", "critic_weight_decay": 0.25}])
    (member,) = population.members
    for part in population.steps.parts:
        assert sum(hasattr(each, f"{part}_lr") for each in member.all_options) == 1
        assert member.follows_critic(part) == (part == "dr3_multiplier")
        assert member.weight_decay(part) == (0.25 if part == "critic" else 0.0)
    assert member.step_size("dr3_multiplier") == member.regularizers["dr3"].dr3_multiplier_lr


def test_the_defaults_are_dr3_of_the_paper_and_no_other_regulariser():
    defaults = {name: value for each in REGULARIZER_OPTIONS for name, value in each().to_dict().items()}
    assert defaults == {
        **{"dr3_coeff": 0.03, "dr3_form": "dot", "dr3_warmup_steps": 0.0},
        **{"dr3_features": "penultimate", "dr3_divisor": "rows"},
        **{"dr3_stop_gradient": False, "dr3_mask_terminals": True, "dr3_match_actions": False},
        **{"dr3_adaptive": "off", "dr3_threshold": 0.5, "dr3_multiplier_lr": 1e-3},
        **{"srank_coeff": 0.0, "feature_l2_coeff": 0.0, "critic_weight_decay": 0.0, "critic_dropout": 0.0},
        **{"critic_bottleneck": False, "bottleneck_coeff": 1e-3, "critic_norm": "none"},
        **{"critic_head": "scalar", "bins": 101, "v_min": 0.0, "v_max": 0.0, "sigma": 0.75},
    }


NUMBERS = [name for each in REGULARIZER_OPTIONS for name, value in each().to_dict().items() if type(value) is float]


@pytest.mark.parametrize("name", sorted({*NUMBERS} - {"dr3_threshold", "v_min", "v_max"}))
def test_a_number_below_zero_is_refused(name):
    with pytest.raises(UserError, match=name):
        needed = {"critic_bottleneck": True, "dr3_adaptive": "cosine", "critic_head": "hl_gauss"}
        Member.from_dict(DQN, {**needed, name: -1e-3})


def test_a_step_needs_the_host_where_eigenvalues_are_sought():
    assert Member.from_dict(DQN, {"srank_coeff": 0.1}).needs_host
    assert not Member.from_dict(DQN, {"feature_l2_coeff": 0.1, "dr3_coeff": 0.1}).needs_host
