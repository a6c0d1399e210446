"""What the probe costs: its share of training at the default interval of 5,000 updates, in CPU seconds of one thread.

    python benchmarks/probe.py [--turns 3] [--updates 300] [--json FILE]

Bare populations of one member on the data sets of the package, with the defaults of each algorithm, so that the probe
has 256 features. Updates and probes take turns, and the least of each counts.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dr3_ray import Member, Population, find, load_dataset

INTERVAL = 5000  # updates between two evaluations of a sweep, by its defaults
DATA = {"discrete": "embedded:breakout-replay", "continuous": "embedded:pendulum-replay"}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("DR3-DQN", "discrete", {}),
    ("DR3-DQN", "discrete", {"critic_actions": "input"}),
    ("DR3-CQL", "discrete", {}),
    ("DR3-SARSA", "discrete", {"critic_actions": "input"}),
    ("DR3-IQL", "continuous", {}),
    ("DR3-TD3BC", "continuous", {}),
]


def cost_of(name: str, kind: str, options: dict[str, Any], turns: int, updates: int) -> dict[str, float]:
    """Return CPU milliseconds of an update and of a probe, and the share of the probe in an interval."""
    data, algorithm = load_dataset(DATA[kind]), find(name, kind)
    population = Population.of(algorithm, [Member.from_dict(algorithm, options)], data, data.spaces)
    population.record()
    population.update(20)
    population.probe()
    found: dict[str, list[float]] = {"update": [], "probe": []}
    for _ in range(turns):
        for what, work, count in (
            ("update", lambda: population.update(updates), updates),
            ("probe", population.probe, 1),
        ):
            began = time.process_time()
            work()
            found[what].append(1000 * (time.process_time() - began) / count)
    update, probe = (min(found[what]) for what in ("update", "probe"))
    return {"update": update, "probe": probe, "share": probe / (INTERVAL * update + probe)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--updates", type=int, default=300, help="of a turn")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rows = []
    print("an update, ms  a probe, ms  share  of", flush=True)
    for name, kind, values in CASES:
        row = cost_of(name, kind, values, options.turns, options.updates)
        rows.append({"algorithm": name, "actions": kind, "options": values, **row})
        said = " ".join([name, kind, *(f"{key}={value}" for key, value in values.items())])
        print(f"{row['update']:13.3f}{row['probe']:13.1f}{row['share']:7.2%}  {said}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
