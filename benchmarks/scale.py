"""Sweeps of up to 10,000 members on up to 100 machines: what the driver, its files and its readers take.

    python benchmarks/scale.py [--members 100 1000 10000] [--slots 100] [--nodes 4] [--repeats 1] [--json FILE]
    python benchmarks/scale.py --smoke

The sweep is real: specification, packs, Ray Tune's driver, index, histories, `kill -9` when half of the members have
begun, `--resume`, `dr3-ray status`, `dr3-ray report`. Two things are not. Trials train nothing: they return, so many
`--seconds` later, what a pack of DR3-CQL returns, of the same names and sizes. And the machines are as many Ray nodes
as fit on this one (`--nodes`), which declare CPUs for all `--slots` trials that machines with one CPU each would train
at a time. To fill many slots trials have to take longer than it takes to start that many processes.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import pandas as pd
from ray import tune
from ray.cluster_utils import Cluster

from dr3_ray.runs.index import INDEX
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec

METRICS = (
    "cosine", "cql_gap", "dot_product", "dot_product_abs", "dr3_penalty", "effective_rank", "loss_cql", "loss_critic",
    "loss_dr3", "phi_norm", "q_data", "q_mean", "target", "td_error",
)  # fmt: skip
COEFFICIENTS, SEEDS, GRID = 10, 10, 10
UPDATES = 1000  # between two evaluations,
RATE = 1234.5  # and so many a second, it is said


class FakePack(tune.Trainable):
    """Returns what `PackTrainable` does, without training: one evaluation after so many seconds."""

    seconds = 0.1

    def setup(self, config: dict[str, Any]) -> None:
        self.pack, self.results = config["pack"]["members"], 0

    def step(self) -> dict[str, Any]:
        time.sleep(self.seconds)
        self.results += 1
        done = self.results == self.pack[0]["evaluations"]
        return {
            "members": [self.measured(config) for config in self.pack],
            "num_updates": self.results * UPDATES,
            "updates_per_second": RATE,
            "time_s": float(self.results),
            "cut": [],
            "earlier": [],
            "evaluations": self.results,
            "done": done,
        }

    def measured(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return numbers as hard to compress as measured ones."""
        options = [config["seed"], *(round(1e9 * config[name]) for name in ("dr3_coeff", "critic_lr", "cql_alpha"))]
        source = np.random.default_rng([self.results, *options])
        row: dict[str, Any] = dict(zip(METRICS, source.standard_normal(len(METRICS), np.float32).tolist(), strict=True))
        row |= {"episode_return_mean": source.integers(200) / 20, "episodes": 20}
        return row | {"diverged": False, "seed": config["seed"], "dr3_coeff": config["dr3_coeff"]}

    def reset_config(self, config: dict[str, Any]) -> bool:
        self.setup(config)
        return True


class Usage(NamedTuple):
    """What a process took."""

    seconds: float
    cpu: float
    memory: int  # bytes, at its peak
    code: int


