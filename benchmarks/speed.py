"""Gradient updates a second: this package's RLlib Algorithms and their peers, on equal data and sizes, in turns.

    python benchmarks/speed.py [--peers DIR] [--cases cql-2x256 iql] [--turns 5] [--json FILE]

`benchmarks/peers.sh DIR` installs the peers, each in an environment of its own; without them ours runs alone. Every
contender is a process with one thread, pinned to one core, and they take turns, so that the machine's noise falls on
all of them. Ours carries DR3; the peers do not have it. Figures are medians over the turns; a ratio is the median of
those of neighbouring turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from dr3_ray.data import Provenance, SpaceSpec, episode_columns, write_dataset

HERE = Path(__file__).parent
ROWS, EPISODES = 1000, 20
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} | {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "RAY_AUTH_MODE": "disabled",
}


class Case(NamedTuple):
    """What everyone trains: an algorithm, its sizes, and the updates of one turn."""

    algorithm: str
    options: dict[str, Any]
    updates: int
    peers: tuple[str, ...]


class Peer(NamedTuple):
    """Where a contender runs, below the folder of peers: its interpreter and its sources."""

    script: str
    python: str | None = None  # None: the one that runs this
    checkout: str = ""


MLP = {"hidden_sizes": [256, 256], "batch_size": 256}
CASES = {
    "cql-2x256": Case("DR3-CQL", MLP, 80, ("CORL", "JAX-CORL", "d3rlpy")),
    "cql-3x256": Case("DR3-CQL", MLP | {"hidden_sizes": [256, 256, 256]}, 48, ("CORL", "JAX-CORL", "d3rlpy")),
    "iql": Case("DR3-IQL", MLP, 800, ("CORL", "JAX-CORL", "d3rlpy")),
    "td3bc": Case("DR3-TD3BC", MLP, 800, ("CORL", "JAX-CORL", "d3rlpy")),
}
PEERS = {
    "CORL": Peer("corl.py", checkout="CORL"),
    "JAX-CORL": Peer("jax_corl.py", "jax/bin/python", "JAX-CORL"),
    "d3rlpy": Peer("d3rlpy_.py", "d3rlpy/bin/python"),
}


class Contender:
    """A process that makes updates when it is its turn."""

    def __init__(self, peer: Peer, folder: Path | None, core: int, asked: dict[str, Any]) -> None:
        folder = (folder or Path()).resolve()
        python = str(folder / peer.python) if peer.python else sys.executable
        asked = asked | {"checkout": str(folder / peer.checkout)}
        self.process = subprocess.Popen(
            ["taskset", "-c", str(core), python, str(HERE / "contenders" / peer.script), json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | ONE_THREAD | {"PYTHONPATH": str(HERE.parent)},
        )

    def turn(self, updates: int) -> dict[str, float]:
        """Updates a second of wall time and a CPU second."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{updates}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("TOOK "):
                return {name: updates / seconds for name, seconds in json.loads(line[5:]).items()}
        raise SystemExit(f"{' '.join(map(str, self.process.args))} has ended")


def write_data(folder: Path) -> None:
    """Noise of HalfCheetah's shape, once as a data set of ours, once as columns."""
    rng = np.random.default_rng(0)
    episodes, columns = [], {name: [] for name in ("observations", "actions", "rewards", "next_observations")}
    ends = np.zeros((EPISODES, ROWS), np.float32)
    ends[::2, -1] = 1.0
    for number in range(EPISODES):
        seen = rng.normal(size=(ROWS + 1, 17)).astype(np.float32)
        actions = np.tanh(rng.normal(size=(ROWS, 6))).astype(np.float32)
        rewards = rng.normal(size=ROWS).astype(np.float32)
        over = {"terminated": number % 2 == 0, "truncated": number % 2 == 1}
        episodes.append(episode_columns(list(seen), actions, list(rewards), **over, episode_id=number, gamma=0.99))
        for name, values in zip(columns, (seen[:-1], actions, rewards, seen[1:]), strict=True):
            columns[name].append(values)
    write_dataset(
        folder / "data",
        episodes,
        observation_space=SpaceSpec.from_gymnasium(gym.spaces.Box(-np.inf, np.inf, (17,))),
        action_space=SpaceSpec.from_gymnasium(gym.spaces.Box(-1.0, 1.0, (6,))),
        gamma=0.99,
        name="noise",
        environment=None,
        provenance=Provenance(source="normal noise"),
    )
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    np.savez(folder / "columns.npz", terminateds=ends.ravel(), **joined)


def measure(
    case: Case, precisions: list[str], folder: Path | None, data: Path, turns: int, core: int
) -> dict[str, Any]:
    """Rates of all contenders, by name: a list over turns."""
    asked = {
        "algorithm": case.algorithm, "options": case.options, "updates": case.updates, "dr3_coeff": 0.03,
        "dataset": str(data / "data"), "columns": str(data / "columns.npz"), "rows": ROWS,
    }  # fmt: skip
    contenders = {
        f"ours, {each}": Contender(
            Peer("ours.py"), folder, core, asked | {"options": case.options | {"precision": each}}
        )
        for each in precisions
    }
    if folder:
        contenders |= {name: Contender(PEERS[name], folder, core, asked) for name in case.peers}
    try:
        for contender in contenders.values():
            contender.turn(case.updates)  # warms up, and compiles
        found: dict[str, Any] = {name: [] for name in contenders}
        for _ in range(turns):
            for name, contender in contenders.items():
                found[name].append(contender.turn(case.updates))
        return found
    finally:
        for contender in contenders.values():
            contender.process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="the folder that peers.sh has filled")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        write_data(Path(name))
        print(f"{'updates a second':30}{'wall':>9}{'min-max':>15}{'CPU':>9}   ours fp32 / this, by CPU time")
        for label in options.cases:
            found = measure(CASES[label], options.precisions, options.peers, Path(name), options.turns, options.core)
            ours = next(iter(found.values()))
            figures[label] = found
            for contender, rates in found.items():
                wall, cpu = ([each[kind] for each in rates] for kind in ("wall", "cpu"))
                ratio = statistics.median(one["cpu"] / other["cpu"] for one, other in zip(ours, rates, strict=True))
                spread = f"{min(wall):.1f}-{max(wall):.1f}"
                print(
                    f"{f'{label}: {contender}':30}{statistics.median(wall):9.1f}{spread:>15}"
                    f"{statistics.median(cpu):9.1f}{ratio:9.2f}",
                    flush=True,
                )
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
