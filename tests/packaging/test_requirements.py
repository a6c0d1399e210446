"""What is declared, what is pinned and what is installed agree."""

import ast
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, metadata, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: [Requirement(r) for r in group] for name, group in PROJECT["optional-dependencies"].items()}
DIRECT = [Requirement(r) for r in PROJECT["dependencies"]] + [r for group in EXTRAS.values() for r in group]
CONSTRAINTS = {
    canonicalize_name(requirement.name): requirement
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if (text := line.partition("#")[0].strip())
    for requirement in [Requirement(text)]
}


def pinned(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def test_every_direct_dependency_is_pinned_and_nothing_else():
    assert {canonicalize_name(r.name) for r in DIRECT} - {"dr3-ray"} == set(CONSTRAINTS)


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_the_pin_lies_in_the_declared_range(requirement):
    if requirement.name != "dr3-ray":
        assert requirement.specifier.contains(pinned(CONSTRAINTS[canonicalize_name(requirement.name)]))


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_what_is_installed_is_what_is_pinned(name):
    try:
        installed = version(name)
    except PackageNotFoundError:
        assert name not in {canonicalize_name(Requirement(r).name) for r in PROJECT["dependencies"]}
    else:
        assert CONSTRAINTS[name].specifier.contains(installed), installed


@pytest.mark.parametrize("build", ["2.13.0", "2.13.0+cpu", "2.13.0+cu130"])
def test_any_build_of_torch_satisfies_the_pin_and_the_range(build):
    (torch,) = (r for r in DIRECT if r.name == "torch")
    assert CONSTRAINTS["torch"].specifier.contains(build) and torch.specifier.contains(build)


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_extras_are_published_and_name_extras_that_exist(extra):
    assert extra in (metadata("dr3-ray").get_all("Provides-Extra") or ())
    for requirement in EXTRAS[extra]:
        if requirement.extras:
            offered = {canonicalize_name(e) for e in metadata(requirement.name).get_all("Provides-Extra") or ()}
            assert {canonicalize_name(e) for e in requirement.extras} <= offered


def modules_of(distributions: Iterable[str]) -> set[str]:
    """Top-level modules these distributions install; the name itself for one that is absent."""
    names = set()
    for name in distributions:
        try:
            names |= {file.parts[0].removesuffix(".py") for file in distribution(name).files or ()}
        except PackageNotFoundError:
            names.add(name)
    return names


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_what_the_package_imports_it_declares():
    users = [r.name for r in map(Requirement, PROJECT["dependencies"])]
    users += [r.name for name, group in EXTRAS.items() if name != "dev" for r in group]
    known = {"dr3_ray", *sys.stdlib_module_names, *modules_of(users)}
    for path in (ROOT / "dr3_ray").rglob("*.py"):
        assert imported(path) <= known, path
