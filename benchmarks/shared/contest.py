"""Contenders that work in turns, each a process with one thread on one core: the machine's noise falls on all of them.

What a contender does stands in `contenders/`; `contenders/turns.py` says what it answers at every turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

HERE = Path(__file__).parents[1]  # where the scripts are
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} | {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "RAY_AUTH_MODE": "disabled",
}
Turn = dict[str, Any]  # what a contender answers: see contenders/turns.py


class Entry(NamedTuple):
    """Which contender: its script, where its interpreter and its sources lie below the folder of peers, what it does.

    `slower` says how many times fewer updates than the others it makes in a turn.
    """

    script: str
    python: str | None = None  # None: the one that runs this
    checkout: str = ""
    slower: int = 1
    asked: dict[str, Any] = {}  # noqa: RUF012


class Ended(SystemExit):
    """A contender has ended where it was to answer, and what it said last."""


class Contender:
    """A process that works when it is its turn. What it prints beside its answers goes to `log`."""

    def __init__(self, entry: Entry, folder: Path | None, core: int | None, asked: dict[str, Any], log: Path) -> None:
        folder = (folder or Path()).resolve()
        python = str(folder / entry.python) if entry.python else sys.executable
        self.updates = max(1, asked["updates"] // entry.slower)
        asked = asked | entry.asked | {"checkout": str(folder / entry.checkout), "updates": self.updates}
        command = [python, str(HERE / "contenders" / entry.script), json.dumps(asked)]
        self.log, self.script = log, entry.script
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command if core is None else ["taskset", "-c", str(core), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | ONE_THREAD | {"PYTHONPATH": f"{HERE.parent}:{os.environ.get('PYTHONPATH', '')}"},
            )

    def turn(self) -> Turn:
        """Return what it answers to one turn; Ended: it has none."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(f"{self.updates}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and its output says so too
        for line in self.process.stdout:
            if line.startswith("TOOK "):
                return json.loads(line[5:])  # type: ignore[no-any-return]
        last = self.log.read_text().strip().splitlines()[-1:]
        raise Ended(f"{self.script} has ended: {''.join(last)}")

    def memory(self) -> dict[str, float]:
        """Return MiB of the process and all that it has started, now: see `memory_of`."""
        return memory_of(self.process.pid)

    def stop(self) -> None:
        """End it, with what it has started."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def memory_of(process: int) -> dict[str, float]:
    """Return MiB of a process and its descendants.

    `rss` is resident, `pss` has pages that several processes map in equal parts, `private` is what nobody else maps.
    """
    names = {"Rss:": "rss", "Pss:": "pss", "Private_Clean:": "private", "Private_Dirty:": "private"}
    found = dict.fromkeys(names.values(), 0.0)
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        name, value = line.split()[:2]
        if name in names:
            found[names[name]] += int(value) / 1024
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            found = {name: found[name] + more for name, more in memory_of(int(child)).items()}
    return found


class Contest:
    """Contenders by name, which a `with` block starts and ends; all on one core, or wherever the system puts them."""

    def __init__(
        self, entries: dict[str, Entry], folder: Path | None, core: int | None, asked: dict[str, Any], logs: Path
    ):
        self.entries, self.started = entries, (folder, core, asked)
        self.logs = logs

    def __enter__(self) -> Self:
        self.contenders: dict[str, Contender] = {}
        for number, (name, entry) in enumerate(self.entries.items()):
            self.contenders[name] = Contender(entry, *self.started, self.logs / f"{number}.log")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for contender in self.contenders.values():
            contender.stop()

    def take_turns(self, turns: int) -> dict[str, list[Turn]]:
        """Return the answers of all, a list over turns; one turn before these warms up and compiles."""
        for contender in self.contenders.values():
            contender.turn()
        answers: dict[str, list[Turn]] = {name: [] for name in self.contenders}
        for _ in range(turns):
            for name, contender in self.contenders.items():
                answers[name].append(contender.turn())
        return answers


def ratio(ones: list[float], others: list[float]) -> float:
    """Return the median over turns of one rate by the other: neighbours in time are compared."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def spread(values: list[float]) -> str:
    """Return the median, and the least and the greatest."""
    return f"{statistics.median(values):9.1f} {f'{min(values):.1f}-{max(values):.1f}':>17}"


def arguments(doc: str | None, turns: int = 5) -> argparse.ArgumentParser:
    """Return the options that every script has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=turns)
    parser.add_argument("--core", type=int, default=os.cpu_count() - 1, help="the core that everything is pinned to")  # type: ignore[operator]
    parser.add_argument("--smoke", action="store_true", help="only see that it runs: the least of everything")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


def machine() -> dict[str, Any]:
    """Return the machine of the figures, and the commit."""
    git = subprocess.run(["git", "-C", str(HERE), "describe", "--always", "--dirty"], capture_output=True, text=True)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return {"commit": git.stdout.strip(), "cores": os.cpu_count(), "vectors": wide, "load": os.getloadavg()}


def write(file: Path | None, figures: Any) -> None:
    """Write the figures as JSON, with the machine, where a file is asked for."""
    if file:
        file.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1) + "\n")
