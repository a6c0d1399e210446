"""`--json`: every command that answers something prints it as one document, too; and nothing else."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.trainable import PackTrainable
from dr3_ray.trust.text import json_value
from tests.cli.test_cli import COMMANDS, run
from tests.crash.untrained import InTurn
from tests.sweep.conftest import cartpole  # noqa: F401

ANSWERS = {  # how each is asked, and keys of its document; of a list, of its first entry
    "status RUN": ("name", "counts", "over"),
    "report RUN": ("statuses", "tables"),
    "select RUN --criteria td_error": ("choices", "candidates"),
    "diagnose RUN --where dr3_coeff=0.1": ("verdict", "probes"),
    "evaluate RUN --episodes 3 --seed 5": ("mean_return", "returns", "chosen"),
    "export RUN --to torchscript --out policy.pt": ("file", "card", "format"),
    "sweep --dataset DATA --dry-run --no-calibration": ("members", "structures", "seconds"),
    "reproduce": ("coadaptation", "selection"),
    "doctor": ("name", "status", "remedy"),
    "algorithms": ("name", "actions"),
    "options DR3-IQL": ("the algorithm",),
    "data info DATA": ("rows", "returns"),
    "data check DATA": ("rows", "warnings"),
    "data list": ("source", "rows"),
    "data verify DATA": ("rows", "fingerprint"),
    "data export DATA --to parquet --out rows.parquet": ("path", "rows", "reads"),
    "data cache": ("folder", "datasets"),
}
WITHOUT = {  # they train, write, bring or show something; what came of it is asked by one of the others
    "demo", "fetch", "serve", "data import", "data collect", "data plot",
    "schema",  # whose answer is JSON anyway
}  # fmt: skip


def command_of(asked: str) -> str:
    return next(" ".join(words) for words in COMMANDS if asked.split()[: len(words)] == list(words))


def document(capsys: Any) -> Any:
    """What was printed, which is JSON to the letter: NaN and infinities are none."""
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def trained(cartpole: str, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    out = tmp_path_factory.mktemp("document") / "run"
    asked = {"datasets": [cartpole], "coefficients": [0, 0.1], "seeds": 1, "steps": 20, "evaluations": 1}
    spec = SweepSpec(**asked, evaluation_episodes=1, options={"hidden_sizes": [8]}, concurrent=1, out=out)
    train_sweep(spec, trials=InTurn(pack=PackTrainable))
    return out


def test_every_command_answers_or_is_known_not_to():
    assert {" ".join(words) for words in COMMANDS} == set(map(command_of, ANSWERS)) | WITHOUT


@pytest.mark.parametrize("asked", ANSWERS)
def test_an_answer_is_one_document(asked, trained, cartpole, capsys, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DR3_RAY_CACHE", str(tmp_path / "cache"))
    words = [{"RUN": str(trained), "DATA": cartpole}.get(word, word) for word in asked.split()]
    assert run(*words, "--json") in ((0, 1) if asked == "doctor" else (0,))
    answer = document(capsys)
    assert set(ANSWERS[asked]) <= set(answer[0] if isinstance(answer, list) else answer)


def test_returns_are_those_of_the_file(trained, capsys, tmp_path):
    file = tmp_path / "returns.parquet"
    assert run("evaluate", str(trained), "--episodes", "4", "--seed", "7", "--every-return", str(file), "--json") == 0
    answer, kept = document(capsys), pd.read_parquet(file)
    assert answer["seeds"] == kept["seed"].tolist() == [7, 8, 9, 10]
    assert answer["returns"] == kept["episode_return"].tolist() and answer["lengths"] == kept["length"].tolist()
    assert answer["mean_return"]["value"] == pytest.approx(kept["episode_return"].mean())
    assert answer["mean_return"]["low"] <= answer["mean_return"]["value"] <= answer["mean_return"]["high"]
    assert answer["every_return"] == str(file) and answer["environment"] == "gymnasium:CartPole-v1"
    assert answer["config"]["dataset"] and answer["chosen"].startswith("of 2 configurations")


def test_one_episode_has_no_interval_in_it(trained, capsys):
    assert run("evaluate", str(trained), "--episodes", "1", "--json") == 0
    mean = document(capsys)["mean_return"]
    assert mean["n"] == 1 and mean["low"] is mean["high"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sweep --dataset DATA --json", "--json prints what --dry-run foresees: give --dry-run, too"),
        ("evaluate nowhere --json", "nowhere is neither a run directory nor a checkpoint"),
    ],
)
def test_a_mistake_stays_one_line(words, said, cartpole, capsys, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    assert run(*[cartpole if word == "DATA" else word for word in words.split()]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith(f"error: {said}") and not list(tmp_path.iterdir())


NUMBERS = st.floats() | st.integers() | st.booleans() | st.none() | st.text()
ARRAYS = st.lists(st.floats(width=32), max_size=3).map(lambda numbers: np.array(numbers, np.float32))
VALUES = st.recursive(
    NUMBERS | ARRAYS | ARRAYS.filter(len).map(lambda array: array[0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(VALUES)
def test_whatever_holds_numbers_is_json_and_finite_ones_stay(value):
    def same(given, printed):
        if isinstance(given, dict):
            return given.keys() == printed.keys() and all(same(given[name], printed[name]) for name in given)
        if isinstance(given, list | tuple) or getattr(given, "ndim", 0):
            return len(given) == len(printed) and all(map(same, given, printed))
        if isinstance(given, float | np.floating) and not math.isfinite(given):
            return printed is None
        return given == printed

    assert same(value, json.loads(json.dumps(json_value(value), allow_nan=False)))
