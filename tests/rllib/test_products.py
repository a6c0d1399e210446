"""Training on actions of a product space, and rollouts in its environment, through RLlib."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from ray.rllib.algorithms.algorithm import Algorithm

import dr3_ray
from dr3_ray.data import from_episodes
from tests.evaluation.worlds import World

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.filterwarnings("ignore::UserWarning")]
SEEN = spaces.Box(-1.0, 1.0, (2,))
SPACES = {"Dials-v0": spaces.MultiDiscrete([3, 4], start=[1, -2]), "Switches-v0": spaces.MultiBinary((2, 2))}
WORLDS: list[World] = []


def observe(step: int) -> np.ndarray:
    return np.array([step / 20, 0.0], np.float32)


def world_of(space: gym.Space) -> World:
    WORLDS.append(World(SEEN, space, observe, earn=lambda action, step: float(np.sum(action))))
    return WORLDS[-1]


for name, space in SPACES.items():
    gym.register(name, entry_point=lambda space=space: world_of(space), disable_env_checker=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("algorithm", ["DR3-DQN", "BC"])
def test_a_policy_is_trained_played_saved_and_restored(tmp_path: Path, name: str, algorithm: str) -> None:
    space = SPACES[name]
    space.seed(0)
    recorded = [
        {
            "observations": np.stack([observe(step) for step in range(21)]),
            "actions": np.stack([space.sample() for _ in range(20)]),
            "rewards": np.ones(20),
            "truncated": True,
        }
        for _ in range(4)
    ]
    from_episodes(recorded, out=tmp_path / "data", action_space=space)
    config = dr3_ray.config_for(algorithm).offline_data(input_=str(tmp_path / "data"))
    config = config.training(hidden_sizes=[8, 8], batch_size=8).environment(env=f"gymnasium:{name}")
    config = config.population([{"seed": seed} for seed in range(2)], updates_per_iteration=5)
    trained = config.evaluation(evaluation_interval=1, evaluation_duration=2).build_algo()
    WORLDS.clear()
    result = trained.train()
    received = [np.stack(world.received) for world in WORLDS if world.received]
    assert len(received) == 4 and all(each.shape == (20, *space.shape) for each in received)
    returns = [result["members"][member]["episode_return_mean"] for member in ("000", "001")]
    assert sum(returns) == pytest.approx(sum(float(each.sum()) for each in received) / 2)
    trained.save_to_path(tmp_path / "checkpoint")
    again = Algorithm.from_checkpoint(tmp_path / "checkpoint")
    assert again.train()["members"].keys() == result["members"].keys()
    again.stop(), trained.stop()
