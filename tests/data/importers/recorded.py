"""Records episodes of CartPole with RLlib: `python recorded.py FOLDER` writes columns, packed episodes, and the truth.

RLlib packs whole episodes with msgpack-numpy, which is no requirement of ours: they are packed here in its layout.
"""

import sys
from pathlib import Path

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.rllib.algorithms.ppo import PPOConfig


def encode(value):
    """As `msgpack_numpy.encode` does."""
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return {b"nd": True, b"type": "O", b"kind": b"O", b"shape": value.shape, b"data": value.dumps()}
        return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape, b"data": value.tobytes()}
    if isinstance(value, np.generic):
        return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()}
    raise TypeError(type(value))


folder = Path(sys.argv[1])
ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
for name, compressed in (("packed", ["obs", "new_obs"]), ("plain", [])):
    config = (
        PPOConfig()
        .environment("CartPole-v1", env_config={"max_episode_steps": 7})
        .env_runners(num_env_runners=0, batch_mode="complete_episodes")
        .training(train_batch_size=60, minibatch_size=30, num_epochs=1)
        .offline_data(
            output=str(folder / name),
            output_write_episodes=False,
            output_write_method="write_parquet",
            output_compress_columns=compressed,
        )
    )
    algorithm = config.build_algo()
    episodes = algorithm.env_runner.sample(num_episodes=3, random_actions=True)
    algorithm.stop()
    truth = {}
    for index, episode in enumerate(episodes):
        truth[f"{index}/observations"] = np.array(episode.get_observations())
        truth[f"{index}/actions"] = np.array(episode.get_actions())
        truth[f"{index}/rewards"] = np.array(episode.get_rewards())
        truth[f"{index}/ends"] = np.array([episode.is_terminated, episode.is_truncated])
    np.savez(folder / f"{name}.npz", **truth)
(folder / "episodes").mkdir()
items = [msgpack.packb(episode.get_state(), default=encode) for episode in episodes]
pq.write_table(pa.table({"item": items}), folder / "episodes/run.parquet")
