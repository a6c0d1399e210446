import json

import gymnasium as gym
import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dr3_ray.data import Manifest, SpaceSpec, from_env_actions, load_dataset, monte_carlo_returns, to_env_actions
from dr3_ray.data.spaces import named_parts
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
        gym.spaces.Dict(image=gym.spaces.Box(0, 255, (48, 48, 3), np.uint8), state=gym.spaces.Box(-1, np.inf, (3,))),
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


def test_parts_of_a_dict_are_named_by_their_path_and_sorted():
    unit = gym.spaces.Box(-1, 1, (2,))
    nested = gym.spaces.Dict([("z", unit), ("goal", gym.spaces.Dict(x=unit, on=gym.spaces.MultiBinary(3)))])
    spec = SpaceSpec.from_gymnasium(nested)
    assert list(spec.parts) == ["goal/on", "goal/x", "z"] and spec.shapes == {
        "goal/on": (3,),
        "goal/x": (2,),
        "z": (2,),
    }
    assert spec.parts["goal/on"] == SpaceSpec.box(0, 1, (3,), "bool") and spec.size == 7
    observation = {"z": 1, "goal": {"x": 2, "on": 3}}
    assert named_parts(observation) == {"z": 1, "goal/x": 2, "goal/on": 3} and named_parts(4) == {"": 4}
    plain = SpaceSpec.from_gymnasium(unit)
    assert plain.parts == {"": plain} and plain.shapes == (2,)


leaves = st.sampled_from(
    [
        gym.spaces.Box(-1, 1, (2,)),
        gym.spaces.Box(-1, 1, (), np.float64),
        gym.spaces.Box(0, 255, (3, 2, 1), np.uint8),
        gym.spaces.MultiBinary(3),
    ]
)
names = st.sampled_from(["", "a", "b", "a/b", "two words", "a.b"])
nested = st.recursive(
    leaves, lambda inner: st.dictionaries(names, inner, max_size=3).map(gym.spaces.Dict), max_leaves=5
)


@given(nested.filter(lambda space: isinstance(space, gym.spaces.Dict)))
def test_no_part_of_a_dict_is_lost(space):
    """Every number of an observation is in one named part, or the space is refused."""
    observation = named_parts(space.sample())
    try:
        spec = SpaceSpec.from_gymnasium(space)
    except UserError as error:
        assert "give each a name of its own" in str(error) and "\n" not in str(error)
        assert (
            "" in observation or sum(map(np.size, observation.values())) < gym.spaces.flatdim(space) or not observation
        )
        return
    assert spec.size == gym.spaces.flatdim(space) and list(spec.parts) == sorted(observation)
    for name, part in spec.parts.items():
        assert np.asarray(observation[name], part.dtype) in part.to_gymnasium()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "dict"}, "a dict needs spaces"),
        ({"kind": "dict", "spaces": {"": SpaceSpec.box(0, 1, (2,))}}, "a dict needs spaces: boxes, each with a name"),
        ({"kind": "dict", "spaces": {"a": SpaceSpec.discrete(2)}}, "a dict needs spaces: boxes"),
        ({"kind": "dict", "spaces": {"a": SpaceSpec.box(0, 1, (2,))}, "shape": (2,)}, "no shape, type or bounds"),
        ({"kind": "box", "spaces": {"a": SpaceSpec.box(0, 1, (2,))}, "dtype": "uint8"}, "no shape, type or bounds"),
        ({"kind": "box", "shape": (2,), "low": (0,), "high": (1,)}, "a box needs dtype"),
    ],
)
def test_specs_that_contradict_themselves(values, says):
    with pytest.raises(ValidationError, match=says):
        SpaceSpec(**values)


def test_manifests_from_before_there_were_dicts_are_read():
    path = load_dataset("embedded:pendulum-replay").path / "manifest.json"
    written = json.loads(path.read_text()) | {"format": 1}
    del written["digests"], written["observation_space"]["spaces"]
    assert Manifest.model_validate(written).observation_space == SpaceSpec.box([-1, -1, -8], [1, 1, 8], (3,))


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.floats(0, 1))
@settings(deadline=None)  # scipy is imported in the first
def test_monte_carlo_returns_are_the_backward_recursion(rewards, gamma):
    expected, total = [], 0.0
    for reward in reversed(rewards):
        total = reward + gamma * total
        expected.insert(0, total)
    np.testing.assert_allclose(monte_carlo_returns(rewards, gamma), expected, rtol=1e-5, atol=1e-5)
    filtered = scipy.signal.lfilter([1.0], [1.0, -gamma], rewards[::-1])[::-1].astype(np.float32)
    assert monte_carlo_returns(rewards, gamma).tobytes() == filtered.tobytes()  # as data sets of before have them
