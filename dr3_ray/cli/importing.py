"""`dr3-ray data import`: what is printed before, during and after."""

import os
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Unpack

from rich.console import Console
from rich.markup import escape
from rich.progress import ProgressColumn, Task
from rich.table import Table
from rich.text import Text

from dr3_ray.cli.bars import bar_on_a_terminal
from dr3_ray.data.importers import IMPORTERS, find, open_sources
from dr3_ray.data.importers.part import Spread, written_by_workers
from dr3_ray.data.importers.source import Options
from dr3_ray.data.importers.writing import Told, Writing, import_source
from dr3_ray.errors import UserError, raise_out_of_memory
from dr3_ray.process import stopping


def describe(sources: list[str], options: Options) -> None:
    """Print what sources are, their spaces, and which of their columns are taken for what."""
    with quiet():
        opened = open_sources(sources, options)
    console = Console()
    table = Table("", escape(opened.name))
    facts = {
        "kind": ", ".join(IMPORTERS[find(source)[0]].what for source in sources),
        "rows": f"{opened.rows:,}" if opened.rows else "unknown before they are read",
        "observation space": str(opened.observation_space),
        "action space": str(opened.action_space),
    }
    for key, value in (facts | opened.columns).items():
        table.add_row(escape(key), escape(value))
    console.print(table)
    if opened.columns:
        print("if a column is not what it is taken for, say so: --columns observation=NAME,action=NAME,reward=NAME")
    print("nothing was written: leave out --dry-run and give --out DIR")


def write(sources: list[str], options: Options, out: Path, workers: int, **writing: Unpack[Writing]) -> None:
    """Import sources with a progress bar on a terminal, then print the warnings and what was written."""
    stopping.advise(stopping.command_line)
    opened, identity = partial(open_sources, sources, options), f"{sources} {options}"
    with rows_bar("import") as progress, quiet():
        try:
            writing["progress"] = progress
            spread = _spread(workers)
            manifest = import_source(opened, out, identity=identity, workers=workers, spread=spread, **writing)
        except (OSError, MemoryError) as error:
            raise_out_of_memory(error)
            raise UserError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}") from None
    for note in manifest.provenance.notes:
        print(f"warning: {note}", file=sys.stderr)
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    peak = f"{_peak():,.0f} MiB" + (
        f", and up to {largest:,.0f} MiB in each of {workers} workers" if workers > 1 else ""
    )
    counts = manifest.counts
    print(f"{counts.rows} steps of {counts.episodes} episodes written to {out}; peak memory {peak}")


def _peak() -> float:
    """Return the most memory of this process in MiB: Linux's own account, as getrusage's begins with its parent's."""
    with suppress(OSError, ValueError, StopIteration), open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _spread(workers: int) -> Spread:
    """Return who writes with several workers: tasks of the cluster that RAY_ADDRESS names, or processes here."""
    if workers == 1 or not (address := os.environ.get("RAY_ADDRESS")):
        return written_by_workers
    from dr3_ray.cluster.importing import written_by_ray

    print(f"up to {workers} tasks of the Ray cluster at {address} import", file=sys.stderr)
    return written_by_ray


class _Rows(ProgressColumn):
    """A column of rows written, their total where the source says it, and rows a second."""

    def render(self, task: Task) -> Text:
        total = f" of {task.total:,.0f}" if task.total else ""
        return Text(f"{task.completed:,.0f}{total} rows" + (f", {task.speed:,.0f}/s" if task.speed else ""))


@contextmanager
def quiet() -> Iterator[None]:
    """Leave Python's warnings out: ours are in the manifest's notes, others are about a library's own use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def rows_bar(what: str) -> Iterator[Callable[[int], Told]]:
    """Yield a progress bar that is told the total of rows, then the rows written; silent without a terminal."""
    with bar_on_a_terminal(_Rows()) as bar:

        def begin(rows: int) -> Told:
            task = bar.add_task(what, total=rows or None)
            return lambda written: bar.advance(task, written)

        yield begin
