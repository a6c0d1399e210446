"""The studies at their smallest, through their command lines."""

import importlib
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from dr3_ray.algorithms.registry import ALGORITHMS
from dr3_ray.cli.app import main

pytestmark = pytest.mark.smoke
STUDIES = Path(__file__).parents[2] / "studies"
Reproduced = Callable[[str, Path], tuple[str, str]]


class Done(NamedTuple):
    """What became of a command."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Do what a command does, in this process, until it exits."""

    def run(command: Callable[[], object], *words: str) -> Done:
        monkeypatch.setattr(sys, "argv", list(words))
        monkeypatch.setattr(sys, "path", [str(STUDIES), *sys.path])  # as Python has it of a script
        with pytest.raises(SystemExit) as end:
            command()
        return Done(int(end.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def run(ended: Callable[..., Done]) -> Callable[..., Done]:
    """Run a script of the studies: its name, where to, and other words."""

    def script(name: str, out: Path, *words: str) -> Done:
        path = str(STUDIES / name)
        return ended(lambda: runpy.run_path(path, run_name="__main__"), path, "--out", str(out), *words)

    return script


def test_ours_run_without_corl(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("against_corl.py", tmp_path)
    assert done.code == 0, done.stderr
    rows = json.loads((tmp_path / "against_corl.json").read_text())
    assert [row["algorithm"] for row in rows] == ["DR3-TD3BC", "DR3-IQL", "DR3-CQL", "DR3-ReBRAC"]
    for row in rows:
        scores = np.array(row["scores"]["dr3_ray"])
        assert scores.shape == (2, 2) and np.isfinite(scores).all()  # evaluations and seeds
        assert row["dr3_ray"].startswith(f"{scores[-1].mean():.1f} [")


def test_health_compares_flags_with_what_is_known(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("health.py", tmp_path)
    assert done.code == 0, done.stderr
    found = json.loads((tmp_path / "health.json").read_text())
    right = {name: share for name, _, _, share in found["rows"]}
    assert right["step size 1e30"] == right["nothing learned"] == right["step size 1"] == "1/1"
    assert found["of"] == len(right) and f"{found['right']} of {found['of']} verdicts are right" in done.stdout
    diagnoses = {name: share for name, _, _, share in found["diagnoses"]}
    assert diagnoses["step size 1e30"] == diagnoses["nothing learned"] == diagnoses["CQL on 300 rows"] == "1/1"
    assert f"{found['right_diagnoses']} of {found['of']} diagnoses are right" in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("learning.py", ["--scale", "pong"], "desk, full, smoke"),
        ("against_corl.py", ["--corl", "/nothing", "--algorithm", "DR3-IQL"], "no checkout of CORL"),
    ],
)
def test_a_mistake_is_one_line(
    script: str, arguments: list[str], says: str, run: Callable[..., Done], tmp_path: Path
) -> None:
    done = run(script, tmp_path, *arguments)
    assert done.code == 2 and says in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def reproduced(ended: Callable[..., Done], one_cpu: None) -> Reproduced:
    """Run a study at its smallest; return its answer and its page, whose every number is in the file beside it."""

    def reproduce(name: str, out: Path) -> tuple[str, str]:
        study, results = name.replace("-", "_"), out / "results"
        done = ended(main, "dr3-ray", "reproduce", name, "--scale", "smoke", "--out", str(out))
        assert done.code == 0, done.stderr
        page = (results / f"{study}.md").read_text()
        answer = done.stdout.partition("\n- ")[2].partition("\n\n")[0]
        assert answer and "".join(answer.split()) in "".join(page.split())  # a terminal breaks its lines
        assert (results / f"{study}.svg").read_text().startswith("<?xml")
        published = importlib.import_module("published").Published.read(results / f"{study}.parquet")
        assert importlib.import_module(study).page(published) == page
        return answer, page

    return reproduce


STUDIED = {"coadaptation": "| all rows | 2,000 | 1.00 |", "coadaptation_input": "TD with a drawn a'"}


@pytest.mark.parametrize("name", STUDIED)
def test_coadaptation_from_its_data_to_its_page(name: str, reproduced: Reproduced, tmp_path: Path) -> None:
    _, page = reproduced(name, tmp_path)
    assert page.startswith("# Does the dot product") and STUDIED[name] in page and "nan" not in page
    assert "SARSA" in (tmp_path / "results" / f"{name}.svg").read_text()


def test_what_minatar_games_train_is_what_selection_chooses_from(reproduced: Reproduced, tmp_path: Path) -> None:
    answer, page = reproduced("minatar_games", tmp_path / "minatar_games")
    assert page.startswith("# Does DR3 raise returns") and "nan" not in page
    assert answer.count("comparisons.") == 20  # of every claim, each on all held-out sets that it speaks of
    assert answer.count(", of 6") == 15 and page.count("| chosen |") == 8
    _, page = reproduced("selection", tmp_path / "selection")
    assert "Over 9 pairs of learner and set" in page and not (tmp_path / "selection" / "tuning").exists()


def test_mazes_from_their_data_to_their_page(reproduced: Reproduced, tmp_path: Path) -> None:
    answer, page = reproduced("mazes", tmp_path)
    assert page.startswith("# Does DR3 help CQL in mazes") and "nan" not in page
    assert " ".join(answer.split()).count(", of 4 comparisons.") == 7 and page.count("| chosen |") == 2


def test_the_implicit_regularizer_from_its_gridworld_to_its_page(reproduced: Reproduced, tmp_path: Path) -> None:
    answer, page = reproduced("implicit-regularizer", tmp_path)
    assert page.startswith("# Does label noise move") and "nan" not in page and answer.count("comparisons.") == 10


def test_learning_compares_everything_that_acts_with_behaviour_cloning(reproduced: Reproduced, tmp_path: Path) -> None:
    _, page = reproduced("learning", tmp_path)
    assert page.startswith("# Does every algorithm learn more") and "nan" not in page
    for data, kind in (("Pendulum", "continuous"), ("Breakout", "discrete")):
        rows = [line.split(" | ") for line in page.splitlines() if line.startswith(f"| {data}")]
        able = {name for name, forms in ALGORITHMS.items() if kind in forms and forms[kind].act}
        named = {row[1] for row in rows}
        assert "BC" in named <= able and len(named) == {"Pendulum": 6, "Breakout": 10}[data]
    histories = pd.read_parquet(tmp_path / "results" / "learning.parquet")
    last = histories[(histories["data"] == "Pendulum") & (histories["step"] == histories["step"].max())]
    own, cloned = (
        last[last["algorithm"] == name].set_index("seed")["episode_return_mean"] for name in ("DR3-IQL", "BC")
    )
    row = next(line for line in page.splitlines() if line.startswith("| Pendulum | DR3-IQL"))
    assert f" | {(own - cloned).mean():.1f} [" in row and set(own.index) == {10, 11}
