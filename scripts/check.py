"""Run the tests nearest to what changed since a branch: `BASE`, or else the main one.

Nearest are the tests of a changed module, then those that import it, then those that import one of its importers.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from grimp import ImportGraph, build_graph  # comes with import-linter

ROOT = Path(__file__).parents[1]
GOLDEN = Path("tests/golden")  # comparisons with others' code
MOST = 20  # files of tests that are run: one or two minutes on two cores
FAR = 3  # imports between a test and a changed module, at most
Rank = tuple[int, ...]


def git(*arguments: str) -> list[str]:
    """Return the lines that git prints; none where it fails."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT).stdout.splitlines()


def changed_files() -> set[Path]:
    """Return the files that differ from where this branch left its base, new ones included."""
    branches = filter(None, [os.environ.get("BASE"), "origin/main", "main", "HEAD"])
    base = next(commit for branch in branches for commit in git("merge-base", "HEAD", branch))
    names = [*git("diff", "--name-only", base), *git("ls-files", "--others", "--exclude-standard")]
    return {Path(name) for name in names if (ROOT / name).exists()}


def import_graph() -> ImportGraph:
    """Return who imports whom in the package and its tests."""
    sys.path.insert(0, str(ROOT))  # where `tests` is found, which nobody installs
    return build_graph("dr3_ray", "tests", cache_dir=None)


def module_name(path: Path) -> str:
    """Return the name under which a file is imported."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def distances(graph: ImportGraph, changed: str) -> dict[str, int]:
    """Return how many imports lie between a changed module and each that reaches it, up to `FAR`."""
    found, edge = {changed: 0}, {changed} & graph.modules
    for distance in range(1, FAR + 1):
        edge = {importer for module in edge for importer in graph.find_modules_that_directly_import(module)}
        edge -= found.keys()
        found |= dict.fromkeys(edge, distance)
    return found


def ranks(graph: ImportGraph, changed: Path) -> dict[Path, Rank]:
    """Return the files of tests that a change reaches; the lower its rank, the nearer a file.

    A file that is no module reaches the tests that name it.
    """
    tests = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")]
    if changed.suffix != ".py" or changed.parts[0] not in ("dr3_ray", "tests"):
        return {test: (1,) for test in tests if changed.name in (ROOT / test).read_text()}
    reached, home = distances(graph, module_name(changed)), Path("tests", *changed.parent.parts[1:])
    first = (home, GOLDEN)
    found: dict[Path, Rank] = {}
    for test in tests:
        name, at_home = module_name(test), test.parent == home
        if at_home and test.stem.removeprefix("test_") == changed.stem:
            found[test] = (0,)
        elif at_home or name in reached:
            imported = len(graph.find_modules_directly_imported_by(name))
            found[test] = (reached.get(name, FAR), test.parent not in first, imported)
    return found


def nearest(changed: Iterable[Path]) -> list[Path]:
    """Return the files of tests that any of the changes reaches, nearest first."""
    graph, found = import_graph(), {}
    for path in changed:
        for test, rank in ranks(graph, path).items():
            found[test] = min(rank, found.get(test, rank))
    return sorted(found, key=lambda test: (found[test], test))


def main() -> int:
    """Run at most `MOST` files of tests; return pytest's exit code."""
    found = nearest(changed_files())
    print(f"{len(found)} files of tests reach what changed, the nearest {min(len(found), MOST)} are run", flush=True)
    if not found:
        return 0
    spread = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    command = [sys.executable, "-m", "pytest", *spread, *map(str, found[:MOST]), *sys.argv[1:]]
    code = subprocess.run(command, cwd=ROOT).returncode
    return 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code  # all of them may be slow


if __name__ == "__main__":
    sys.exit(main())
