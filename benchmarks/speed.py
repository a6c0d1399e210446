"""Gradient updates a second: this package's RLlib Algorithms and their peers, on equal data and sizes, in turns.

    python benchmarks/speed.py [--peers DIR] [--cases cql-2x256 iql] [--turns 5] [--json FILE]

`benchmarks/peers.sh DIR` installs the peers, each in an environment of its own; without it ours, plain torch and stock
RLlib run. Everyone is a process with one thread, pinned to one core, and they take turns. Rates are updates a second of
the process's own CPU time, medians over the turns; a ratio is the median of those of neighbouring turns.

Ours is the RLlib Algorithm with DR3, and the peers do not have it (plain torch does); with `--dr3-coeff 0` all do the
same work. One `train()` ends with a probe of 2,048 rows, whatever it trained. A turn is shorter than an iteration, so
the probe is timed on its own and counted as in one of 5,000 updates; the other work of `train()` stays in the turn as
it is. `core` is the training core without RLlib, with and without DR3: what each of the two costs. The columns behind
`wall` are the ratios of ours to each, in both precisions and with `compile=True`, which here compiles without first
asking whether it pays.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from shared.contest import Contest, Entry, Turn, arguments, ratio, spread, write
from shared.noise import prepare

ITERATION = 5000  # updates between two probes in an ordinary run


class Case(NamedTuple):
    """What everyone trains: an algorithm on some data, its sizes, the updates of a turn, and who takes part."""

    algorithm: str
    data: str
    options: dict[str, Any]
    updates: int
    peers: tuple[str, ...]


WIDE, DEEP = {"hidden_sizes": [256, 256], "batch_size": 256}, {"hidden_sizes": [256, 256, 256], "batch_size": 256}
PIXELS = {"hidden_sizes": [512], "batch_size": 32, "encoder": "nature_cnn"}
TORCH = ("eager torch", "eager torch, fused Adam")
ALL = ("CORL", "JAX-CORL", "d3rlpy", "unifloral")
CASES = {
    "cql-2x256": Case("DR3-CQL", "cheetah", WIDE, 24, (*ALL[:3], "stock RLlib")),
    "cql-3x256": Case("DR3-CQL", "cheetah", DEEP, 16, ALL[:3]),
    "iql": Case("DR3-IQL", "cheetah", WIDE, 200, (*ALL, "stock RLlib")),
    "td3bc": Case("DR3-TD3BC", "cheetah", WIDE, 200, ALL),
    "dqn-cql": Case("DR3-CQL", "breakout", WIDE | {"batch_size": 32}, 1000, (*TORCH, "d3rlpy")),
    "dqn-cql-256": Case("DR3-CQL", "breakout", WIDE, 400, (*TORCH, "d3rlpy")),
    "nature-cnn": Case("DR3-CQL", "atari", PIXELS, 40, TORCH),
}
FORMS = {
    f"{precision}{', compiled' if compiled else ''}": {"precision": precision, "compile": compiled}
    for compiled in (False, True)
    for precision in ("fp32", "bf16")
}
PEERS = {
    "CORL": Entry("corl.py", checkout="CORL"),
    "JAX-CORL": Entry("jax_corl.py", "jax/bin/python", "JAX-CORL"),
    "d3rlpy": Entry("d3rlpy_.py", "d3rlpy/bin/python"),
    "unifloral": Entry("unifloral.py", "jax/bin/python", "unifloral"),
    "eager torch": Entry("eager.py", asked={"fused": False}),
    "eager torch, fused Adam": Entry("eager.py", asked={"fused": True}),
    "stock RLlib": Entry("rllib.py", slower=10),
}
CORE = {
    "core": Entry("population.py"),
    "core without DR3": Entry("population.py", asked={"regularized": False}),
}


def rates(turns: list[Turn], clock: str) -> list[float]:
    """Return updates a second, with the probe as in an iteration of the usual length."""

    def seconds(turn: Turn) -> float:
        if turn["contender"] != "ours":
            return turn[clock] / turn["updates"]
        probe = turn["probe"][clock]
        return (turn[clock] - probe) / turn["updates"] + probe / ITERATION

    return [1.0 / seconds(turn) for turn in turns]


def measure(case: Case, label: str, options: Any, folder: Path) -> dict[str, list[Turn]]:
    """Return the turns of all contenders, by name; they are printed."""
    asked = {
        "algorithm": case.algorithm, "options": case.options, "dr3_coeff": options.dr3_coeff, "precision": "fp32",
        "updates": 2 if options.smoke else case.updates, **prepare(case.data, folder),
    }  # fmt: skip
    entries = {f"ours, {each}": Entry("ours.py", asked=FORMS[each]) for each in options.forms} | CORE
    installed = [name for name in case.peers if options.peers or not (PEERS[name].python or PEERS[name].checkout)]
    entries |= {name: PEERS[name] for name in installed if name not in options.without}
    with Contest(entries, options.peers, options.core, asked, folder) as contest:
        found = contest.take_turns(options.turns)
    for name, turns in found.items():
        for turn in turns:
            turn["contender"] = name.partition(",")[0]
    cpu = {name: rates(turns, "cpu") for name, turns in found.items()}
    for name, turns in found.items():
        ratios = "".join(f"{ratio(cpu[f'ours, {each}'], cpu[name]):16.2f}" for each in options.forms)
        wall = statistics.median(rates(turns, "wall"))
        print(f"{f'{label}: {name}':38}{spread(cpu[name])}{wall:9.1f}{ratios}", flush=True)
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--peers", type=Path, help="the folder that peers.sh has filled")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--without", nargs="+", choices=PEERS, default=[], help="peers that stay away")
    parser.add_argument("--dr3-coeff", type=float, default=0.03, help="of ours and of plain torch")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="of ours")
    options = parser.parse_args()
    options.turns = 1 if options.smoke else options.turns
    head = "".join(f"{each:>16}" for each in options.forms)
    print(f"{'updates a second of CPU time':38}{'median':>9} {'min-max':>17}{'wall':>9}{head}")
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for label in options.cases:
            figures[label] = measure(CASES[label], label, options, Path(folder))
    write(options.json, figures)


if __name__ == "__main__":
    sys.exit(main())
