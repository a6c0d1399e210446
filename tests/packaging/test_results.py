"""Published pages are what their studies say of the files beside them, and the README says no other number."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
FILES = sorted(RESULTS.glob("*.parquet"))
NUMBER = re.compile(r"−?\d(?:[\d,]*\d)?(?:\.\d+)?")


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "studies"))


@pytest.mark.usefixtures("studies")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_number_of_a_page_comes_from_the_file_beside_it(file: Path) -> None:
    found = importlib.import_module("published").Published.read(file)
    assert file.with_suffix(".md").read_text() == importlib.import_module(file.stem).page(found)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_readme_tells_what_came_out_by_numbers_of_the_page(file: Path) -> None:
    page = file.with_suffix(".md").read_text().replace("-", "−")
    rows = re.findall(
        rf"^\| \[.*\]\(docs/results/{file.stem}\.md\) \| (.*) \|$", (ROOT / "README.md").read_text(), re.M
    )
    assert len(rows) == 1
    for number in NUMBER.findall(rows[0]):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", page), number
