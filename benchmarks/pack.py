"""Packs: what an update of one member costs in a pack of K, and evaluation's share of a sweep.

    python benchmarks/pack.py [--cases dqn] [--members 1 4 16] [--peers DIR] [--json FILE]
    python benchmarks/pack.py --device cuda [--members 1 8 64 256] [--precisions fp32 tf32 bf16]

On a CPU: milliseconds of CPU time an update of a member, every pack a process with one thread, in turns; `by it` is the
cost of a process with a single member by that of a member of this pack, so that 16 members at 1.0 are as fast as 16
such processes. `auto` is the execution that the package chooses, `compiled` that of `compile=True`, which here compiles
without first asking whether it pays; the others are forced. On a GPU the same by wall time, in every precision that
is asked for; there `no graphs` starts all operations one by one. `plain torch` is an ordinary module with Adam, and
CORL is CORL.

`matmul` and `memory` are the shares of two limits, measured in the same turns: floating-point operations of an update
(torch's formulas for products and convolutions) by those of large products of that precision, and the bytes that Adam
and the targets cannot avoid to move (4 bytes, 7 times a parameter and 2 times a target) by those of a copy. On a GPU
also the peak of its memory.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from shared.contest import Contest, Ended, Entry, Turn, arguments, ratio, write
from shared.evaluation_share import shares
from shared.noise import prepare


class Case(NamedTuple):
    """An algorithm on some data, its sizes, and the updates of a turn of one member."""

    algorithm: str
    data: str
    options: dict[str, Any]
    updates: int


WIDE = {"hidden_sizes": [256, 256]}
CASES = {
    "cql": Case("DR3-CQL", "cheetah", WIDE | {"batch_size": 256}, 16),
    "iql": Case("DR3-IQL", "cheetah", WIDE | {"batch_size": 256}, 128),
    "dqn": Case("DR3-CQL", "breakout", WIDE | {"batch_size": 32}, 512),
    "dqn-256": Case("DR3-CQL", "breakout", WIDE | {"batch_size": 256}, 256),
    "dqn-32-wide": Case("DR3-CQL", "breakout", {"hidden_sizes": [32, 32], "batch_size": 32}, 1024),
    "dqn-tiny": Case("DR3-CQL", "lander", {"hidden_sizes": [32, 32], "batch_size": 64}, 1024),
    "nature-cnn": Case(
        "DR3-CQL", "atari", {"hidden_sizes": [512], "batch_size": 32, "encoder": "nature_cnn"}, 32
    ),
}  # fmt: skip
GPU_UPDATES = 512  # of a turn of up to 8 members; whole chunks of CUDA graphs
DISCRETE_FLAT = ("dqn", "dqn-256", "dqn-32-wide", "dqn-tiny")  # which the JAX peer knows


def entries_of(label: str, options: Any) -> dict[str, Entry]:
    """List packs of all sizes; on a CPU the largest with every execution, and JAX's."""
    found = {}
    if label in (*DISCRETE_FLAT, "nature-cnn"):
        gpu = options.device == "cuda"
        found["plain torch"] = Entry("eager.py", slower=4 if gpu else 1, asked={"fused": gpu, "members": 1})
    elif options.peers and options.device == "cpu":
        found["CORL"] = Entry("corl.py", checkout="CORL", asked={"members": 1})
    if options.device == "cuda":
        first = options.members[0]
        found[f"{first} no graphs"] = Entry("population.py", slower=8, asked={"members": first, "graphs": False})
    for n in options.members:
        slower = max(1, n // (8 if options.device == "cuda" else 2))
        found[f"{n} auto"] = Entry("population.py", slower=slower, asked={"members": n})
        if options.device == "cpu":
            found[f"{n} compiled"] = Entry("population.py", slower=slower, asked={"members": n, "compile": True})
        if n == max(options.members) > 1 and options.device == "cpu":
            # stacked convolutions are grouped ones, which take a CPU minutes
            for execution in ("in_turn",) if label == "nature-cnn" else ("in_turn", "stacked"):
                asked = {"members": n, "execution": execution}
                found[f"{n} {execution}"] = Entry("population.py", slower=slower, asked=asked)
            if options.peers and label in DISCRETE_FLAT:
                found[f"{n} JAX vmap"] = Entry("jax_vmap.py", "jax/bin/python", slower=slower, asked={"members": n})
    return found | {"limits": Entry("device_limits.py", slower=10**9)}


def measure(label: str, precision: str, options: Any, folder: Path) -> dict[str, list[Turn]]:
    """Return the turns of all packs, printed as they come; on a GPU without those that do not fit."""
    case, clock = CASES[label], "wall" if options.device == "cuda" else "cpu"
    updates = GPU_UPDATES if options.device == "cuda" else case.updates
    asked = {
        "algorithm": case.algorithm, "options": case.options, "dr3_coeff": 0.03, "device": options.device,
        "precision": precision, "updates": 2 if options.smoke else updates, **prepare(case.data, folder),
    }  # fmt: skip
    entries = entries_of(label, options)
    core = options.core if options.device == "cpu" else None
    compared = ("limits", f"{options.members[0]} auto")  # what the others are shares and multiples of
    rounds = [list(entries)]
    if options.device == "cuda":  # it has no memory for all at once, and little noise that turns would have to share
        rounds = [[name] for name in dict.fromkeys((*compared, *entries))]
    found: dict[str, list[Turn]] = {}
    for names in rounds:
        try:
            with Contest({name: entries[name] for name in names}, options.peers, core, asked, folder) as contest:
                found |= contest.take_turns(options.turns)
        except Ended as error:
            if len(rounds) == 1 or names[0] in compared:
                raise
            print(f"{f'{label}, {precision}: {names[0]}':34}  {error}"[:200], flush=True)
            continue
        for name in names:
            if name != "limits":
                limits, single = (found[name] for name in compared)
                members = entries[name].asked["members"]
                print(row(f"{label}, {precision}: {name}", members, found[name], single, limits, clock), flush=True)
    return found


def row(shown: str, members: int, turns: list[Turn], single: list[Turn], limits: list[Turn], clock: str) -> str:
    """Return a line of the table: a pack beside one of a single member, and its shares of the limits."""
    flops = statistics.median(turn["flops"] * turn["updates"] / turn[clock] for turn in limits)
    moved = statistics.median(turn["bytes"] / turn["copy"][clock] for turn in limits)
    each = [turn[clock] / turn["updates"] / members for turn in turns]
    ms, last = statistics.median(each) * 1e3, turns[-1]
    by_it = ratio([turn[clock] / turn["updates"] for turn in single], each)
    line = f"{shown:34}{ms:9.3f}{f'{min(each) * 1e3:.3f}-{max(each) * 1e3:.3f}':>17}{by_it:8.2f}{1e3 / ms:10.0f}"
    if "flops" in last:
        step = ms / 1e3 * members
        least = 4 * (7 * last["parameters"] + 2 * last["targets"])
        line += f"{last['flops'] / step / flops:9.0%}{least / step / moved:8.0%}  {last['execution']}"
    if "peak_device_mib" in last:
        line += f"  {last['peak_device_mib'] / members:.1f}"
    return line


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--members", nargs="+", type=int, help="sizes of packs; the first is what others compare with")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "tf32", "bf16"], default=["fp32"])
    parser.add_argument("--peers", type=Path, help="the folder that peers.sh has filled: JAX takes part")
    parser.add_argument("--without-evaluation", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU: leave out --device")
    if options.smoke:
        options.members, options.turns = [1, 2], 1
    options.members = options.members or ([1, 8, 64, 256] if options.device == "cuda" else [1, 4, 16])
    figures: dict[str, Any] = {}
    if options.cases:
        print(f"{'ms an update of a member':34}{'median':>9}{'min-max':>17}{'by it':>8}{'updates/s':>10}", end="")
        print(f"{'matmul':>9}{'memory':>8}  execution" + ("  MiB a member" if options.device == "cuda" else ""))
    with tempfile.TemporaryDirectory() as folder:
        for label in options.cases:
            for precision in options.precisions:
                figures[f"{label}, {precision}"] = measure(label, precision, options, Path(folder))
        if not options.without_evaluation:
            figures["evaluation"] = shares([options.members[0], options.members[-1]], Path(folder), options.smoke)
    write(options.json, figures)


if __name__ == "__main__":
    main()
