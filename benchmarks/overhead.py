"""What a member costs beyond its updates: milliseconds, in packs of 16 and unpacked.

    python benchmarks/overhead.py [--members 8 64 512] [--packs 16 1] [--json FILE]

Real sweeps on a data set of the package, one trial at a time, of one update for each member: building the algorithm,
the probe batch, the final checkpoint, Tune, index and histories. A trial of behaviour cloning goes first: the clock
runs from when it is built to the end of the sweep; what Ray and RLlib take to get there is given beside it. The
updates, timed in a bare population, are subtracted.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from dr3_ray.runs.index import INDEX
from dr3_ray.sweep.packs.calibration import measure
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec


def spec_of(count: int, pack: int, out: Path) -> SweepSpec:
    return SweepSpec(
        algorithms=["BC", "DR3-CQL"],
        datasets=["embedded:breakout-replay"],
        coefficients=[1e-4 * number for number in range(count)],
        seeds=1,
        steps=1,
        evaluations=1,
        environment="none",
        options={"hidden_sizes": [32]},
        pack=pack,
        concurrent=1,
        out=out,
    )


def cost_of(count: int, pack: int, out: Path) -> dict[str, Any]:
    """Return one sweep."""
    spec, started = spec_of(count, pack, out), time.time()
    summary = train_sweep(spec)
    assert summary.statuses == {"finished": count + 1}, summary
    lines = [json.loads(line) for line in (out / INDEX).read_text().splitlines()]
    first = min(line["time"] for line in lines if line["status"] == "running")
    last = max(line["time"] for line in lines if line["status"] == "finished")
    packed = list(members(spec).values())[1:][:pack]
    updates = measure(packed, cpus=1, gpus=0).update / len(packed)
    return {
        "members": count,
        "pack": pack,
        "start": first - started,
        "updates": 1000 * updates,
        "overhead": 1000 * ((last - first) / count - updates),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--packs", type=int, nargs="+", default=[16, 1])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rows = []
    print("members  in a pack  start, s  an update, ms  beyond updates, ms a member", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        for pack in options.packs:
            for count in options.members:
                row = cost_of(count, pack, Path(directory) / f"{pack}-{count}")
                rows.append(row)
                print("{members:7}{pack:11}{start:10.1f}{updates:15.1f}{overhead:29.1f}".format(**row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
