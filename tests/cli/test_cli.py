"""The command line as a whole: quick to start, and one line for a mistake."""

import json
import subprocess
import sys
import time

import pytest

import dr3_ray
from dr3_ray.cli import main


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["sweep", "--help"], ["status", "--help"], ["demo", "--help"], ["report", "--help"]]
)
def test_help_is_quick_and_needs_neither_torch_nor_ray(arguments):
    code = (
        "import sys, json, dr3_ray.cli\n"
        "try: dr3_ray.cli.main(json.loads(sys.argv[1]))\n"
        "except SystemExit as end: assert not end.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    started = time.monotonic()
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert time.monotonic() - started < 3
    assert "Usage: dr3-ray" in out
    assert not {"torch", "ray", "pandas", "matplotlib"} & set(json.loads(out.splitlines()[-1]))


def test_the_commands_are_these(capsys):
    assert run() == 0
    shown = capsys.readouterr().out
    for command in ("sweep", "demo", "schema", "status", "report", "doctor", "data"):
        assert f"│ {command} " in shown


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
