"""The tutorials of CONTRIBUTING.md work as printed, in a copy of the package."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text().replace("\\\n", "")
TUTORIALS = dict(re.findall(r"^## (An? \w+ in \d+ lines)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
# where each registry imports its modules, and where its table begins; the catalogue has one, too
IMPORTS = re.compile(r"^from dr3_ray\.(?:algorithms|regularizers|diagnostics) import \(?", re.MULTILINE)
TABLE = re.compile(r"^(?: *for .* in|DIAGNOSTICS.* =|QUANTITIES =|IMPORTERS =|METHODS =) [({].*\n", re.MULTILINE)


def register(package: Path, module: Path, line: str) -> None:
    """Import a module in its room's registry, and put a line at the top of the table there."""
    registry = package / module.parent / "registry.py"
    text, imports = IMPORTS.subn(lambda found: f"{found[0]}{module.stem}, ", registry.read_text(), count=1)
    assert imports == 1
    registry.write_text(text)
    list_first(registry, line)


def list_first(file: Path, line: str) -> None:
    """Put a line at the top of a file's table."""
    text, tables = TABLE.subn(lambda found: f"{found[0]}{line}\n", file.read_text(), count=1)
    assert tables == 1
    file.write_text(text)


TRAINED = {"An algorithm in 60 lines": 2, "A regulariser in 15 lines": 3, "A diagnostic in 10 lines": 3}  # members


@pytest.mark.slow
@pytest.mark.parametrize(("title", "members"), TRAINED.items())
def test_what_it_adds_is_trained_and_swept(title: str, members: int, tmp_path: Path):
    shutil.copytree(ROOT / "dr3_ray", tmp_path / "dr3_ray")
    file, train = re.findall(r"^```python\n(.*?)^```", TUTORIALS[title], re.DOTALL | re.MULTILINE)
    module = Path(re.findall(r"`(dr3_ray/\w+/\w+\.py)`:$", TUTORIALS[title], re.MULTILINE)[0])
    (tmp_path / module).write_text(file)
    line, *quantities = re.findall(r"^\+(.*)$", TUTORIALS[title], re.MULTILINE)
    register(tmp_path, module, line)
    for quantity in quantities:
        list_first(tmp_path / "dr3_ray" / "quantities.py", quantity)
    (command,) = re.findall(r"^\$ dr3-ray (.*)$", TUTORIALS[title], re.MULTILINE)

    environment = os.environ | {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    code = f"{train}\nfrom dr3_ray.__main__ import main\nmain({shlex.split(command)})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    shown = re.search(r"tensor\(\[(.*?)\]\)", done.stdout)
    assert shown is not None and len({float(number) for number in shown[1].split(",")}) == members
    assert "members" in done.stdout and "Nothing was written" in done.stdout


@pytest.mark.slow
def test_what_an_importer_adds_is_imported(tmp_path: Path):
    shutil.copytree(ROOT / "dr3_ray", tmp_path / "dr3_ray")
    tutorial = TUTORIALS["An importer in 60 lines"]
    file, write = re.findall(r"^```python\n(.*?)^```", tutorial, re.DOTALL | re.MULTILINE)
    (tmp_path / "dr3_ray" / "data" / "importers" / "jsonl.py").write_text(file)
    (line,) = re.findall(r"^\+(.*)$", tutorial, re.MULTILINE)
    list_first(tmp_path / "dr3_ray" / "data" / "importers" / "__init__.py", line)
    (command,) = re.findall(r"^\$ dr3-ray (.*)$", tutorial, re.MULTILINE)
    look = """
from dr3_ray import load_dataset
rows = load_dataset("walks").stored(0, 3)
print(*(rows[name].tolist() for name in ("observations", "next_observations", "actions", "rewards")))
print(rows["terminateds"].tolist(), rows["truncateds"].tolist())"""
    code = f"{write}\nfrom dr3_ray.cli.app import app\napp({shlex.split(command)}, standalone_mode=False)\n{look}"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "[[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]] [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]] [0, 2, 1] [0.0, 1.0, 0.5]",
        "[False, True, False] [False, False, True]",
    ]


@pytest.mark.slow
def test_what_a_searcher_proposes_is_trained(tmp_path: Path):
    shutil.copytree(ROOT / "dr3_ray", tmp_path / "dr3_ray")
    tutorial = TUTORIALS["A searcher in 15 lines"]
    (file,) = re.findall(r"^```python\n(.*?)^```", tutorial, re.DOTALL | re.MULTILINE)
    search = tmp_path / "dr3_ray" / "sweep" / "search"
    (search / "joint.py").write_text(file)
    methods, typing = search / "methods.py", "from typing import"
    methods.write_text(methods.read_text().replace(typing, f"from dr3_ray.sweep.search import joint\n\n{typing}", 1))
    (line,) = re.findall(r"^\+(.*)$", tutorial, re.MULTILINE)
    list_first(methods, line)
    (command,) = re.findall(r"^\$ dr3-ray (.*)$", tutorial, re.MULTILINE)
    look = """
from dr3_ray import load_run
members = load_run("found").members
print(len(members), members["critic_lr"].nunique(), *members["status"].unique())"""
    code = f"""
import subprocess, sys
subprocess.run([sys.executable, "-m", "dr3_ray", *{shlex.split(command)}], check=True)
{look}"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "3 3 finished"


def test_its_code_is_as_long_as_its_title_says():
    for title, text in TUTORIALS.items():
        file = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0]
        code = [line for line in file.splitlines() if line and not line.startswith(("import ", "from "))]
        assert len(code) <= int(re.findall(r"\d+", title)[0]), title
