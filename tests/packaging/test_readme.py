"""The README's Python runs as it stands, from anywhere, and the targets and files it names exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))
def test_python_blocks_run(code, tmp_path):
    home = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}  # Ray leaves nothing behind in the real one
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=os.environ | home)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_that_are_named_exist(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", (ROOT / document).read_text())) <= targets
