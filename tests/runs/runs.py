"""Runs that nothing was trained in, made by the functions that sweeps write them with."""

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dr3_ray.runs.histories import HISTORIES, WRITTEN
from dr3_ray.runs.index import Index
from dr3_ray.sweep.directory import open_run
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec

DATA = "embedded:breakout-replay"
TINY = {"datasets": [DATA], "coefficients": [0, 0.03], "seeds": 1, "environment": "none", "steps": 8, "evaluations": 2}
PACK = "DR3-CQL-2-0a1b2c3d"


def begin(out: Path, **asked: object) -> SweepSpec:
    """A run whose one pack was begun."""
    spec = SweepSpec(**TINY | asked | {"out": out})
    planned = members(spec)
    with open_run(spec, planned, ["x"]) as index:
        index.write(planned, "running", pack=PACK)
    write_rows(out, 1)
    return spec


def advance(run: Path, count: int = 1) -> None:
    """What a sweep adds to its files."""
    with Index(run) as index:
        for _ in range(count):
            index.write(list(index.records)[:1], "running", pack=PACK)
    write_rows(run, len((run / "index.jsonl").read_text().splitlines()))


def write_rows(run: Path, rows: int) -> None:
    """Histories of so many rows, written now."""
    table = pa.table({"member": ["m"] * rows, "step": list(range(rows))})
    pq.write_table(table.replace_schema_metadata({WRITTEN: str(time.time())}), run / HISTORIES)


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Everything in a folder, links as what they point to."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }
