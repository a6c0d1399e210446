"""Data sets that everyone reads: ours, and the same rows as columns in one NumPy file."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from dr3_ray.data import Provenance, SpaceSpec, episode_columns, load_dataset, write_dataset

COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminateds", "truncateds")
CHEETAH = (gym.spaces.Box(-np.inf, np.inf, (17,)), gym.spaces.Box(-1.0, 1.0, (6,)))
LANDER = (gym.spaces.Box(-np.inf, np.inf, (8,)), gym.spaces.Discrete(4))
ATARI = (gym.spaces.Box(0, 255, (84, 84, 4), np.uint8), gym.spaces.Discrete(6))
NOISE = {
    "cheetah": (CHEETAH, 20, 1000),
    "lander": (LANDER, 20, 1000),
    "atari": (ATARI, 10, 200),
    "frames": (ATARI, 10, 1000),
}  # spaces, episodes, rows in each
BREAKOUT = "embedded:breakout-replay"


def prepare(kind: str, folder: Path) -> dict[str, str]:
    """Return `dataset`, a source of ours, and `columns`, the file for the others: noise of that kind, or `breakout`."""
    source, columns = BREAKOUT, folder / f"{kind}.npz"
    if kind != "breakout":
        source = str(folder / kind)
        if not Path(source).exists():
            _write_noise(kind, folder / kind)
    if not columns.exists():
        data = load_dataset(source)
        rows = data.gather(torch.arange(len(data)), COLUMNS)
        np.savez(columns, **{name: each.numpy() for name, each in rows.items()})
    return {"dataset": source, "columns": str(columns)}


def _write_noise(kind: str, to: Path) -> None:
    (observations, actions), episodes, rows = NOISE[kind]
    rng = np.random.default_rng(0)

    def episode(number: int) -> Any:
        shape = (rows + 1, *observations.shape)
        if observations.dtype == np.uint8:
            seen = rng.integers(256, size=shape, dtype=np.uint8)
        else:
            seen = rng.normal(size=shape).astype(np.float32)
        if isinstance(actions, gym.spaces.Discrete):
            done = rng.integers(actions.n, size=rows)
        else:
            done = np.tanh(rng.normal(size=(rows, *actions.shape))).astype(np.float32)
        rewards = rng.normal(size=rows).astype(np.float32)
        over = {"terminated": number % 2 == 0, "truncated": number % 2 == 1}
        return episode_columns(list(seen), done, list(rewards), **over, episode_id=number, gamma=0.99)

    write_dataset(
        to,
        [episode(number) for number in range(episodes)],
        observation_space=SpaceSpec.from_gymnasium(observations),
        action_space=SpaceSpec.from_gymnasium(actions),
        gamma=0.99,
        name=f"{kind}-noise",
        environment=None,
        provenance=Provenance(source="random numbers"),
    )
