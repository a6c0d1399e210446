"""The search scripts: quick help, one line for a mistake, and each of them run at a very small scale."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dr3_ray.cli import script
from dr3_ray.runs.index import read_index
from tests.conftest import child_cpu_s
from tests.sweep.conftest import statuses

pytestmark = pytest.mark.slow

SWEEPS = Path(__file__).parents[2] / "sweeps"
SCRIPTS = sorted(path.name for path in SWEEPS.glob("*.py"))
TINY = ["--steps", "20", "--evaluations", "2", "--seeds", "2", "--episodes", "1", "--set", "hidden_sizes=[8]"]
TINY += ["--concurrent", "1"]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of one line a row."""
    monkeypatch.setenv("COLUMNS", "200")


def load(name: str) -> dict[str, Any]:
    """The names of a script, which is no module of a package."""
    path = SWEEPS / f"{name}.py"
    found: dict[str, Any] = {"__name__": name, "__file__": str(path)}
    exec(compile(path.read_text(), str(path), "exec"), found)
    return found


def run(name: str, *arguments: str, defaults: dict[str, Any] | None = None) -> int:
    """Call a script in this process, where a Ray is running."""
    found = load(name)
    if name == "population_based":
        with pytest.raises(SystemExit) as end:
            script.cli.main(list(arguments), name, script.alone(found[name], "help"))
    else:
        with pytest.raises(SystemExit) as end:
            script.run_script(found["plan"], found["answer"], "help", defaults or {}, list(arguments))
    return int(end.value.code or 0)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_quick_and_needs_neither_torch_nor_ray(name: str) -> None:
    code = (
        "import sys, json, runpy\n"
        "try: runpy.run_path(sys.argv[1], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    started = child_cpu_s()
    command = [sys.executable, "-c", code, str(SWEEPS / name), "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert child_cpu_s() - started < 3
    assert "Usage:" in out and "--out" in out
    assert not {"torch", "ray", "pandas", "matplotlib"} & set(json.loads(out.splitlines()[-1]))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("sarsa_vs_td", ["--dataset", "nowhere"], "nowhere is not a data set"),
        ("sarsa_vs_td", ["--set", "cql_alpa=1"], "unknown option 'cql_alpa'"),
        ("regularizer_ablation", ["--algorithm", "DR3-CQ"], "unknown algorithm 'DR3-CQ'"),
        ("regularizer_ablation", ["--algorithm", "BC"], "BC has no critic to regularise"),
        ("paper_suite", ["--scale", "huge"], "Invalid value for '--scale'"),
        ("paper_suite", ["--coefficients", "a"], "'a' is not a number"),
        ("offline_selection", ["nowhere.yaml"], "nowhere.yaml cannot be read"),
        ("offline_selection", ["."], "is not a run directory"),
        ("population_based", ["--change", "dr3_coeff"], "give NAME=LOW,HIGH"),
        ("population_based", ["--change", "hidden_sizes=1,2"], "hidden_sizes is part of the structure, which stays"),
        ("population_based", ["--change", "dr3_coef=0,1"], "did you mean 'dr3_coeff'?"),
        ("population_based", ["--change", "dr3_coeff=-1,1"], "dr3_coeff = -1.0 is outside"),
        ("population_based", ["--change", "tau=1,0"], "tau: 1 to 0 is no range"),
        ("population_based", ["--environment", "none"], "members are compared by their returns"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    name: str, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(name, *arguments, "--out", str(tmp_path / "run")) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1 and message in shown
    assert not (tmp_path / "run").exists()


def test_sarsa_against_td_on_both_kinds_of_actions(
    cartpole: str, pendulum: str, cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--dataset", cartpole, "--dataset", pendulum]
    at = TINY.index("--episodes")  # which nobody plays here
    quick = [*TINY[:at], *TINY[at + 2 :], "--set", "batch_size=8"]
    assert run("sarsa_vs_td", *both, *quick, "--out", str(tmp_path), defaults={"environment": "none"}) == 0
    shown = capsys.readouterr().out
    learners = {kind: {r["config"]["algorithm"] for r in read_index(tmp_path / kind)} for kind in script.FAST}
    assert learners["discrete"] == {"DR3-MC", "DR3-SARSA", "DR3-TD", "DR3-DQN"}
    assert learners["continuous"] == {"DR3-MC", "DR3-SARSA", "DR3-TD", "DR3-CQL"}
    assert {r["config"]["cql_alpha"] for r in read_index(tmp_path / "continuous") if "cql_alpha" in r["config"]} == {0}
    assert "cartpole, 20 updates" in shown and "pendulum, 20 updates" in shown and "TD, cloned policy" in shown
    run("sarsa_vs_td", *both, *quick, "--out", str(tmp_path), defaults={"environment": "none"})
    assert "8 of 8 runs were done before" in capsys.readouterr().err


def test_regularizers_at_equal_effort(cartpole: str, cluster: str, tmp_path: Path, capsys: Any) -> None:
    assert run("regularizer_ablation", "--dataset", cartpole, *TINY, "--out", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    of = load("regularizer_ablation")["regularizer"]
    tried = pd.DataFrame([of(record["config"]) for record in read_index(tmp_path / "discrete")]).groupby(0)[1]
    assert set(tried.nunique()) == {3} and set(tried.size()) == {6} and len(tried) == 10
    assert "DR3" in shown and "spectral norm" in shown and "cartpole, 20 updates, 2 seeds" in shown


def test_the_suite_then_what_would_be_chosen_without_playing(
    cartpole: str, cluster: str, tmp_path: Path, capsys: Any
) -> None:
    suite = ["--dataset", cartpole, "--scale", "smoke", "--coefficients", "0.01,0.03"]
    assert run("paper_suite", *suite, *TINY, "--out", str(tmp_path)) == 0
    assert "REM + DR3" in capsys.readouterr().out
    assert statuses(tmp_path / "discrete") == {"finished": 12}
    assert run("offline_selection", str(tmp_path / "discrete"), "--fqe-steps", "30") == 0
    shown = capsys.readouterr().out
    assert "DR3-CQL on cartpole" in shown and "fitted Q evaluation" in shown and "regret@1" in shown
    chosen = pd.read_csv(tmp_path / "discrete" / "selection.csv")
    assert len(chosen) == 12 and chosen[["start_value", "fqe", "episode_return_mean"]].notna().all(axis=None)


@pytest.mark.parametrize(
    ("given", "dropped"),
    [
        ([], set()),
        (["--trials", "8"], {"--trials"}),
        (["--trials=8", "--out", "x"], {"--trials", "--out"}),
        (["--axis", "gamma=0.9,0.99"], set()),
        (["--axis", "critic_lr=0.1,0.2"], {"--axis"}),
        (["--axis=critic_lr=0.1"], {"--axis"}),
        (["--point", '{"dr3_coeff": 1}'], set()),
    ],
)
def test_what_is_given_to_the_search_stands_instead_of_its_own(given, dropped):
    script = runpy.run_path(str(SWEEPS / "optuna_search.py"))
    words = script["space_beside"](given)
    assert set(words[::2]) == set(script["SPACE"]) - dropped
    assert all(script["SPACE"][name] == value for name, value in zip(words[::2], words[1::2], strict=True))
