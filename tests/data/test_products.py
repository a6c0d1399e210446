"""MultiDiscrete and MultiBinary actions: combinations are numbered, and the environment gets its own arrays."""

import json
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from dr3_ray.algorithms.registry import ALGORITHMS
from dr3_ray.data import SpaceSpec, from_env_actions, from_episodes, load_dataset, to_env_actions
from dr3_ray.data.products import MOST
from dr3_ray.errors import UserError
from dr3_ray.evaluation.contract import Recorded, contract
from dr3_ray.evaluation.rollout import Rollout
from dr3_ray.policies.export import Deployed
from tests.evaluation.worlds import World
from tests.policies.conftest import untrained

SEEN = spaces.Box(-1.0, 1.0, (3,))


@st.composite
def products(draw):
    """Spaces of up to 512 combinations, of every shape, first choice and type."""
    if draw(st.booleans()):
        return spaces.MultiBinary(draw(st.sampled_from([1, 3, 9, (2, 2), (1, 3, 2)])))
    choices = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4).filter(lambda each: math.prod(each) <= MOST))
    shape = draw(st.sampled_from([(len(choices),), (1, len(choices)), (len(choices), 1)]))
    starts = draw(st.lists(st.integers(-5, 90), min_size=len(choices), max_size=len(choices)))
    dtype = draw(st.sampled_from([np.int64, np.int32, np.int8]))
    return spaces.MultiDiscrete(np.reshape(choices, shape), dtype=dtype, start=np.reshape(starts, shape).astype(dtype))


@settings(max_examples=200, deadline=None)
@given(products(), st.integers(0, 2**32 - 1))
def test_every_combination_has_a_number_of_its_own(space, seed):
    spec = SpaceSpec.of_actions(space)
    assert spec.to_gymnasium() == space and SpaceSpec.model_validate_json(spec.model_dump_json()) == spec
    numbers = np.arange(spec.n)
    played = to_env_actions(spec, numbers)
    assert played.dtype == space.dtype and all(space.contains(action) for action in played)
    assert len(np.unique(played.reshape(spec.n, -1), axis=0)) == spec.n
    np.testing.assert_array_equal(from_env_actions(spec, played), numbers)
    space.seed(seed)
    drawn = np.stack([space.sample() for _ in range(6)]).reshape(2, 3, *space.shape)
    np.testing.assert_array_equal(to_env_actions(spec, from_env_actions(spec, drawn)), drawn)


@settings(max_examples=50, deadline=None)
@given(products(), st.integers(0, 2**32 - 1))
def test_rollouts_send_the_environment_its_own_arrays(space, seed):
    """The environment asserts that each action is in its space; two members play two episodes."""
    spec, rng = SpaceSpec.of_actions(space), np.random.default_rng(seed)
    chosen = torch.from_numpy(rng.integers(0, spec.n, (5, 2, 2)))
    worlds, steps = [], iter(chosen)

    def make():
        worlds.append(World(SEEN, space, lambda step: np.zeros(3, np.float32), length=5))
        return worlds[-1]

    rollout = Rollout(make, Recorded("here", SpaceSpec.from_gymnasium(SEEN), spec), 2, 2)
    rollout.play(lambda observations: next(steps), [0, 1])
    received = [np.stack(world.received) for world in worlds if world.received]
    wanted = [to_env_actions(spec, chosen[:, member, episode].numpy()) for member in (0, 1) for episode in (0, 1)]
    assert {each.tobytes() for each in received} == {each.tobytes() for each in wanted}


@settings(max_examples=25, deadline=None)
@given(products(), st.integers(0, 2**32 - 1))
def test_policies_and_what_is_deployed_of_them_play_in_the_environment(space, seed):
    rng = np.random.default_rng(seed)
    policy = untrained(ALGORITHMS["DR3-DQN"]["discrete"], SpaceSpec.from_gymnasium(SEEN), SpaceSpec.of_actions(space))
    observations = rng.uniform(-1, 1, (4, 3)).astype(np.float32)
    actions = policy.act(observations)
    assert all(space.contains(action) for action in actions) and space.contains(policy.act(observations[0]))
    np.testing.assert_array_equal(Deployed(policy)(torch.from_numpy(observations)).numpy(), actions)
    assert policy.q(observations, actions).shape == (4,)


