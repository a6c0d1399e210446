"""The notebooks of the site run from top to bottom, in an empty folder, and hold what they printed."""

from pathlib import Path

import nbformat
import pytest

from dr3_ray import load_run
from scripts.run_notebooks import FOLDER, execute, tidy

NOTEBOOKS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arrays", "coefficient"])
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a real kernel; its last cell asserts what it has promised."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    done = execute(NOTEBOOKS[name], tmp_path)
    said = "".join(output.get("text", "") for cell in done.cells for output in cell.get("outputs", ()))
    assert "best" in said and "assert" in "".join(cell.source for cell in done.cells)
    (run,) = (tmp_path / "runs").iterdir()
    assert {"finished"} == set(load_run(run).statuses)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_site_shows_what_it_printed(name: str) -> None:
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any(cell.outputs for cell in code) and set(NOTEBOOKS) == {"arrays", "coefficient"}
    assert tidy(nbformat.read(NOTEBOOKS[name], as_version=4)) == notebook
    assert "/tmp/" not in NOTEBOOKS[name].read_text()
    assert NOTEBOOKS[name].stat().st_size < 150_000
