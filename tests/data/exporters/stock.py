"""Trains stock RLlib on exports, and reads data sets with Ray Data: `python stock.py FOLDER` prints losses as JSON.

In FOLDER lie the data sets that are named below, and for each but `dict` an export for RLlib, `discrete-rllib` say.
"""

import json
import sys
from pathlib import Path

import numpy as np
import ray
import torch
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.marwil import MARWILConfig

from dr3_ray.data import as_ray_dataset, load_dataset
from dr3_ray.data.spaces import named_parts

folder = Path(sys.argv[1])
# a trained algorithm keeps the CPUs of its pipeline
ray.init(num_cpus=6, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False

for name in ("image", "bits"):
    dataset = load_dataset(folder / name)
    frames = np.stack([row["obs"] for row in ray.data.read_parquet(str(folder / f"{name}-rllib")).take_all()])
    stored = dataset.gather(torch.arange(len(dataset)), ["observations"])["observations"].numpy()
    assert frames.dtype == dataset.observation_space.dtype and np.array_equal(frames, stored)

for name in ("discrete", "box", "image", "bits", "dict"):
    dataset = load_dataset(folder / name)
    read = as_ray_dataset(folder / name)
    assert read.count() == as_ray_dataset(dataset).count() == len(dataset)
    columns = {key: [] for key in read.schema().names}
    for batch in read.iter_batches(batch_size=7, batch_format="numpy"):
        for key, values in batch.items():
            columns[key].append(values)
    wanted = named_parts(dataset.gather(torch.arange(len(dataset)), dataset.columns))
    assert set(columns) == set(wanted)
    joined = {key: np.concatenate(values) for key, values in columns.items()}
    places = np.lexsort((joined["timesteps"], joined["episode_ids"]))
    for key, values in wanted.items():
        assert np.array_equal(joined[key][places], values.numpy()), key

found = {}
for name, kind in (("discrete", BCConfig), ("discrete", MARWILConfig), ("box", BCConfig)):
    dataset = load_dataset(folder / name)
    config = (
        kind()
        .environment(
            observation_space=dataset.observation_space.to_gymnasium(),
            action_space=dataset.action_space.to_gymnasium(),
            normalize_actions=False,
        )
        .offline_data(
            input_=str(folder / f"{name}-rllib"),
            dataset_num_iters_per_learner=1,
            map_batches_kwargs={"concurrency": 1},
        )
        .training(train_batch_size_per_learner=32)
        .learners(num_learners=0)
    )
    algorithm = config.build_algo()
    losses = [algorithm.train()["learners"]["default_policy"]["total_loss"] for _ in range(2)]
    found[f"{kind.__name__} {name}"] = list(map(float, losses))
    algorithm.stop()

print(json.dumps(found))