def spec_of(members: int, out: Path, pack: int, evaluations: int) -> SweepSpec:
    """Return a grid of two options, ten coefficients and ten seeds; cut down to so many members by its seeds."""
    points = max(1, members // (COEFFICIENTS * SEEDS))
    rates = min(points, GRID)
    return SweepSpec(
        datasets=["embedded:breakout-replay"],
        coefficients=[0.0] + [1e-3 * 2**power for power in range(COEFFICIENTS - 1)],
        seeds=max(1, min(SEEDS, members // COEFFICIENTS)),
        steps=UPDATES * evaluations,
        evaluations=evaluations,
        environment="none",
        axes={
            "critic_lr": [1e-5 * (rate + 1) for rate in range(rates)],
            "cql_alpha": [0.1 * (place + 1) for place in range(points // rates)],
        },
        pack=pack,
        out=out,
    )


@contextmanager
def machines(nodes: int, slots: int) -> Iterator[str]:
    """Return the address of a Ray cluster of so many nodes with room for so many trials."""
    shares = [slots // nodes + (node < slots % nodes) for node in range(nodes)]
    # A hundred processes that start at a time on a few cores would each take longer than Ray waits for them, and with
    # Ray's own niceness, 15, a minute each beside other work.
    patience = {
        "worker_register_timeout_seconds": 600,
        "worker_maximum_startup_concurrency": 1,
        "worker_niceness": 0,
    }
    with tempfile.TemporaryDirectory() as directory:  # in Ray's own, any sweep on this machine would find it
        common = {"object_store_memory": 100_000_000, "temp_dir": directory}
        head = common | {"include_dashboard": False, "num_cpus": shares[0], "_system_config": patience}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for share in shares[1:]:
                cluster.add_node(num_cpus=share, **common)
            yield cluster.address
        finally:
            cluster.shutdown()


def sweep(spec: Path, seconds: float) -> None:
    """Run a driver with packs that train nothing."""
    from dr3_ray.sweep.run import train_sweep
    from dr3_ray.sweep.trials.ray_trials import RayTrials

    FakePack.seconds = seconds
    summary = train_sweep(SweepSpec(**json.loads(spec.read_text())), trials=RayTrials(trainable=FakePack))
    assert summary.exit_code == 0, summary


def take_up(spec: SweepSpec) -> float:
    """Return what a driver does before Ray, in CPU-seconds: members, run directory, packs, rows of earlier drivers."""
    from dr3_ray.runs.histories import Histories
    from dr3_ray.runs.index import FINAL
    from dr3_ray.sweep.directory import axes, open_run
    from dr3_ray.sweep.packs.packing import begun_packs, pack_members
    from dr3_ray.sweep.spec.names import option_types

    started = time.process_time()
    planned = members(spec)
    with open_run(spec, planned, ["benchmark"]) as index:
        missing = {member: config for member, config in planned.items() if index.status(member) not in FINAL}
        _, rest = begun_packs(missing, index.records)
        pack_members(rest, spec.pack, 100)
        configs = {member: record["config"] for member, record in index.records.items()}
        columns = ("algorithm", "dataset", "seed", *axes(configs.values()))
        Histories(spec.out, configs, columns, option_types()).load(missing)
    return time.process_time() - started


def take_up_twice(spec: Path) -> None:
    """Print it for a new run directory and for the one that is there."""
    sweep = SweepSpec(**json.loads(spec.read_text()))
    with tempfile.TemporaryDirectory() as directory:
        new = take_up(sweep.model_copy(update={"out": Path(directory) / "run"}))
    print(json.dumps([new, take_up(sweep)]))


class Process:
    """A command that runs in the background."""

    def __init__(self, command: list[str], **environment: str) -> None:
        self.started, self.memory = time.time(), 0
        self._process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)

    def is_over(self, seconds: float = 0.1) -> bool:
        """Return whether it is, after so much time."""
        time.sleep(seconds)
        # what the system says at the end would count the memory of this process in, from before the exec
        said = Path(f"/proc/{self._process.pid}/status").read_text()
        self.memory = max(
            [self.memory, *(1024 * int(line.split()[1]) for line in said.splitlines() if "VmHWM" in line)]
        )
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)  # Popen's own would wait for one that is over

    def usage(self) -> Usage:
        """Return what it took, once it is over."""
        while not self.is_over():
            pass
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        seconds, cpu = time.time() - self.started, usage.ru_utime + usage.ru_stime
        return Usage(seconds, cpu, self.memory, self._process.returncode)


def measure(spec: SweepSpec, slots: int, nodes: int, seconds: float) -> dict[str, float]:
    """Return one sweep, killed when half of its members have begun and resumed, then read."""
    asked = spec.out.with_suffix(".json")
    asked.write_text(spec.model_dump_json())
    command = [sys.executable, __file__, "--sweep", str(asked), "--seconds", str(seconds)]
    before = [sys.executable, __file__, "--take-up", str(asked)]
    figures: dict[str, float] = {"members": len(members(spec))}
    half = figures["members"] / 2
    with machines(nodes, slots) as address:
        first = Process(command, RAY_ADDRESS=address)
        while not first.is_over(0.5) and begun(spec.out) <= half:
            pass
        first.kill()
        until_half = first.usage()
        new, again = json.loads(subprocess.run(before, check=True, stdout=subprocess.PIPE).stdout)
        figures |= {"CPU before the first trial, s": new, "the same after kill -9, s": again}
        second = Process(command, RAY_ADDRESS=address)
        whole = second.usage()
    if whole.code:
        raise SystemExit(f"the sweep in {spec.out} failed")
    times = [json.loads(line)["time"] for line in (spec.out / INDEX).read_text().splitlines()]
    figures |= {
        "from --resume to the first trial, s": next(time for time in times if time > second.started) - second.started,
        "both drivers, s": until_half.seconds + whole.seconds,
        "CPU of both drivers, s": until_half.cpu + whole.cpu,
        "driver memory, MB": max(until_half.memory, whole.memory) / 1e6,
    }
    for name in ("index.jsonl", "histories.parquet", "run.json"):
        figures[f"{name}, kB"] = (spec.out / name).stat().st_size / 1e3
    for name in ("status", "report"):
        usage = Process([sys.executable, "-m", "dr3_ray", name, str(spec.out)]).usage()
        figures |= {f"{name} CPU, s": usage.cpu, f"{name} memory, MB": usage.memory / 1e6}
    figures["report.html, kB"] = (spec.out / "report" / "report.html").stat().st_size / 1e3
    return figures


def begun(run: Path) -> int:
    """Count the members that have begun, by the bytes of the index.

    To parse it twice a second would take as much as the driver does.
    """
    index = run / INDEX
    return index.read_bytes().count(b'"status": "running"') if index.exists() else 0


def table(columns: list[dict[str, float]]) -> pd.DataFrame:
    """Return a row for each figure, with the exponent of the power law through the last two sizes."""
    frame = pd.DataFrame(columns).set_index("members").T
    if len(columns) > 1:
        before, last = frame.columns[-2:]
        frame["exponent"] = np.log(frame[last] / frame[before]) / np.log(last / before)
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--pack", type=int, default=16)
    parser.add_argument("--slots", type=int, default=100, help="trials at a time")
    parser.add_argument("--nodes", type=int, default=4, help="Ray nodes that share them")
    parser.add_argument("--seconds", type=float, default=0.1, help="from one evaluation of a pack to the next")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="seconds: 20 members on one node")
    parser.add_argument("--out", type=Path, help="keep the run directories here")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--sweep", type=Path, help=argparse.SUPPRESS)  # this process is the driver of a sweep,
    parser.add_argument("--take-up", type=Path, help=argparse.SUPPRESS)  # or what comes before Ray
    options = parser.parse_args()
    if options.sweep:
        return sweep(options.sweep, options.seconds)
    if options.take_up:
        return take_up_twice(options.take_up)
    if options.smoke:
        options.members, options.evaluations, options.pack, options.slots, options.nodes = [20], 4, 2, 1, 1
    columns = []
    with tempfile.TemporaryDirectory() as directory:
        for members in options.members:
            turns = []
            for turn in range(options.repeats):
                out = (options.out or Path(directory)) / f"{members}-{turn}"
                out.parent.mkdir(parents=True, exist_ok=True)
                spec = spec_of(members, out, options.pack, options.evaluations)
                turns.append(measure(spec, options.slots, options.nodes, options.seconds))
            columns.append({name: statistics.median(turn[name] for turn in turns) for name in turns[0]})
            print(columns[-1], file=sys.stderr)
    print(table(columns).to_string(float_format="{:,.2f}".format))
    if options.json:
        options.json.write_text(json.dumps(columns, indent=1) + "\n")


if __name__ == "__main__":
    main()
