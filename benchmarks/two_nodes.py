"""The same sweep on one node and on two: updates a second, each node with a core of its own.

    python benchmarks/two_nodes.py [--repeats 3] [--updates 2000] [--json FILE]

Two nodes are two Ray nodes of one CPU on this machine. Whatever a node starts is pinned to its core, the first one to
core 0, the second one to core 1; the driver and the head's own processes are on core 0 in both cases. One node and two
take turns. The clock runs from the start of the first trial to the end of the last one.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray
from ray.cluster_utils import Cluster

from dr3_ray.runs.index import INDEX
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec

PACKS, MEMBERS = 8, 4  # in each pack


def throughput(nodes: int, updates: int, out: Path) -> float:
    """Return updates a second of all members together."""
    common = {"num_cpus": 1, "object_store_memory": 100_000_000}
    os.sched_setaffinity(0, {0})
    cluster = Cluster(initialize_head=True, head_node_args=common | {"include_dashboard": False})
    for core in range(1, nodes):
        os.sched_setaffinity(0, {core})  # what is started from here on inherits it
        cluster.add_node(**common)
    os.sched_setaffinity(0, {0})
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        train_sweep(
            SweepSpec(
                datasets=["embedded:breakout-replay"],
                coefficients=[0.01 * number for number in range(PACKS)],
                seeds=MEMBERS,
                steps=updates,
                evaluations=2,
                environment="none",
                options={"hidden_sizes": [64, 64]},
                pack=MEMBERS,
                nodes=nodes,
                out=out,
            )
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    lines = [json.loads(line) for line in (out / INDEX).read_text().splitlines()]
    times = {status: [line["time"] for line in lines if line["status"] == status] for status in ("running", "finished")}
    assert len(times["finished"]) == PACKS * MEMBERS
    return PACKS * MEMBERS * updates / (max(times["finished"]) - min(times["running"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as directory:
        for turn in range(options.repeats):
            for nodes, rates in found.items():
                rates.append(throughput(nodes, options.updates, Path(directory) / f"{nodes}-{turn}"))
                print(f"turn {turn}, {nodes} nodes: {rates[-1]:,.0f} updates/s", flush=True)
    ratio = statistics.median(two / one for one, two in zip(found[1], found[2], strict=True))
    print(f"one node {statistics.median(found[1]):,.0f}, two {statistics.median(found[2]):,.0f}, ratio {ratio:.2f}")
    if options.json:
        options.json.write_text(json.dumps(found | {"ratio": ratio}, indent=1) + "\n")


if __name__ == "__main__":
    main()
