"""`dr3-ray data export`: what is printed during and after."""

from pathlib import Path

from dr3_ray.cli.document import print_document
from dr3_ray.cli.importing import quiet, rows_bar
from dr3_ray.data.exporters import export_dataset
from dr3_ray.data.loading import load_dataset


def write(source: str, to: str, out: str | Path, as_json: bool) -> None:
    """Export a data set with a progress bar on a terminal, then print what was written and what reads it."""
    dataset = load_dataset(source)
    with rows_bar("export") as progress, quiet():
        done = export_dataset(dataset, to, out, progress)
    if as_json:
        print_document(done._asdict() | {"path": str(done.path)})
        return
    size = f"{done.bytes / 1e6:,.1f} MB"
    print(f"{done.rows:,} rows of {done.episodes:,} episodes, {size}, written to {done.path}: {done.reads} reads them")
