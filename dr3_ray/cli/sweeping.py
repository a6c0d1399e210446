"""Sweeping for a command: train, foresee, and show what came of it. `dr3-ray` and search scripts share it."""

import contextlib
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr3_ray.cli.document import print_document
from dr3_ray.errors import not_shown
from dr3_ray.process import stopping

if TYPE_CHECKING:
    from dr3_ray.sweep.estimate import SweepEstimate


def train(spec: Any, force: bool, trust: bool, again: str) -> int:
    """Sweep and return the exit code, 1 if members failed.

    After Ctrl-C it says that `again` goes on, and ends the process.
    """
    begun = spec.out / "run.json"  # which is there before anything is trained
    stopping.advise(lambda: again if begun.exists() else stopping.command_line())
    from dr3_ray.sweep.run import train_sweep

    summary = train_sweep(spec, stopping.typed(), force, trust=trust)
    if summary.interrupted:
        stopping.end(", ".join(f"{count} {status}" for status, count in summary.statuses.items()))
    return summary.exit_code


def foresee(spec: Any, calibrate: bool, as_json: bool = False) -> None:
    """Print what a sweep would do."""
    from rich.console import Console

    from dr3_ray.sweep.estimate import estimate_sweep, estimate_table

    estimate = estimate_sweep(spec, calibrate, say=lambda text: print(text, file=sys.stderr))
    if as_json:
        print_document(_foreseen(estimate))
        return
    Console(markup=False).print(estimate_table(estimate))


def _foreseen(estimate: "SweepEstimate") -> dict[str, Any]:
    """Return what a sweep would do, for programs: seconds and bytes, null where they were not calibrated."""
    plan, calibrated = estimate.plan, [kind.cost for kind in estimate.kinds if kind.cost]
    structures = [
        {
            "about": kind.about,
            "packs": [len(pack.members) for pack in kind.packs],
            "why": kind.why,
            "steps": kind.first["steps"],
            "seconds_of_a_pack": max(map(kind.seconds, kind.packs)) if kind.cost else None,
            "bytes_of_a_pack": kind.cost and dict(zip(kind.cost._fields[2:], kind.cost[2:], strict=True)),
        }
        for kind in estimate.kinds
    ]
    return {
        "members": len(plan.members),
        "done": estimate.done,
        "structures": structures,
        "trials_at_a_time": min(plan.slots, len(plan.packs)),
        "where": estimate.where,
        "seconds": estimate.seconds if calibrated else None,
        "share_of_evaluation": estimate.evaluation if calibrated else None,
        "bytes_kept": estimate.storage if calibrated else None,
    }


@contextlib.contextmanager
def results_are_safe(runs: Iterable[Path], again: str) -> Iterator[None]:
    """Say in one line that nothing of `runs` is lost, and what shows them again, where showing them fails."""
    try:
        yield
    except Exception as error:
        print(f"error: {not_shown(runs, error)}: {again} tries again", file=sys.stderr)


def show_report(*runs: Path, out: Path | None = None, also: Collection[str] = ()) -> None:
    """Write the report of runs, and print its verdict with the best settings; arguments are those of `write_report`."""
    from rich.console import Console

    from dr3_ray.report import write_report
    from dr3_ray.report.best import best_table
    from dr3_ray.runs.directory import read_run

    report = write_report(*runs, out=out, also=also)
    console = Console(markup=False, highlight=False)
    console.print(report.table)
    for run in runs:
        if (read_run(run).get("spec") or {}).get("search"):
            console.print(best_table(run))
    for command in report.commands:
        print(f"to tell more: {command}")  # in one line, however long, to be copied
    print(f"report: {report.page}")
