"""d3rlpy's algorithms and replay buffer."""

import d3rlpy
import numpy as np
import torch
from d3rlpy.algos import CQLConfig, DiscreteCQLConfig, IQLConfig, TD3PlusBCConfig
from d3rlpy.models import VectorEncoderFactory
from turns import asked, take_turns

torch.set_num_threads(1)
case = asked()
columns = dict(np.load(case["columns"]))
discrete = columns["actions"].ndim == 1
encoder = VectorEncoderFactory(case["options"]["hidden_sizes"])
networks = {"encoder_factory": encoder} if discrete else dict.fromkeys(
    ("actor_encoder_factory", "critic_encoder_factory"), encoder
)  # fmt: skip
if case["algorithm"] == "DR3-IQL":
    networks["value_encoder_factory"] = encoder
configs = {"DR3-CQL": DiscreteCQLConfig if discrete else CQLConfig, "DR3-IQL": IQLConfig, "DR3-TD3BC": TD3PlusBCConfig}
algorithm = configs[case["algorithm"]](batch_size=case["options"]["batch_size"], **networks).create("cpu:0")
data = d3rlpy.dataset.MDPDataset(
    columns["observations"].reshape(len(columns["rewards"]), -1),
    columns["actions"],
    columns["rewards"],
    columns["terminateds"],
    columns["truncateds"],
)
algorithm.build_with_dataset(data)


def update(n: int) -> None:
    for _ in range(n):
        algorithm.update(data.sample_transition_batch(case["options"]["batch_size"]))


take_turns(update)
