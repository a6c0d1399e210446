"""CORL's training step and replay buffer, by way of `studies/corl.py`."""

from pathlib import Path

import numpy as np
import torch
from turns import asked, take_turns

from dr3_ray.algorithms.registry import find
from studies import corl

MAKERS = {"DR3-CQL": corl.cql, "DR3-IQL": corl.iql, "DR3-TD3BC": corl.td3_bc}

torch.set_num_threads(1)
case = asked()
columns = dict(np.load(case["columns"]))
options = find(case["algorithm"], "continuous").options.from_dict(case["options"])
theirs = corl.load(Path(case["checkout"]), corl.FILES[case["algorithm"]])
trainer = MAKERS[case["algorithm"]](theirs, columns, options)
buffer = theirs.ReplayBuffer(*corl.sizes_of(columns), len(columns["rewards"]))
buffer.load_d4rl_dataset({**columns, "terminals": columns["terminateds"]})


def update(n: int) -> None:
    for _ in range(n):
        trainer.train(buffer.sample(options.batch_size))


take_turns(update)
