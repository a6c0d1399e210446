"""Every number of a published study comes from the Parquet file beside its page."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
PUBLISHED = sorted(path.stem for path in RESULTS.glob("*.parquet"))


def test_there_are_studies():
    assert "coadaptation" in PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_page_is_what_its_file_says(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "studies")
    study = runpy.run_path(str(ROOT / "studies" / f"{name}.py"))
    published = sys.modules["published"].Published
    assert study["page"](published.read(RESULTS / f"{name}.parquet")) == (RESULTS / f"{name}.md").read_text()
