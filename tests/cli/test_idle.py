"""No option of a command is accepted and ignored: each is used whatever else is typed, or refused where it is not."""

import pytest

from dr3_ray.cli.app import app
from dr3_ray.training.saved import PLACE
from tests.cli.test_cli import run
from tests.cli.test_paths import commands

USED = {  # whatever else is typed, or where something else says so
    "schema": "", "demo": "out", "algorithms": "as_json", "options": "algorithm as_json",
    "report": "run as_json", "fetch": "run cluster out checkpoints", "serve": "run host port",
    "status": "run watch as_json",
    "doctor": "cluster storage as_json",  # --storage by test_cluster_file
    "diagnose": "source data member where trust as_json", "select": "run criteria top trust as_json",
    "evaluate": "source env episodes seed member where video every_return shift adapt trust as_json",
    "reproduce": "name",
    "export": "source to out member where trust as_json",
    "data import": "sources out gamma name columns action_space max_steps goal strict trust workers dry_run",
    "data export": "source to out as_json", "data check": "source strict as_json",
    "data collect": "source out learner steps seed keep quality medium_return settings",
    "data info": "source as_json", "data list": "folder as_json", "data plot": "source out",
    "data verify": "source seal as_json", "data cache": "prune as_json",
}  # fmt: skip
IDLE = {  # what is typed beside them, where they would change nothing
    ("report", "also"): ("RUN", "--json", "--also", "md"),
    ("report", "out"): ("RUN", "--json", "--out", "there"),
    ("reproduce", "scale"): ("--scale", "smoke"),
    ("reproduce", "as_json"): ("coadaptation", "--json"),
    ("reproduce", "out"): ("--out", "there"),
    ("select", "fqe_steps"): ("RUN", "--criteria", "td_error,start_value", "--fqe-steps", "5"),
    ("select", "fqe_seeds"): ("RUN", "--fqe-steps", "0", "--fqe-seeds", "3"),
    ("select", "data"): ("RUN", "--criteria", "fqe,td_error", "--data", "others"),
    ("evaluate", "objective"): ("RUN", "--member", "abc", "--objective", "td_error"),
    ("evaluate", "settings"): ("RUN", "--set", "lr=0.1"),
    ("export", "objective"): ("CHECKPOINT", "--to", "onnx", "--out", "it", "--member", "0", "--objective", "td_error"),
    ("diagnose", "objective"): ("CHECKPOINT", "--objective", "td_error"),
    ("data import", "clip_actions"): ("steps.csv", "--out", "there", "--clip-actions"),
    ("data import", "rescale_actions"): ("steps.csv", "--out", "there", "--rescale-actions"),
    ("data collect", "trust"): ("CartPole-v1", "--out", "there", "--learner", "random", "--trust"),
    ("data import", "flatten"): ("steps.csv", "--out", "there", "--flatten"),
}  # fmt: skip


def test_these_are_all_the_options_but_for_those_of_sweeps():
    """`tests/sweep/test_command.py` has theirs."""
    known = {(command, name) for command, names in USED.items() for name in names.split()} | IDLE.keys()
    there = {(" ".join(words), name) for words, names in commands(app) for name in names}
    assert {each for each in there if each[0] != "sweep"} == known


@pytest.mark.parametrize(("command", "option"), IDLE)
def test_what_would_change_nothing_is_refused_before_anything_is_done(command, option, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CHECKPOINT" / PLACE).mkdir(parents=True)
    (tmp_path / "steps.csv").write_text("obs_0,action,reward,terminated\n0.5,1,0,0\n0.25,0,1,1\n")
    before = sorted(tmp_path.rglob("*"))
    assert run(*command.split(), *IDLE[command, option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and line.endswith(": leave it out")
    assert option.removeprefix("as_").replace("_", "-") in line and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("limit", ["abc", "-5", "nan", "1e400GB", "50 GBit", "0x10"])
def test_a_limit_of_the_cache_that_is_none_is_told_where_the_cache_is_shown(limit, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DR3_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DR3_RAY_CACHE_LIMIT", limit)
    assert run("data", "cache") == 2
    assert capsys.readouterr().err.startswith(f"error: DR3_RAY_CACHE_LIMIT={limit} is no size")
    monkeypatch.setenv("DR3_RAY_CACHE_LIMIT", "2MB")
    assert run("data", "cache") == 0
    assert "0.0 MB of at most 2.0" in capsys.readouterr().out
