"""Cutting members out of a pack on a CPU: updates a second of 16 members, and of the 8 and 4 that stay.

    python benchmarks/cut.py [--repeats 5] [--json FILE]

One thread, the execution that is chosen. The packs take turns; the figures are medians of steps of the whole pack, and
the ratios are those to the whole one.
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
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from dr3_ray.training.process import prepare_training

CASES: list[tuple[str, str, dict[str, Any], int]] = [
    ("DR3-CQL", "breakout", {}, 20),
    ("DR3-CQL", "breakout", {"hidden_sizes": [32, 32]}, 60),
    ("DR3-CQL", "pendulum", {"hidden_sizes": [32, 32], "batch_size": 64}, 20),
    ("DR3-SARSA", "pendulum", {}, 5),
]
SIZES = (16, 8, 4)


def main() -> None:
    prepare_training()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = []
    print(f"{'':46}{'':9}" + "".join(f"{f'{size} members':>18}" for size in SIZES))
    for name, data_name, settings, updates in CASES:
        data = load_dataset(f"embedded:{data_name}-replay")
        spec = find(name, data.spaces.action_kind)
        members = [Member.from_dict(spec, settings | {"seed": seed}) for seed in range(SIZES[0])]
        whole = Population.of(spec, members, data, data.spaces)
        whole.update(updates)  # warms up
        packs = {size: whole.keep(range(size)) for size in SIZES}
        rates: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(options.repeats):
            for size, pack in packs.items():
                start = time.perf_counter()
                pack.update(updates)
                rates[size].append(updates / (time.perf_counter() - start))
        found = {size: statistics.median(each) for size, each in rates.items()}
        shown = [f"{rate:8.1f}/s ×{rate / found[SIZES[0]]:5.2f}" for rate in found.values()]
        what = f"{name} {data_name} {settings or ''}"
        print(f"{what:46.46} {whole.execution:8}" + "".join(f"{each:>18}" for each in shown), flush=True)
        figures.append({"case": what, "execution": whole.execution, "steps_per_second": found})
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
