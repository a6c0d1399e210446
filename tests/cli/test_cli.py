"""The command line as a whole: quick to start, and one line for a mistake."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

import dr3_ray
from dr3_ray.algorithms.registry import ALGORITHMS
from dr3_ray.cli.app import app, main
from dr3_ray.rllib.config import CLASSES
from tests.conftest import child_cpu_s


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


HEAVY = {"torch", "ray", "pandas", "matplotlib"}


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["sweep", "--help"], ["status", "--help"], ["demo", "--help"], ["report", "--help"]]
)
def test_help_is_quick_and_needs_neither_torch_nor_ray(arguments):
    code = (
        "import sys, json, dr3_ray.cli.app\n"
        "try: dr3_ray.cli.app.main(json.loads(sys.argv[1]))\n"
        "except SystemExit as end: assert not end.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    started = child_cpu_s()
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert child_cpu_s() - started < 3
    assert "Usage: dr3-ray" in out
    assert not HEAVY & set(json.loads(out.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [["schema"], ["data", "info", "embedded:breakout-replay?split=train"], ["data", "list", "."]]
)
def test_what_only_reads_needs_neither_torch_nor_ray(arguments, tmp_path):
    code = (
        "import atexit, sys\nfrom dr3_ray.__main__ import main\n"
        f"atexit.register(lambda: print(sorted({HEAVY} & sys.modules.keys())))\nmain(sys.argv[1:])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert out.stdout.splitlines()[-1] == "[]"


def test_the_commands_are_these(capsys):
    assert run() == 0
    shown = capsys.readouterr().out
    names = [
        "sweep",
        "demo",
        "schema",
        "status",
        "report",
        "serve",
        "diagnose",
        "doctor",
        "data",
        "algorithms",
        "options",
    ]
    for command in names:
        assert f"│ {command} " in shown
    panels = [line.split()[1] for line in shown.splitlines() if line.startswith("╭")]
    assert panels == ["Options", "Data", "Train", "Understand", "Use", "Prepare"]


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield from commands(command, (*path, name)) if hasattr(command, "commands") else [(*path, name)]


COMMANDS = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_page_has_two_examples_that_are_commands(command: tuple[str, ...], capsys: Any) -> None:
    assert run(*command, "--help") == 0
    lines = " ".join(line.strip(" │") for line in capsys.readouterr().out.splitlines())
    examples = re.findall(r"Example: dr3-ray ((?:(?!Example:|╭).)+)", lines)
    assert len(examples) >= 2
    for example in examples:
        words = shlex.split(example)[: len(command)]
        assert tuple(words) == command


def test_algorithms_and_options_are_listed(capsys: Any) -> None:
    assert run("algorithms", "--json") == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == list(ALGORITHMS)
    assert run("algorithms") == 0
    assert "DR3-CQL" in capsys.readouterr().out
    for name in ALGORITHMS:
        assert run("options", name, "--json") == 0
        listed = json.loads(capsys.readouterr().out)
        names = {option["name"] for by_kind in listed.values() for each in by_kind.values() for option in each}
        assert names == set(CLASSES[name].config_class.option_names())
        assert run("options", name) == 0
        shown = capsys.readouterr().out
        assert all(f"{each} = " in shown for each in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "--stepz", "3"], "(see dr3-ray sweep --help)"),
        (["data", "chek", "x"], "(see dr3-ray data --help)"),
        (["data", "info"], "(see dr3-ray data info --help)"),
        (["swep"], "(see dr3-ray --help)"),
        (["options", "CQL"], "did you mean 'DR3-CQL'?"),
        (["options", "td3+bc"], "did you mean 'DR3-TD3BC'?"),
        (["data", "info", "embedded:brekout"], "did you mean 'breakout-replay'?"),
        (["status", "x", "--json", "--watch"], "leave out one of them"),
        (["sweep", "--steps", "1", "--steps", "2"], "Invalid value for '--steps': it is given twice"),
        (["sweep", "--out", "a", "--out=a"], "Invalid value for '--out': it is given twice"),
        (["sweep", "--calibration", "--no-calibration"], "Invalid value for '--calibration': it is given twice"),
        (["data", "import", "x", "--out", "a", "--out", "b"], "Invalid value for '--out': it is given twice"),
    ],
)
def test_a_mistake_names_the_right_help_page_or_the_nearest_name(
    arguments: list[str], message: str, capsys: Any
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_completion_is_offered() -> None:
    words = {"COMP_WORDS": "dr3-ray sta", "COMP_CWORD": "1", "_DR3_RAY_COMPLETE": "complete_bash"}
    command = [sys.executable, "-m", "dr3_ray"]
    assert subprocess.run(command, env=os.environ | words, capture_output=True, text=True).stdout.split() == ["status"]


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"{dr3_ray.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swep"], "No such command"),
        (["sweep"], "Missing option '--dataset'"),
        (["sweep", "--dataset"], "requires an argument"),
        (["sweep", "--dataset", "x", "--nonsense", "1"], "No such option: --nonsense"),
        (["sweep", "--dataset", "x", "--steps", "many"], "Invalid value for '--steps'"),
        (["report"], "Missing argument"),
        (["report", "nowhere"], "nowhere is not a run directory"),
        (["sweep", "nowhere.yaml"], "nowhere.yaml cannot be read (No such file or directory)"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err


def test_doctor_looks_at_this_machine(capsys):
    assert run("doctor") in (0, 1)  # what it finds is tested with it
    assert "torch step on cpu" in capsys.readouterr().out
