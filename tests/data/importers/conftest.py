import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer

from dr3_ray.data import load_dataset, to_env_actions, verify
from dr3_ray.data.spaces import named_parts


@pytest.fixture
def assert_episodes():
    """Compares all rows of a data set with episodes: observations [T+1], actions, rewards, terminated, truncated."""

    def check(path, episodes, atol=1e-6):
        dataset = load_dataset(path)
        verify(dataset)
        rows = dataset.gather(torch.arange(len(dataset)), dataset.columns)
        assert len(dataset.episodes["lengths"]) == len(episodes)
        start = 0
        for length, (observations, actions, rewards, terminated, truncated) in zip(
            dataset.episodes["lengths"].tolist(), episodes, strict=True
        ):
            assert length == len(rewards)
            at = slice(start, start + length)
            for name, place in (("observations", slice(None, -1)), ("next_observations", slice(1, None))):
                found, wanted = named_parts(rows[name]), named_parts(observations)
                assert set(found) == set(wanted)
                for part, values in wanted.items():
                    np.testing.assert_allclose(found[part][at].numpy(), np.asarray(values)[place], 1e-6, atol)
            played = to_env_actions(dataset.action_space, rows["actions"][at].numpy())
            np.testing.assert_allclose(played, actions, 1e-5, 1e-5)
            np.testing.assert_allclose(rows["rewards"][at].numpy(), rewards, 1e-6, 1e-6)
            last = np.arange(length) == length - 1
            assert rows["terminateds"][at].bool().tolist() == (last & terminated).tolist()
            assert rows["truncateds"][at].bool().tolist() == (last & truncated).tolist()
            start += length
        assert start == len(dataset)
        return dataset

    return check


@pytest.fixture
def make_rows():
    """Random rows of episodes: a dict of arrays, and the episodes with their final observations."""

    def make(lengths=(3, 1, 5), actions="box", seed=0, width=3):
        rng = np.random.default_rng(seed)
        episodes = []
        for number, steps in enumerate(lengths):
            act = rng.uniform(-1, 1, (steps, 2)) if actions == "box" else rng.integers(0, 3, steps)
            terminated = number % 2 == 0
            episodes.append(
                (rng.normal(size=(steps + 1, width)), act, rng.normal(size=steps), terminated, not terminated)
            )
        last = np.concatenate([np.arange(len(each[2])) == len(each[2]) - 1 for each in episodes])
        terminated = np.repeat([each[3] for each in episodes], lengths)
        rows = {
            "observations": np.concatenate([each[0][:-1] for each in episodes]),
            "actions": np.concatenate([each[1] for each in episodes]),
            "rewards": np.concatenate([each[2] for each in episodes]),
            "terminateds": last & terminated,
            "truncateds": last & ~terminated,
            "next_observations": np.concatenate([each[0][1:] for each in episodes]),
        }
        return rows, episodes

    return make


def write_minari(name, episodes, high=1.0, **about):
    """Write episodes as `assert_episodes` has them to Minari's own store."""
    buffers = [
        EpisodeBuffer(
            observations=observations,
            actions=list(actions),
            rewards=list(rewards),
            terminations=[False] * (len(rewards) - 1) + [terminated],
            truncations=[False] * (len(rewards) - 1) + [truncated],
            infos={},
        )
        for observations, actions, rewards, terminated, truncated in episodes
    ]
    minari.create_dataset_from_buffers(
        name,
        buffers,
        observation_space=gym.spaces.Box(-np.inf, np.inf, episodes[0][0].shape[1:], np.float64),
        action_space=gym.spaces.Box(-1, high, (2,), np.float64),
        **about,
    )
