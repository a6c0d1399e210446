"""Packs on a CPU: CPU-milliseconds a gradient update of one member, walked in turn and stacked.

    python benchmarks/pack.py [--members 4] [--repeats 3] [--json FILE]

One thread, the package's data sets. The two executions take turns; the figures are medians.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.member import Member
from dr3_ray.population import Population, choose_execution, largest_activation

CASES: list[tuple[str, str, dict[str, Any], int]] = [
    ("DR3-CQL", "breakout", {}, 60),
    ("DR3-CQL", "breakout", {"batch_size": 256}, 20),
    ("DR3-CQL", "breakout", {"batch_size": 256, "hidden_sizes": [64, 64]}, 60),
    ("DR3-CQL", "breakout", {"hidden_sizes": [512, 512]}, 30),
    ("BC", "pendulum", {}, 60),
    ("DR3-SARSA", "pendulum", {}, 20),
    ("DR3-CQL", "pendulum", {"hidden_sizes": [32, 32], "batch_size": 64}, 60),
    ("DR3-CQL", "pendulum", {"hidden_sizes": [256, 256]}, 3),
]


def population(name: str, data: Any, options: dict[str, Any], members: int, execution: Any) -> Population:
    """K members that differ in their seed."""
    spec = find(name, data.spaces.action_kind)
    pack = [Member.from_dict(spec, options | {"seed": seed}) for seed in range(members)]
    return Population.of(spec, pack, data, data.spaces, execution)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = []
    print(f"{options.members} members, CPU-ms an update of one member")
    print(f"{'':46}{'in turn':>9}{'stacked':>9}{'ratio':>7}   chosen")
    for name, data_name, settings, updates in CASES:
        data = load_dataset(f"embedded:{data_name}-replay")
        packs = {each: population(name, data, settings, options.members, each) for each in ("in_turn", "stacked")}
        times: dict[str, list[float]] = {each: [] for each in packs}
        for turn in range(options.repeats + 1):
            for execution, pack in packs.items():
                start = time.process_time()
                pack.update(updates)
                if turn > 0:  # the first turn warms up
                    times[execution].append((time.process_time() - start) * 1e3 / updates / options.members)
        in_turn, stacked = (statistics.median(times[each]) for each in ("in_turn", "stacked"))
        pack = packs["stacked"]
        activation = largest_activation(pack.members[0].options, pack.batches.sampler.noise)
        chosen = choose_execution(torch.device("cpu"), activation)
        what = f"{name} {data_name} {settings or ''}"
        print(f"{what:46.46}{in_turn:9.2f}{stacked:9.2f}{in_turn / stacked:7.2f}   {chosen}", flush=True)
        figures.append({"case": what, "in_turn_ms": in_turn, "stacked_ms": stacked, "chosen": chosen})
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
