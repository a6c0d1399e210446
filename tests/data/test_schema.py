import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.data import SpaceSpec, from_env_actions, monte_carlo_returns, to_env_actions
from dr3_ray.errors import UserError

bounds = st.tuples(st.floats(-100, 100, width=32), st.floats(0.125, 200, width=32))


@given(st.lists(st.tuples(bounds, st.floats(0, 1)), min_size=1, max_size=4))
def test_box_actions_scale_there_and_back(dimensions):
    low, high = (np.float32([d[0][0] + d[0][1] * k for d in dimensions]) for k in (0, 1))
    actions = np.clip((low + (high - low) * np.float32([d[1] for d in dimensions])), low, high).astype(np.float32)
    space = SpaceSpec.box(low, high, low.shape)
    stored = from_env_actions(space, actions)
    assert stored.dtype == np.float32 and np.abs(stored).max() <= 1
    back = to_env_actions(space, stored)
    assert ((back >= low) & (back <= high)).all()
    np.testing.assert_allclose(back, actions, rtol=1e-5, atol=1e-5 * float((high - low).max()))


def test_box_actions_by_hand():
    space = SpaceSpec.box([-2, 0], [2, 1], (2,))
    actions = [[[-2, 0], [0, 0.5]], [[1, 0.25], [2, 1]]]
    stored = [[[-1, -1], [0, 0]], [[0.5, -0.5], [1, 1]]]
    np.testing.assert_array_equal(from_env_actions(space, actions), np.float32(stored))
    np.testing.assert_array_equal(to_env_actions(space, stored), np.float32(actions))


def test_unit_box_actions_are_kept_exactly():
    actions = np.random.default_rng(0).uniform(-1, 1, (1000, 3)).astype(np.float32)
    space = SpaceSpec.box(-1, 1, (3,))
    np.testing.assert_array_equal(from_env_actions(space, actions), actions)
    np.testing.assert_array_equal(to_env_actions(space, actions), actions)


def test_discrete_actions_start_at_zero():
    space = SpaceSpec.discrete(3, start=-1)
    stored = from_env_actions(space, np.array([-1, 0, 1], np.int32))
    assert stored.dtype == np.int64 and stored.tolist() == [0, 1, 2]
    assert to_env_actions(space, stored).tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("space", "actions", "says"),
    [
        (SpaceSpec.box(-1, 1, (1,)), [[1.001]], "action 1.001 is outside"),
        (SpaceSpec.box(-1, 1, (1,)), [[np.nan]], "NaN"),
        (SpaceSpec.box(-1, 1, (2,)), [[0.5]], r"shape \(1, 1\)"),
        (SpaceSpec.box(-1, 1, (1,)), [["left"]], "not real numbers"),
        (SpaceSpec.discrete(3), [3], "action 3 is outside"),
        (SpaceSpec.discrete(3, start=1), [0], "action 0 is outside"),
        (SpaceSpec.discrete(3), [0.5], "integers"),
    ],
)
def test_actions_outside_the_space(space, actions, says):
    with pytest.raises(UserError, match=says):
        from_env_actions(space, actions)


def test_clipping_forgives_what_is_outside_but_not_nan():
    space = SpaceSpec.box(-2, 2, (1,))
    assert from_env_actions(space, [[-7], [3]], clip=True).tolist() == [[-1], [1]]
    assert from_env_actions(space, [[2.00001]]).tolist() == [[1]]  # rounding
    with pytest.raises(UserError):
        from_env_actions(space, [[np.nan]], clip=True)


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Box(-np.inf, np.inf, (3,), np.float32),
        gym.spaces.Box(np.float32([-1, 0]), np.float32([1, np.inf])),
        gym.spaces.Box(0, 255, (2, 3), np.uint8),
        gym.spaces.Discrete(4, start=2),
    ],
)
def test_spaces_survive_json(space):
    spec = SpaceSpec.from_gymnasium(space)
    assert SpaceSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.to_gymnasium() == space


def test_types_of_observation_spaces():
    assert SpaceSpec.from_gymnasium(gym.spaces.Box(-1, 1, (2,), np.float64)).dtype == "float32"
    assert SpaceSpec.from_gymnasium(gym.spaces.Box(-1, 1, (2,), np.int16)).dtype == "float32"
    assert SpaceSpec.from_gymnasium(gym.spaces.MultiBinary((2, 3))) == SpaceSpec.box(0, 1, (2, 3), "bool")
    with pytest.raises(UserError, match="MultiDiscrete"):
        SpaceSpec.from_gymnasium(gym.spaces.MultiDiscrete([2, 3]))


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.floats(0, 1))
def test_monte_carlo_returns_are_the_backward_recursion(rewards, gamma):
    expected, total = [], 0.0
    for reward in reversed(rewards):
        total = reward + gamma * total
        expected.insert(0, total)
    np.testing.assert_allclose(monte_carlo_returns(rewards, gamma), expected, rtol=1e-5, atol=1e-5)
