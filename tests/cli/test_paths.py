"""Paths on a command line: every one is of this machine, and a URI in its place is one line without its keys."""

import inspect
import runpy
import sys
from pathlib import Path
from typing import get_args, get_origin

import pytest
from typer.models import ArgumentInfo

from dr3_ray.cli.app import app
from dr3_ray.errors import UserError
from dr3_ray.process.folders import cache_home
from dr3_ray.runs.keys import key_file
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.training.process import prepare_training
from tests.cli.test_cli import run

SWEEPS = Path(__file__).parents[2] / "sweeps"
URI = "s3://KEYX:SECRETX@results/run"


def commands(group, words=()):
    """Every command below a group: the words that lead to it, and its parameters by name with what typer is told."""
    for info in group.registered_commands:
        name = info.name or info.callback.__name__
        parameters = inspect.signature(info.callback).parameters
        yield (*words, name), {key: each for key, each in parameters.items() if get_origin(each.annotation)}
    for each in group.registered_groups:
        yield from commands(each.typer_instance, (*words, each.name))


def is_path(parameter):
    return Path in (kind := get_args(parameter.annotation)[0], *get_args(kind))[:2]


CASES = [(words, name, all_) for words, all_ in commands(app) for name in all_ if is_path(all_[name])]


def arguments(path, parameters, uri):
    """This parameter with a URI, and the others that have to be there with anything."""
    found = []
    for name, each in parameters.items():
        if name == path or each.default is each.empty:
            value, told = uri if name == path else "x", get_args(each.annotation)[1]
            found += [value] if isinstance(told, ArgumentInfo) else [f"--{name.replace('_', '-')}", value]
    return found


def refused(capsys, tmp_path, what=""):
    error = capsys.readouterr().err
    assert error == f"error: {what}s3://***@results/run is a URI: give a path of this machine here\n"
    assert not list(tmp_path.iterdir())


NAMES = [" ".join((*case[0], case[1])) for case in CASES]


@pytest.mark.parametrize(("words", "path", "parameters"), CASES, ids=NAMES)
def test_no_command_takes_a_uri_for_a_path(words, path, parameters, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for uri in (URI, f" {URI}", f"\t{URI} "):
        assert run(*words, *arguments(path, parameters, uri)) == 2
        refused(capsys, tmp_path)


@pytest.mark.parametrize(("words", "path", "parameters"), CASES, ids=NAMES)
def test_no_command_takes_a_file_of_another_machine_for_one_of_this(
    words, path, parameters, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run(*words, *arguments(path, parameters, f"file://elsewhere{tmp_path}/run")) == 2
    assert f"error: file://elsewhere{tmp_path}/run is a file of elsewhere: give file:///PATH" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [("--storage", "{}"), ("--dataset", "{}"), ("--search", "random", "--trials", "2", "--study", "{}")]
)
def test_nor_are_data_a_storage_and_a_study_elsewhere(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = [word.format(f"file://elsewhere{tmp_path}/x") for word in words]
    assert run("sweep", "--dataset", "embedded:breakout-replay", *asked, "--dry-run") == 2
    assert f"file://elsewhere{tmp_path}/x is a file of elsewhere: give file:///PATH" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        *[("data", "info"), ("data", "verify"), ("fetch",), ("sweep", "--resume"), ("sweep", "--from")],
        *[("report",), ("status",), ("select",), ("diagnose",), ("evaluate",), ("serve",)],
    ],
)
def test_nor_is_what_is_read(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words, f"file://elsewhere{tmp_path}/x") == 2
    assert f"file://elsewhere{tmp_path}/x is a file of elsewhere: give file:///PATH" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["report", "status", "select", "diagnose", "evaluate", "serve"])
