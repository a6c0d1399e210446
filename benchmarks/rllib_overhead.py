"""Gradient updates a second of DR3-CQL: through the RLlib Algorithm, and in a bare torch loop of the same loss.

    python benchmarks/rllib_overhead.py [--updates 1000] [--repeats 5] [--json FILE]

One thread, the same data, batch, widths and loss. The two take turns in one process, so that the machine's noise
falls on both; medians are given, and the ratio is the median of the ratios of neighbouring turns. CPU seconds are
those of the process. The bare loop is what one would write by hand: `torch.nn.Linear`, `torch.optim.Adam(fused=True)`,
columns in memory, indices drawn step by step, nothing logged.
"""

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import torch
from torch import nn
from torch.nn import functional

import dr3_ray

DATA = "embedded:breakout-replay"
WIDTHS = (256, 256)
BATCH = 32
LR = 1e-4


def through_rllib(updates: int) -> Callable[[], None]:
    """One `train()` of `updates` gradient steps, with everything that belongs to it but rollouts."""
    config = dr3_ray.DR3CQLConfig().offline_data(input_=DATA)
    config = config.training(hidden_sizes=list(WIDTHS), batch_size=BATCH, critic_lr=LR, cql_alpha=0.1)
    config = config.regularization(dr3_coeff=0.03).population(updates_per_iteration=updates)
    algorithm = config.build_algo()
    return algorithm.train  # type: ignore[no-any-return]


def bare_loop(updates: int) -> Callable[[], None]:
    """The same updates by hand."""
    data = dr3_ray.load_dataset(DATA)
    names = ("observations", "actions", "rewards", "next_observations", "terminateds")
    columns = data.gather(torch.arange(len(data)), names)
    n_observation, n_actions = columns["observations"][0].numel(), int(columns["actions"].max()) + 1
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(n_observation, WIDTHS[0]), nn.ReLU(), nn.Linear(*WIDTHS), nn.ReLU())
    head = nn.Linear(WIDTHS[1], n_actions)
    target_encoder, target_head = copy.deepcopy(encoder), copy.deepcopy(head)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=LR, eps=3.125e-4, fused=True)

    def run() -> None:
        for step in range(updates):
            rows = torch.randint(len(data), (BATCH,))
            s, a, r, next_s, terminated = (columns[name].index_select(0, rows) for name in names)
            phi, next_phi = encoder(s), encoder(next_s)
            q = head(phi)
            with torch.no_grad():
                next_q = target_head(target_encoder(next_s)).amax(-1)
                y = r + 0.99 * (1.0 - terminated) * next_q
            q_a = q.gather(1, a.unsqueeze(1)).squeeze(1)
            loss = functional.smooth_l1_loss(q_a, y) + 0.1 * (q.logsumexp(-1) - q_a).mean()
            alive = 1.0 - terminated
            loss = loss + 0.03 * ((phi * next_phi).sum(-1) * alive).sum() / alive.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 2000 == 1999:
                target_encoder.load_state_dict(encoder.state_dict())
                target_head.load_state_dict(head.state_dict())

    return run


def rates(run: Callable[[], Any], updates: int) -> tuple[float, float]:
    """Updates a second of wall time, and a CPU second."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return updates / (time.perf_counter() - wall), updates / (time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as a population does; without it the bare loop would be slower
    runs = {"RLlib Algorithm": through_rllib(options.updates), "bare torch loop": bare_loop(options.updates)}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(options.repeats + 1):
        for name, run in runs.items():
            result = rates(run, options.updates)
            if turn > 0:  # the first turn warms up
                measured[name].append(result)
    print(f"DR3-CQL on {DATA}, {WIDTHS[0]}x{WIDTHS[1]}, batch {BATCH}, one thread, {options.repeats} turns")
    print(f"{'':18}{'updates/s':>12}{'min-max':>16}{'updates/CPU-s':>16}")
    figures: dict[str, Any] = {}
    for name, results in measured.items():
        wall, cpu = zip(*results, strict=True)
        figures[name] = {"wall": statistics.median(wall), "cpu": statistics.median(cpu)}
        print(
            f"{name:18}{figures[name]['wall']:12.0f}{f'{min(wall):.0f}-{max(wall):.0f}':>16}{figures[name]['cpu']:16.0f}"
        )
    pairs = zip(measured["RLlib Algorithm"], measured["bare torch loop"], strict=True)
    ratios = [(ours[0] / bare[0], ours[1] / bare[1]) for ours, bare in pairs]
    wall_ratios, cpu_ratios = zip(*ratios, strict=True)
    figures["ratio"] = {"wall": statistics.median(wall_ratios), "cpu": statistics.median(cpu_ratios)}
    print(f"RLlib / bare: {figures['ratio']['wall']:.2f} by wall time, {figures['ratio']['cpu']:.2f} by CPU time")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
