"""Small data sets from real environments, one Ray for the tests of a file, and what is asked of runs."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import ray

from dr3_ray.cluster.connect import connect
from dr3_ray.data import Provenance, SpaceSpec, episode_columns, from_env_actions, write_dataset
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.index import read_index


def collect(path: Path, environment: str, episodes: int = 4) -> str:
    """A data set of random actions in a Gymnasium environment; returns its path."""
    env = gym.make(environment)
    env.action_space.seed(0)
    action_space = SpaceSpec.from_gymnasium(env.action_space)
    written = []
    for episode in range(episodes):
        observations, actions, rewards, over = [env.reset(seed=episode)[0]], [], [], False
        while not over:
            actions.append(env.action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
            over = terminated or truncated
        stored = from_env_actions(action_space, np.asarray(actions))
        ends = {"terminated": terminated, "truncated": truncated, "episode_id": episode, "gamma": 0.99}
        written.append(episode_columns(observations, stored, rewards, **ends))
    write_dataset(
        path,
        written,
        observation_space=SpaceSpec.from_gymnasium(env.observation_space),
        action_space=action_space,
        gamma=0.99,
        name=path.name,
        environment=f"gymnasium:{environment}",
        provenance=Provenance(source="random actions"),
    )
    return str(path)


@pytest.fixture(scope="session")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Discrete actions."""
    return collect(tmp_path_factory.mktemp("data") / "cartpole", "CartPole-v1")


@pytest.fixture(scope="session")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Continuous actions."""
    return collect(tmp_path_factory.mktemp("data") / "pendulum", "Pendulum-v1", episodes=2)


@pytest.fixture(scope="session")
def collected() -> Callable[..., str]:
    """Collect another one: path, environment, episodes."""
    return collect


@pytest.fixture(scope="package")
def cluster():
    """One Ray for all tests of this folder; its address."""
    ray.shutdown()  # of tests that were here before
    connect()
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def statuses(run: Path) -> Counter[str]:
    return Counter(record["status"] for record in read_index(run))


def steps(run: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in read_histories(run).select(["member", "step"]).to_pylist():
        found.setdefault(row["member"], []).append(row["step"])
    return found


def wait_for(condition, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