def test_a_run_whose_uri_lost_a_slash_is_told_to_have_it(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(command, "s3:/KEYX:SECRETX@results/run") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: s3:/***@results/run is neither a path nor a URI: write s3://…")
    assert not list(tmp_path.iterdir())


def test_blanks_around_a_uri_are_no_part_of_it(tmp_path):
    spec = SweepSpec(
        datasets=[" embedded:a", "s3://b/x "], out=f" file://{tmp_path}/r\n", storage=f"\tfile://{tmp_path}/s "
    )
    assert spec.out == tmp_path / "r" and spec.storage == f"file://{tmp_path}/s"
    assert spec.datasets == ("embedded:a", "s3://b/x")
    assert SweepSpec(datasets=["a"], out=f" {tmp_path}/r ").out == Path(f" {tmp_path}/r ")  # a path may have them


def test_these_are_all_the_paths():
    assert {" ".join((*words, path)) for words, path, _ in CASES} == {
        "sweep spec", "sweep out", "demo out", "report out", "fetch cluster", "fetch out",
        "reproduce out", "doctor cluster",
        "data import out", "data export out", "data collect out",
        "data list folder", "data plot out",
        "evaluate video", "evaluate every_return", "export out",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("coefficient_sweep", ["--out", URI]),
        ("offline_selection", [URI]),
        ("optuna_search", ["--out", URI]),
        ("paper_suite", ["--data", URI]),
        ("population_based", ["--out", URI]),
        ("regularizer_ablation", ["--out", URI]),
        ("sarsa_vs_td", ["--out", URI]),
    ],
)
def test_no_script_does_either(script, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SWEEPS / f"{script}.py"), run_name="__main__")
    assert end.value.code == 2
    refused(capsys, tmp_path)


def test_nor_does_a_specification(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(f"datasets: [embedded:breakout-replay]\nout: {URI}\n")
    assert run("sweep", "sweep.yaml", "--dry-run") == 2
    assert "s3://***@results/run is a URI: give a path" in capsys.readouterr().err
    assert SweepSpec(datasets=["a"], out=f"file://{tmp_path}/r").out == tmp_path / "r"
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


def test_the_uri_of_a_path_is_that_path(tmp_path, capsys):
    assert run("status", f"file://{tmp_path}/nothing") == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/nothing is not a run directory")


def test_episodes_without_an_environment(capsys):
    assert run("sweep", "--dataset", "embedded:breakout-replay", "--environment", "none", "--episodes", "4") == 2
    assert "environment none plays no episodes: leave out --episodes" in capsys.readouterr().err


def test_a_part_of_a_fingerprint(capsys):
    assert run("data", "info", "embedded:breakout-replay#0abc") == 2
    assert "a fingerprint has 64 digits, and '0abc' 4: give the whole one" in capsys.readouterr().err


def test_a_scheme_with_one_slash_is_no_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("--dataset", "embedded:breakout-replay", "--storage", "s3:/KEYX:SECRETX@results/run", "--dry-run")
    assert run("sweep", *asked) == 2
    error = capsys.readouterr().err
    assert "s3:/***@results/run is neither a path nor a URI: write s3://…" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("study", ["s3://KEYX:SECRETX@b/study", "http://host/x", "sqlit:///x.db"])
def test_a_study_is_in_a_database_or_a_journal(study, capsys, tmp_path):
    asked = ("--dataset", "embedded:breakout-replay", "--search", "random", "--trials", "2", "--study", study)
    assert run("sweep", *asked, "--out", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert "is no database: give sqlite:///FILE, postgresql://…, mysql://…, or a journal's path" in error
    assert "SECRETX" not in error
    assert not list(tmp_path.iterdir())


def test_the_uri_of_a_journal_is_its_path(tmp_path):
    search = {"method": "random", "trials": 2, "study": f"file://{tmp_path}/a%20b.log"}
    assert SweepSpec(datasets=["a"], search=search).search.study == f"{tmp_path}/a b.log"


def test_the_folder_of_caches_is_of_this_machine(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DR3_RAY_CACHE", URI)
    assert run("data", "cache") == 2
    refused(capsys, tmp_path, "DR3_RAY_CACHE: ")
    for use in (cache_home, key_file, prepare_training):  # and so does everything that uses it, in a script too
        with pytest.raises(UserError, match=r"^DR3_RAY_CACHE: s3://\*\*\*@results/run is a URI: give a path"):
            use()
    assert not list(tmp_path.iterdir())


def test_this_machine_may_be_named(tmp_path):
    assert SweepSpec(datasets=["a"], out=f"file://localhost{tmp_path}/r").out == tmp_path / "r"


def test_a_file_that_plays_nothing_and_episodes(tmp_path, capsys):
    (tmp_path / "sweep.yaml").write_text("datasets: [embedded:breakout-replay]\nenvironment: none\n")
    assert run("sweep", str(tmp_path / "sweep.yaml"), "--episodes", "4") == 2
    assert "environment none plays no episodes: leave out --episodes" in capsys.readouterr().err
