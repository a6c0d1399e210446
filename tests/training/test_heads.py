"""Categorical critics: what holds for every algorithm on every space, and where v_min and v_max come from."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data.episodes import monte_carlo_returns
from dr3_ray.errors import UserError
from dr3_ray.evaluation.recipes import preset, recipe_of
from dr3_ray.training.member import Member
from dr3_ray.training.value_range import FACTOR, check_ranges
from tests.training.test_population import assert_equal, everything

pytestmark = pytest.mark.usefixtures("without_shape_checks")
HEADS: list[dict[str, Any]] = [{"critic_head": "hl_gauss", "bins": 11}, {"critic_head": "two_hot", "bins": 9}]
INPUT = {"critic_actions": "input"}


def refused(spec: AlgorithmSpec) -> bool:
    """Whether a critic of this algorithm has several outputs for a value."""
    return spec.name in ("DR3-REM", "DR3-QRDQN", "DR3-QRCQL")


def members_of(spec: AlgorithmSpec, head: dict[str, Any]) -> list[dict[str, Any]]:
    """Two members whose ranges differ: of the data's returns, and given."""
    more = head | (INPUT if head["bins"] == 9 and "critic_actions" in spec.options.names() else {})
    rates = {name: 1e-3 for name in spec.options.numbers() if name.endswith("_lr") and name != "lagrange_lr"}
    given = {"v_min": -4.0, "v_max": 3.0} | ({"sigma": 1.0} if head["critic_head"] == "hl_gauss" else {})
    return [rates | more | {"dr3_coeff": 0.1}, rates | more | given | {"dr3_coeff": 0.0, "seed": 1}]


@pytest.mark.spread(2)
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head["critic_head"])
def test_it_trains_like_any_other(critic_spec: AlgorithmSpec, head: dict[str, Any], make_population: Any):
    """A member of a pack is itself alone, a checkpoint goes on to the bit, and all that is measured is a number."""
    spec = critic_spec
    if refused(spec):
        with pytest.raises(UserError, match=f"critic_head='{head['critic_head']}' is for one value an action, "):
            Member.from_dict(spec, head)
        return
    members = members_of(spec, head)
    first = make_population(spec, members, "stacked")
    if first.recordings:
        first.recordings.after = 1  # which have to be equal to the bit
    first.update(4)
    assert first.recordings is None or first.recordings.counts[0] == len(first.recordings.replays)
    state = copy.deepcopy((first.networks.state_dict(), first.state_dict()))
    first.update(2)
    second = make_population(spec, [member | {"seed": 7} for member in members], "stacked")
    second.networks.load_state_dict(state[0])
    second.load_state_dict(state[1])
    second.update(2)
    assert_equal(everything(first), everything(second))
    measured = first.metrics | first.probe() | first.implicit_regularizer()
    assert {"clipped_targets", "value_error"} <= measured.keys()
    assert all(values.isfinite().all() for values in measured.values())

    pack = make_population(spec, members, "stacked", torch.float64)
    pack.update(6)
    for k, member in enumerate(members):
        alone = make_population(spec, [member], dtype=torch.float64)
        alone.update(6)
        for name, values in alone.networks.state_dict().items():
            torch.testing.assert_close(pack.networks.state_dict()[name][k], values[0], rtol=1e-9, atol=1e-9)


def test_the_td_error_of_the_probe_is_comparable_with_that_of_a_scalar_critic(make_population: Any):
    population = make_population(find("DR3-SARSA", "continuous"), [HEADS[0] | {"critic_lr": 0.0}])
    metrics, probe = population.update(1), population.probe()
    assert metrics["loss_critic"] > 3.0  # of two critics, log 11 each
    scalar = make_population(find("DR3-SARSA", "continuous"), [{"critic_lr": 0.0}])
    scalar.update(1)
    assert probe["td_error"] == pytest.approx(scalar.probe()["td_error"].item(), rel=0.3)  # neither has learned


def returns(data: Any, gamma: float, rewards: Any) -> np.ndarray:
    episodes = np.split(rewards(data.columns["rewards"].numpy()), np.arange(10, len(data), 10))
    return np.concatenate([monte_carlo_returns(each, gamma) for each in episodes])


