"""Training on data four times as large as the memory: updates a second, beside the same with all data in memory.

    python benchmarks/window.py --folder DIR [--limit-mib 1024] [--seconds 30] [--turns 3] [--json FILE]

Each is a process of its own. Those with a limit run in a control group of Linux, whose memory counts the pages of files
that they read; that needs root. `peak` is the most that it had, `rss` what the process itself had at the end. The data
are noise, written to DIR once, which has to be on a disk: what is in a tmpfs is in memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from shared.noise import ATARI, CHEETAH

from dr3_ray.data import Provenance, SpaceSpec, episode_columns, load_dataset, write_dataset

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
TIMES = 4  # what the data take, of the limit
WINDOW = 0.2  # what the window takes of the limit


class Case(NamedTuple):
    """An algorithm, its options, and the spaces of its data."""

    algorithm: str
    spaces: tuple[Any, Any]
    options: dict[str, Any]


CASES = {
    "iql": Case("DR3-IQL", CHEETAH, {"batch_size": 256, "hidden_sizes": [256, 256]}),
    "nature-cnn": Case("DR3-CQL", ATARI, {"batch_size": 32, "hidden_sizes": [512], "encoder": "nature_cnn"}),
}
WAYS = {"in memory": (False, False), "mapped, limit": (True, False), "window, limit": (True, True)}


def written(case: str, folder: Path, size: int) -> Path:
    """Return the data set of a case that takes so many bytes; write it once."""
    target = folder / f"{case}-{size >> 20}"
    if target.exists():
        return target
    observations, actions = (SpaceSpec.from_gymnasium(space) for space in CASES[case].spaces)
    rng, length = np.random.default_rng(0), 1000
    shape = (length + 1, *observations.shape)
    bytes_of_a_row = 2 * np.dtype(observations.dtype).itemsize * observations.size + 8 * actions.size + 20

    def episodes() -> Any:
        for number in range(size // (bytes_of_a_row * length) + 1):
            if observations.dtype == "uint8":
                seen = rng.integers(256, size=shape, dtype=np.uint8)
            else:
                seen = rng.standard_normal(shape, np.float32)
            if actions.n is not None:
                acts = rng.integers(actions.n, size=length)
            else:
                acts = np.tanh(rng.standard_normal((length, actions.size), np.float32))
            yield episode_columns(
                seen, acts, rng.standard_normal(length, np.float32), terminated=True, truncated=False,
                episode_id=number, gamma=0.99,
            )  # fmt: skip

    write_dataset(
        target, episodes(), observation_space=observations, action_space=actions, gamma=0.99, name=case,
        provenance=Provenance(source="random numbers"),
    )  # fmt: skip
    return target


def forget(folder: Path) -> None:
    """Drop the files of a folder from the page cache, to which a limit would not count them."""
    for file in folder.iterdir():
        number = os.open(file, os.O_RDONLY)
        os.fsync(number)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(number)


def read_rate(folder: Path) -> float:
    """Read all files of a folder once; return MB a second."""
    forget(folder)
    started, size = time.perf_counter(), 0
    for file in folder.iterdir():
        with open(file, "rb", buffering=0) as content:
            while part := content.read(2**22):
                size += len(part)
    return size / (time.perf_counter() - started) / 1e6


class Group:
    """A control group with a limit of memory, of either version; None: it only measures."""

    def __init__(self, limit: int | None) -> None:
        self.old = (V1 / "memory.limit_in_bytes").exists()
        self.path = (V1 if self.old else V2) / f"dr3-ray-window-{os.getpid()}"
        self.path.mkdir()
        if limit is not None:
            (self.path / ("memory.limit_in_bytes" if self.old else "memory.max")).write_text(str(limit))

    def enter(self) -> None:
        """Put this process into the group."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self) -> float:
        """Return the most memory that the group had, in MiB."""
        return int((self.path / ("memory.max_usage_in_bytes" if self.old else "memory.peak")).read_text()) / 2**20

    def close(self) -> None:
        """Remove the group, whose processes have ended."""
        self.path.rmdir()


def run(case: str, data: Path, limit: int | None, window: int, seconds: float) -> dict[str, float]:
    """Train in a process of its own; return updates a second and MiB."""
    forget(data)
    group = Group(limit)
    asked = {"case": case, "data": str(data), "window": window, "seconds": seconds, "warm": limit is None}
    try:
        child = subprocess.run(
            [sys.executable, __file__, "--child", json.dumps(asked)], preexec_fn=group.enter, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if child.returncode:
            raise SystemExit(f"{case}: a process ended with {child.returncode}: {child.stderr[-2000:]}")
        return {"peak": group.peak(), **json.loads(child.stdout.splitlines()[-1])}
    finally:
        group.close()


def train(case: str, data: str, window: int, seconds: float, warm: bool) -> dict[str, float]:
    """Train a member and measure it; the first steps, which are recorded, are not timed."""
    import torch

    from dr3_ray.algorithms.registry import find
    from dr3_ray.data.paging import Pages
    from dr3_ray.training.member import Member
    from dr3_ray.training.population import Population
    from dr3_ray.training.process import prepare_training

    torch.set_num_threads(1)
    prepare_training()
    opened = load_dataset(data)
    if warm:  # read, and mapped into the process
        every = opened.extents(np.array([0]), np.array([len(opened)]), list(opened.stored_bytes(opened.columns)))
        Pages(opened.mapped_files).bring(every)
    spec = find(CASES[case].algorithm, opened.spaces.action_kind)
    options = CASES[case].options | {"dr3_coeff": 0.03, "shuffle_window": window}
    population = Population.of(spec, [Member.from_dict(spec, options)], opened, opened.spaces)
    population.update(2)
    population.record()
    population.update(2)
    started = time.perf_counter()
    population.probe()
    probe = time.perf_counter() - started
    updates, cpu, started = 0, time.process_time(), time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        population.update(20)
        updates += 20
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "rate": updates / passed, "cpu": (time.process_time() - cpu) / passed, "probe": probe,
        "rss": int(status["RssAnon"].split()[0]) / 1024,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--limit-mib", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train(**json.loads(options.child))))
        return
    limit, found = options.limit_mib * 2**20, {}
    for case in options.cases:
        data = written(case, options.folder, TIMES * limit)
        opened = load_dataset(data)
        window = int(WINDOW * limit / opened.row_bytes)
        print(f"{case}: {len(opened):,} rows, window of {window:,}; a disk that reads {read_rate(data):.0f} MB/s")
        del opened
        results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.turns):
            for way, (limited, windowed) in WAYS.items():
                results[way].append(
                    run(case, data, limit if limited else None, window if windowed else 0, options.seconds)
                )
        found[case] = results
        base = statistics.median(each["rate"] for each in results["in memory"])
        for way, each in results.items():
            middle = {name: statistics.median(one[name] for one in each) for name in each[0]}
            print(
                f"  {way:16}{middle['rate']:8.1f} updates/s {middle['rate'] / base:6.3f}  "
                f"peak {middle['peak']:6.0f} MiB, own {middle['rss']:5.0f}; "
                f"probe {middle['probe']:5.1f} s, CPU {middle['cpu']:.2f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