class Locks(gym.Env):
    """A real environment: each of two dials is to be turned to where the observation says."""

    observation_space = spaces.Box(-9.0, 9.0, (2,), np.float32)
    action_space = spaces.MultiDiscrete([3, 4], start=[1, -2])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._wanted(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        reward = float((action == self.wanted).sum())
        self.steps += 1
        return self._wanted(), reward, False, self.steps == 8, {}

    def _wanted(self):
        self.wanted = self.np_random.integers([1, -2], [4, 2])
        return self.wanted.astype(np.float32)


@pytest.fixture
def recorded_locks(tmp_path):
    """A data set of episodes that were played at random, and the actions of these."""
    environment, episodes = Locks(), []
    environment.action_space.seed(0)
    for seed in range(5):
        seen, actions, rewards, done = [environment.reset(seed=seed)[0]], [], [], False
        while not done:
            actions.append(environment.action_space.sample())
            observation, reward, _, done, _ = environment.step(actions[-1])
            seen.append(observation)
            rewards.append(reward)
        episodes.append({"observations": seen, "actions": actions, "rewards": rewards, "truncated": True})
    from_episodes(episodes, out=tmp_path / "locks", action_space=Locks.action_space)
    return load_dataset(tmp_path / "locks"), np.concatenate([each["actions"] for each in episodes])


def test_episodes_of_an_environment_come_back_and_the_best_policy_plays_in_it(recorded_locks):
    dataset, actions = recorded_locks
    rows = dataset.gather(torch.arange(len(dataset)), ("observations", "actions", "rewards"))
    np.testing.assert_array_equal(to_env_actions(dataset.action_space, rows["actions"].numpy()), actions)
    earned = (actions == rows["observations"].numpy()).sum(1)
    assert rows["rewards"].tolist() == earned.tolist() and dataset.spaces.n_actions == 12

    def act(observations):
        return torch.from_numpy(from_env_actions(dataset.action_space, observations.numpy().astype(np.int64)))

    returns, lengths, *_ = Rollout(Locks, Recorded.of(dataset), 1, 3).play(act, [7, 8, 9])
    assert returns.tolist() == [[16.0] * 3] and (lengths == 8).all()


def test_the_identity_knows_the_choices():
    spaces_known = [spaces.MultiDiscrete([2, 6]), spaces.MultiDiscrete([6, 2]), spaces.MultiDiscrete([[2, 6]])]
    dumps = {json.dumps(SpaceSpec.of_actions(space).model_dump()) for space in spaces_known}
    assert len(dumps) == 3


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (spaces.MultiDiscrete([4, 3], start=[1, -2]), "the numbers of choices differ"),
        (spaces.MultiDiscrete([[3, 4]]), "the shapes differ"),
        (spaces.Discrete(12), "the kinds differ"),
        (spaces.MultiBinary(2), "the numbers of choices differ"),
    ],
    ids=str,
)
def test_another_environment_is_one_line(theirs, why):
    seen = SpaceSpec.from_gymnasium(SEEN)
    with pytest.raises(UserError, match=why):
        contract(Recorded("here", seen, SpaceSpec.of_actions(Locks.action_space)), SEEN, theirs, "E")


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        ([[1, 2]], "action [1, 2] is outside the space of [3, 4] choices: correct the source"),
        ([[0, 0]], "action [0, 0] is outside the space"),
        ([[1.0, 0.0]], "actions are float64 of shape (1, 2), not integers of shape ('*', 2)"),
        ([[1, 0, 0]], "actions are int64 of shape (1, 3), not integers"),
    ],
)
def test_actions_that_are_none(actions, says):
    with pytest.raises(UserError) as error:
        from_env_actions(SpaceSpec.of_actions(Locks.action_space), np.asarray(actions))
    assert says in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 11},
        {"choices": [3]},
        {"starts": [1]},
        {"starts": None},
        {"start": 1},
        {"kind": "box"},
        {"env_dtype": "bool"},
    ],
    ids=str,
)
def test_a_manifest_whose_choices_do_not_fit_is_refused(change):
    fields = SpaceSpec.of_actions(Locks.action_space).model_dump()
    with pytest.raises(ValueError):
        SpaceSpec.model_validate(fields | change)