@pytest.mark.parametrize(
    ("options", "rewards"),
    [
        ({"gamma": 0.9}, lambda rewards: rewards),
        ({"gamma": 0.5, "reward_scale": 3.0, "reward_shift": 0.5}, lambda rewards: 3.0 * (rewards + 0.5)),
        ({"gamma": 0.9, "reward_clip": 0.5}, lambda rewards: rewards.clip(-0.5, 0.5)),
        ({"gamma": 0.9, "reward_scaling": "return_range"}, lambda rewards: rewards / 19.0),  # those of the test's data
    ],
    ids=["plain", "shifted and scaled", "cut", "by the range of returns"],
)
def test_the_range_is_that_of_the_returns_as_they_are_learned(options: Any, rewards: Any, make_population: Any):
    population = make_population(find("DR3-DQN", "discrete"), [HEADS[0] | options])
    wanted = returns(population.data, options["gamma"], rewards)
    largest = FACTOR * np.abs(wanted).max()
    for critic in (population.networks.critic, population.networks.target_critic):
        assert critic.coding.range[0].tolist() == pytest.approx([-largest, largest], rel=1e-4)


def test_the_range_of_stored_returns_and_of_none(make_population: Any, make_data: Any):
    spec, data = find("DR3-MC", "discrete"), make_data("discrete")
    stored = data.columns["monte_carlo_returns"]
    low, high = make_population(spec, [HEADS[1]], data=data).networks.critic.coding.range[0].tolist()
    assert -low == high == pytest.approx(1.5 * stored.abs().max().item(), rel=1e-5)
    data.columns["monte_carlo_returns"] = torch.zeros_like(stored)
    assert make_population(spec, [HEADS[1]], data=data).networks.critic.coding.range[0].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head["critic_head"])
def test_q_begins_at_0_as_that_of_a_scalar_critic(head: dict[str, Any], make_population: Any):
    """It began at the middle of returns once, and was far above them after many updates of the target."""
    population = make_population(find("DR3-DQN", "discrete"), [head | {"critic_lr": 0.0, "hidden_sizes": (64,)}])
    population.update(1)
    assert abs(population.probe()["q_mean"].item()) < 0.05 * population.networks.critic.coding.range[0, 1].item()


def test_what_has_no_returns_asks_for_a_range(make_data: Any):
    spec = find("DR3-DQN", "discrete")
    lacking = make_data("discrete")
    lacking.manifest, lacking.gamma = SimpleNamespace(complete_episodes=False), 0.99
    check_ranges([Member.from_dict(spec, HEADS[0])], lacking)  # the stored ones are of this discount
    for more in ({"gamma": 0.9}, {"reward_shift": 1.0}, {"reward_clip": 1.0}):
        with pytest.raises(UserError, match=r"known only at gamma = 0.99 without .*: give v_min and v_max"):
            check_ranges([Member.from_dict(spec, HEADS[0] | more)], lacking)
        check_ranges([Member.from_dict(spec, HEADS[0] | more | {"v_max": 1.0})], lacking)
    with pytest.raises(UserError, match="which hindsight changes: give both"):
        Member.from_dict(spec, HEADS[0] | {"hindsight": "future"})
    with pytest.raises(UserError, match="an online learner has none yet: give both"):
        recipe_of("CartPole-v1", settings=HEADS[0])
    assert recipe_of("CartPole-v1", settings=HEADS[0] | {"v_max": 100.0}).options["v_max"] == 100.0
    assert preset("embedded:breakout-replay")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"critic_head": "categorical"}, "critic_head must be one of scalar, hl_gauss, two_hot"),
        ({"bins": 11}, "bins has no effect with critic_head='scalar'"),
        ({"critic_head": "two_hot", "sigma": 1.0}, "sigma has no effect with critic_head='two_hot'"),
        ({"critic_head": "two_hot", "bins": 1}, "bins must be at least 2"),
        ({"critic_head": "hl_gauss", "sigma": 0.0}, "sigma = 0.0 is outside"),
        ({"critic_head": "hl_gauss", "v_min": 1.0}, "v_min = 1 is above v_max = 0: exchange them"),
        ({"critic_head": "hl_gauss", "loss": "squared"}, "loss='squared' has no effect with critic_head='hl_gauss'"),
    ],
    ids=str,
)
def test_what_makes_no_sense_fails_in_one_line(values: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Member.from_dict(find("DR3-DQN", "discrete"), values)


def test_targets_that_are_cut_are_counted(make_population: Any):
    narrow = {"critic_head": "hl_gauss", "bins": 11, "v_min": -0.5, "v_max": 0.5}
    population = make_population(find("DR3-MC", "discrete"), [narrow])
    population.update(1)
    data = population.data.columns["monte_carlo_returns"]
    share = (data.abs() > 0.5).float().mean().item()
    assert population.probe()["clipped_targets"].item() == pytest.approx(share, abs=0.03)
