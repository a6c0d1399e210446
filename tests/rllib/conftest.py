"""Small real data sets of random play, and one local Ray for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from dr3_ray.data import Provenance, SpaceSpec, episode_columns, to_env_actions, write_dataset

TINY = {"hidden_sizes": [16, 16], "batch_size": 8}


def random_play(environment: str, episodes: int) -> Iterator[Any]:
    """Columns of episodes with uniform actions."""
    env = gym.make(environment)
    space, rng = SpaceSpec.from_gymnasium(env.action_space), np.random.default_rng(0)
    for episode in range(episodes):
        observations, actions, rewards = [env.reset(seed=episode)[0]], [], []
        terminated = truncated = False
        while not (terminated or truncated):
            action = rng.integers(space.n) if space.n else rng.uniform(-1, 1, space.shape).astype(np.float32)
            observation, reward, terminated, truncated, _ = env.step(to_env_actions(space, action))
            observations.append(observation)
            actions.append(action)
            rewards.append(reward)
        yield episode_columns(
            observations, actions, rewards, terminated=terminated, truncated=truncated, episode_id=episode, gamma=0.99
        )


def write_random_play(path: Path, environment: str, episodes: int) -> str:
    """A data set of random play at `path`."""
    env = gym.make(environment)
    write_dataset(
        path,
        random_play(environment, episodes),
        name=path.name,
        gamma=0.99,
        observation_space=SpaceSpec.from_gymnasium(env.observation_space),
        action_space=SpaceSpec.from_gymnasium(env.action_space),
        environment=f"gymnasium:{environment}",
        provenance=Provenance(source="random play", version="1", licence="Apache-2.0", command="pytest"),
    )
    return str(path)


@pytest.fixture(scope="session")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_random_play(tmp_path_factory.mktemp("data") / "cartpole", "CartPole-v1", 40)


@pytest.fixture(scope="session")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_random_play(tmp_path_factory.mktemp("data") / "pendulum", "Pendulum-v1", 5)


@pytest.fixture(scope="package")
def local_ray() -> Iterator[None]:
    import ray

    from dr3_ray.compat.ray import without_servants

    ray.shutdown()  # of tests that were here before
    # a GPU that is only declared: enough to ask for parts of it
    with without_servants():
        ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
