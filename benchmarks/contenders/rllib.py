"""RLlib's own CQL and IQL on its new API stack, offline data by way of Ray Data, mapped and materialised beforehand.

Its critics read observations and actions by separate networks of `hidden_sizes`, joined by two more layers: their sizes
cannot be set to those of the others. CPU time is that of the process that trains, without Ray's workers.
"""

import os
from pathlib import Path

import gymnasium as gym
import numpy as np
import ray
import ray.data
import torch
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.examples.envs.classes.random_env import RandomEnv
from turns import asked, take_turns

ROWS = 5000  # its speed does not depend on them, but before it starts each goes through Python several times

torch.set_num_threads(1)
case = asked()
os.sched_setaffinity(0, range(os.cpu_count() or 1))  # or Ray's workers would have to share its core
folder = Path(case["columns"]).parent
ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder / "ray"))
columns = {name: column[:ROWS] for name, column in np.load(case["columns"]).items()}
ends = np.maximum(columns["terminateds"], columns["truncateds"])
rows = {
    "eps_id": np.cumsum(ends) - ends,
    "obs": columns["observations"],
    "actions": columns["actions"],
    "rewards": columns["rewards"],
    "new_obs": columns["next_observations"],
    "terminateds": columns["terminateds"] > 0,
    "truncateds": columns["truncateds"] > 0,
}
items = [{name: column[i] for name, column in rows.items()} for i in range(len(ends))]
ray.data.from_items(items).write_parquet(str(folder / "rows"))
config = {"DR3-CQL": CQLConfig, "DR3-IQL": IQLConfig}[case["algorithm"]]()
n_observation, n_actions = (columns[name].shape[1] for name in ("observations", "actions"))
spaces = {
    "observation_space": gym.spaces.Box(-np.inf, np.inf, (n_observation,)),
    "action_space": gym.spaces.Box(-1.0, 1.0, (n_actions,)),
}
config.environment(**spaces)
config.env_runners(num_env_runners=0)
config.rl_module(model_config=DefaultModelConfig(fcnet_hiddens=case["options"]["hidden_sizes"]))
config.training(lr=None, train_batch_size_per_learner=case["options"]["batch_size"])
if case["algorithm"] == "DR3-CQL":
    config.training(num_actions=10, bc_iters=0)
    config.environment(RandomEnv, env_config=spaces)  # its CQL makes one, which is never played
config.offline_data(
    input_=[str(folder / "rows")],
    dataset_num_iters_per_learner=case["updates"],
    materialize_data=False,
    materialize_mapped_data=True,
)
config.reporting(min_time_s_per_iteration=0, min_train_timesteps_per_iteration=0)
algorithm = config.build_algo()
take_turns(lambda n: algorithm.train())
