"""`make check` runs the tests that are nearest to what changed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "scripts" / "check.py")


@pytest.fixture(scope="module")
def check() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("check", ROOT / "scripts" / "check.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ("dr3_ray/losses/cql.py", "tests/losses/test_cql.py"),
        ("dr3_ray/training/population.py", "tests/training/test_population.py"),
        ("dr3_ray/data/minari.py", "tests/data/test_minari.py"),
        ("dr3_ray/sweep/spec/space.py", "tests/sweep/spec/test_space.py"),
        ("tests/losses/test_cql.py", "tests/losses/test_cql.py"),
        ("tests/sweep/greedy.py", "tests/sweep/test_run.py"),
        ("CONTRIBUTING.md", "tests/packaging/test_check.py"),
    ],
)
def test_the_nearest_tests_come_first(check: Any, changed: str, first: str):
    assert check.nearest([Path(changed)])[0] == Path(first)


def test_an_algorithm_is_compared_with_other_peoples(check: Any):
    found = check.nearest([Path("dr3_ray/algorithms/cql.py")])[: check.MOST]
    assert {Path("tests/golden/test_continuous.py"), Path("tests/algorithms/test_cql_continuous.py")} <= set(found)


def test_every_module_has_tests_near_it(check: Any):
    graph = check.import_graph()
    modules = [path.relative_to(ROOT) for path in (ROOT / "dr3_ray").rglob("*.py") if path.stat().st_size]
    assert [path for path in modules if not check.ranks(graph, path)] == []


def test_nothing_is_run_where_nothing_changed(check: Any):
    assert check.nearest([]) == []


def test_it_finds_the_tests_from_a_shell():
    """Where pytest has not put them on the path."""
    script = f"import runpy; print('tests.conftest' in runpy.run_path({SCRIPT!r})['import_graph']().modules)"
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
