"""The options of rewards: training on data with these rewards to begin with is the same to the bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.algorithms.registry import find
from dr3_ray.data.spaces import SpaceSpec
from dr3_ray.errors import UserError
from dr3_ray.evaluation.contract import Recorded
from dr3_ray.policies.policy import Policy
from dr3_ray.runs.health import largest_q
from dr3_ray.training.population import Population
from dr3_ray.training.rewards import return_range
from dr3_ray.training.saved import Trained
from tests.conftest import TableData, random_data
from tests.training.test_population import assert_equal, everything

Make = Callable[..., Population]
REWARDS = ("reward_shift", "reward_scale", "reward_clip")
pytestmark = pytest.mark.usefixtures("without_shape_checks")


def changed(shift: float, scale: float, clip: float, kind: str = "discrete", divisor: float = 1.0) -> TableData:
    data = random_data(kind)
    rewards = torch.tensor(scale) / divisor * (data.columns["rewards"] + torch.tensor(shift))
    data.columns["rewards"] = rewards.clamp(-clip, clip) if clip else rewards
    return data


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(st.floats(-2, 2), st.floats(0.1, 9), st.just(0.0) | st.floats(0.1, 2)), st.sampled_from([1, 3]))
def test_options_are_the_data_with_these_rewards(make_population: Make, values: Any, n_step: int) -> None:
    members = [{"seed": 1, "n_step": n_step}, {"seed": 2, "n_step": n_step}]
    options = [members[0] | dict(zip(REWARDS, values, strict=True)), members[1]]
    pack, spec = make_population(find("DR3-DQN", "discrete"), options), find("DR3-DQN", "discrete")
    wanted = [make_population(spec, members[:1], data=changed(*values)), make_population(spec, members[1:])]
    for each in (pack, *wanted):
        each.record()
        each.update(4)
    for row, alone in enumerate(wanted):
        assert_equal({name: value[row : row + 1] for name, value in everything(pack).items()}, everything(alone))


@pytest.mark.parametrize(
    "name",
    [
        "DR3-CQL",
        "DR3-CalQL",
        "DR3-IQL",
        "DR3-AWAC",
        "DR3-EDAC",
        "DR3-FQL",
        "DR3-TD3BC",
        "DR3-SARSA",
        "DR3-TD",
        "DR3-BRAC",
        "DR3-ReBRAC",
    ],
)
def test_every_algorithm_has_them(name: str, make_population: Make) -> None:
    spec = find(name, "continuous")
    options = {"reward_scale": 3.0, "reward_shift": 0.5, "reward_scaling": "return_range"}
    ours = make_population(spec, [options])
    theirs = make_population(spec, data=changed(0.5, 3.0, 0.0, "continuous", 19.0))
    ours.update(3), theirs.update(3)
    assert return_range(ours.members[0].options, ours.data) == 19.0  # ten rows an episode, of returns 0 … 19
    found = everything(ours)
    for key, value in everything(theirs).items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_done_is_told(make_population: Make) -> None:
    with pytest.raises(UserError, match="divides by the range of returns, and all are the same"):
        make_population(
            find("DR3-IQL", "discrete"), [{"reward_scaling": "return_range"}], data=random_data("discrete", 10)
        )
    with pytest.raises(UserError, match=r"reward_scale = 0\.0 is outside"):
        make_population(find("DR3-IQL", "discrete"), [{"reward_scale": 0.0}])


def test_a_policy_tells_q_in_the_units_of_the_data(make_population: Make) -> None:
    spec = find("DR3-IQL", "discrete")
    made = make_population(spec, [{"reward_scale": 8.0, "reward_scaling": "return_range"}])
    made.update(2)
    space, choices = SpaceSpec.box(-np.inf, np.inf, (2, 3)), SpaceSpec.discrete(3)
    recorded = Recorded("table", space, choices).to_dict()
    members = [member.to_dict() for member in made.members]
    policies = [
        Policy(Trained(spec, made.spaces, [each], made.networks, recorded, divisor))
        for each, divisor in ((members[0], 19.0), (members[0] | {"reward_scale": 1.0}, 1.0))
    ]
    seen = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    ours, trained = (policy.q(seen, np.zeros(5, np.int64)) for policy in policies)
    np.testing.assert_allclose(ours, trained * 19.0 / 8.0, rtol=1e-6)


def test_what_q_can_be_follows_the_rewards() -> None:
    config = {"data_fingerprint": "x", "gamma": 0.75, "reward_shift": -1.0, "reward_scale": 3.0, "reward_clip": 0.0}
    assert largest_q(config, {"x": 2.0}) == 36.0
    assert largest_q(config | {"reward_clip": 5.0}, {"x": 2.0}) == 20.0
    assert largest_q({"data_fingerprint": "x", "gamma": 0.75}, {"x": 2.0}) == 8.0
    assert largest_q(config | {"reward_scaling": "return_range"}, {"x": 2.0}) is None
