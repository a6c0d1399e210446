"""Change one thing in the code at a time, and see whether the nearest fast tests notice.

`scripts/mutate.py 60 stats losses` draws 60 places in each of these rooms, makes one of Cosmic Ray's changes at each,
and prints those that no test noticed. Tests run on a copy of the tree, in processes forked after the slow imports.
"""

import ast
import difflib
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from itertools import islice
from pathlib import Path

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
ROOMS = {  # the files that are changed, and the tests that ought to notice
    "losses": ("losses/*.py", "losses regularizers/test_dr3.py"),
    "regularizers": ("regularizers/*.py", "regularizers"),
    "stats": ("stats/*.py", "stats"),
    "sampler": ("data/sampler.py data/philox.py", "data/test_sampler.py data/test_philox.py"),
    "histories": ("runs/histories.py", "runs/test_histories.py runs/test_readers.py"),
    "index": ("runs/index.py", "runs/test_index.py"),
}
SLOW_IMPORTS = ["torch", "scipy.stats", "pyarrow.dataset", "hypothesis", "gymnasium", "beartype", "jaxtyping"]
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
SEED = 20


def behaviour(code: str) -> str:
    """Return what the code does: no comments, no layout, no annotations."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        for name in {"annotation", "returns"} & set(node._fields):
            setattr(node, name, ast.Constant(None))
    return ast.dump(tree)


def mutated(code: str, operator: Operator, occurrence: int) -> str | None:
    """Return the changed code; None if it does the same as before, or is no Python."""
    try:
        mutant = mutate_code(code, operator, occurrence)
        return mutant if behaviour(mutant) != behaviour(code) else None
    except (SyntaxError, AttributeError):  # the latter where an exception has a dotted name
        return None


def drawn(patterns: str, n: int) -> list[tuple[Path, str]]:
    """Return n files with the text of a mutant each: places are drawn without replacement, and one change at each."""
    operators = [operator() for operator in map(get_operator, operator_names()) if not operator.arguments()]
    places = defaultdict(list)
    for path in sorted(path for pattern in patterns.split() for path in Path("dr3_ray").glob(pattern)):
        nodes = [*ast_nodes(get_ast(path.read_text()))]
        for operator in operators:
            for occurrence, place in enumerate(each for node in nodes for each in operator.mutation_positions(node)):
                places[path, place].append((operator, occurrence))
    source = random.Random(SEED)
    shuffled = source.sample(sorted(places), len(places))
    texts = ((path, mutated(path.read_text(), *source.choice(places[path, place]))) for path, place in shuffled)
    return [*islice(((path, text) for path, text in texts if text), n)]


def passes(tests: str, limit_s: float | None = None) -> bool:
    """Return whether tests pass within a limit, in a process of their own."""

    def work() -> None:
        os.setsid()
        with open("output.txt", "w") as output:
            os.dup2(output.fileno(), 1), os.dup2(output.fileno(), 2)
        os._exit(pytest.main([*(f"tests/{test}" for test in tests.split()), *OPTIONS]))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(limit_s)
    if process.is_alive():  # with the processes that its tests started
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == pytest.ExitCode.OK


def report(room: str, n: int) -> None:
    """Change n places of a room, print how many changes its tests noticed, and the others."""
    patterns, tests = ROOMS[room]
    mutants, started, alive = drawn(patterns, n), time.monotonic(), []
    assert passes(tests), f"the tests of {room} fail without a change: {Path('output.txt').read_text()[-2000:]}"
    limit_s = 60 + 10 * (time.monotonic() - started)
    for number, (path, mutant) in enumerate(mutants):
        original = path.read_text()
        path.write_text(mutant)
        os.utime(path, (number, number))  # no compiled file is as old
        if passes(tests, limit_s):
            lines = difflib.unified_diff(original.splitlines(), mutant.splitlines(), str(path), n=0, lineterm="")
            alive.append("\n".join(line for line in lines if not line.startswith("+++")))
        path.write_text(original)
    print(f"{room}: {len(mutants) - len(alive)} of {len(mutants)} were noticed", *alive, sep="\n", flush=True)


if __name__ == "__main__":
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(ROOT / "pyproject.toml", copy)
        for folder in ("dr3_ray", "tests"):
            shutil.copytree(ROOT / folder, Path(copy, folder))
        os.chdir(copy)
        for room in sys.argv[2:] or ROOMS:
            report(room, int(sys.argv[1]))
