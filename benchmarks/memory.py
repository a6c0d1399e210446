"""Memory of runs, of packs, and of several trials on one data set: MiB.

    python benchmarks/memory.py [--cases iql] [--json FILE]

Each is a process of its own that has trained and measured on the probe batch once: the most that it ever had resident,
and what it has at its end with all that it started: resident, with pages that it shares counted in parts (Pss), and
its own (private). `a member` is what one more member adds to the peak of a pack. Data sets are mapped from files, whose
pages all trials on a machine share: several trials at the same time show it.
"""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from shared.contest import Contest, Entry, arguments, write
from shared.noise import prepare


class Case(NamedTuple):
    """An algorithm on some data, and its sizes."""

    algorithm: str
    data: str
    options: dict[str, Any]
    stock: bool = False  # whether RLlib has such an algorithm of its own


WIDE = {"hidden_sizes": [256, 256]}
CASES = {
    "cql": Case("DR3-CQL", "cheetah", WIDE | {"batch_size": 256}, stock=True),
    "iql": Case("DR3-IQL", "cheetah", WIDE | {"batch_size": 256}, stock=True),
    "dqn": Case("DR3-CQL", "breakout", WIDE | {"batch_size": 32}),
    "nature-cnn": Case("DR3-CQL", "atari", {"hidden_sizes": [512], "batch_size": 32, "encoder": "nature_cnn"}),
}
PACKS = (1, 4, 16)
TRIALS = 4  # at the same time, on the largest of the data sets


def run(entries: dict[str, Entry], case: Case, updates: int, core: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return the memory of contenders that live at the same time, by name."""
    asked = {
        "algorithm": case.algorithm, "options": case.options, "dr3_coeff": 0.03, "precision": "fp32",
        "updates": updates, **prepare(case.data, folder),
    }  # fmt: skip
    with Contest(entries, None, core, asked, folder) as contest:
        answers = contest.take_turns(1)
        return {
            name: {"peak": answers[name][0]["peak_mib"]} | contender.memory()
            for name, contender in contest.contenders.items()
        }


def show(label: str, found: dict[str, float], note: str = "") -> None:
    columns = "".join(f"{found[name]:9.0f}" for name in ("peak", "rss", "pss", "private"))
    print(f"{label:44}{columns}{note}", flush=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    packs, updates, shared = ((1, 2), 1, "atari") if options.smoke else (PACKS, 8, "frames")
    figures: dict[str, Any] = {}
    print(f"{'MiB':44}{'peak':>9}{'rss':>9}{'pss':>9}{'private':>9}   a member")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label in options.cases:
            case, alone = CASES[label], {}
            entries = {"RLlib, one member": Entry("ours.py")}
            entries |= {f"pack of {n}": Entry("population.py", asked={"members": n}) for n in packs}
            if case.stock and not options.smoke:
                entries["stock RLlib, with Ray's workers"] = Entry("rllib.py")
            for who, entry in entries.items():
                alone |= run({who: entry}, case, updates, options.core, folder)
                members, first = entry.asked.get("members", 1), alone.get(f"pack of {packs[0]}")
                each = (alone[who]["peak"] - first["peak"]) / (members - 1) if first and members > 1 else None
                show(f"{label}: {who}", alone[who], "" if each is None else f"{each:11.1f}")
            figures[label] = alone
        for trials in (1, 2 if options.smoke else TRIALS):
            entries = {str(number): Entry("population.py") for number in range(trials)}
            case = CASES["nature-cnn"]._replace(data=shared)
            found = run(entries, case, updates, options.core, folder)
            figures[f"{shared}, {trials} trials"] = found
            size = sum(file.stat().st_size for file in (folder / shared).rglob("*")) / 2**20
            total = {kind: sum(each[kind] for each in found.values()) for kind in found["0"]}
            show(f"{trials} trials on {size:.0f} MiB of images, together", total)
    write(options.json, figures)


if __name__ == "__main__":
    main()
