"""Run the notebooks of docs/notebooks by a real kernel and keep their outputs, which the site shows.

`scripts/run_notebooks.py arrays` runs those whose names are given.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
CELL = re.compile(r"\S*ipykernel_\d+/\d+\.py:\d+: ")  # where a warning comes from: another file in every run
SECONDS = 300  # of a cell, on a machine that others use as well


def execute(path: Path, folder: Path) -> NotebookNode:
    """Return a notebook with the outputs of its cells, which run in the folder; a cell that fails raises."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook without what differs from run to run: times and progress; of an output its richest form."""
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.output_type != "display_data"]
            for output in cell.outputs:
                if "text/html" in output.get("data", {}):
                    output.data.pop("text/plain", None)
                if "text" in output:
                    output.text = CELL.sub("", output.text)
    return notebook


def main() -> None:
    """Run the notebooks and write them with what they print."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if path.stem in (sys.argv[1:] or [path.stem]):
            with tempfile.TemporaryDirectory() as folder:
                nbformat.write(tidy(execute(path, Path(folder))), path)


if __name__ == "__main__":
    main()
