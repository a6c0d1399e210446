"""The recipes of the embedded data sets, shortened; and the data sets that ship."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dr3_ray import load_dataset
from dr3_ray.cli.app import main
from dr3_ray.data import verify
from dr3_ray.evaluation.collect import RECIPES, play
from dr3_ray.evaluation.environments import make_environment

EMBEDDED = [name for name in RECIPES if name.startswith("embedded:")]


def collect(source: str, out: Path, steps: int) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "dr3_ray",
        "data",
        "collect",
        source,
        "--out",
        str(out),
        "--steps",
        str(steps),
    ]
    # MuJoCo writes its log where it runs
    return subprocess.run(command, capture_output=True, text=True, cwd=out.parent)


@pytest.mark.slow
def test_the_command_writes_what_was_played_and_repeats_itself(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert collect("embedded:pendulum-replay", tmp_path / name, 1250).returncode == 0
    first, second = load_dataset(str(tmp_path / "a")), load_dataset(str(tmp_path / "b"))
    assert first.fingerprint == second.fingerprint
    assert len(first) == 1250 and first.manifest.counts.episodes == 7  # six of 200 steps, and 50 that were cut
    assert first.manifest.counts.truncateds == 7 and first.manifest.counts.terminateds == 0
    rows = first.gather(torch.arange(1250), ["actions", "next_observations", "observations", "next_actions_valid"])
    assert rows["actions"].abs().max() <= 1.0
    inside = rows["next_actions_valid"][:-1]
    assert torch.equal(rows["next_observations"][:-1][inside], rows["observations"][1:][inside])
    assert "--steps 1250" in first.manifest.provenance.command


@pytest.mark.slow
def test_breakout_keeps_a_uniform_tenth(tmp_path: Path) -> None:
    done = collect("embedded:breakout-replay", tmp_path / "out", 5300)
    assert done.returncode == 0, done.stderr
    data = load_dataset(str(tmp_path / "out"))
    assert 0.08 * 5300 < len(data) < 0.12 * 5300 and not data.manifest.complete_episodes
    assert data.observation_space.dtype == "bool" and data.manifest.environment == "minatar:breakout"


@pytest.mark.slow
def test_medium_is_what_the_policy_plays_after_the_learning(tmp_path: Path) -> None:
    done = collect("halfcheetah-medium", tmp_path / "medium", 1010)
    assert done.returncode == 0, done.stderr
    data = load_dataset(str(tmp_path / "medium"))
    assert data.manifest.name == "halfcheetah-medium" and data.manifest.environment == "gymnasium:HalfCheetah-v5"
    assert data.manifest.provenance.source.startswith("1010 steps of the policy of an online")
    assert len(data) == 1010 and data.manifest.counts.terminateds == 0
    rows = data.gather(torch.arange(1010), ["actions", "timesteps"])
    assert rows["timesteps"].tolist() == [*range(1000), *range(10)]
    # nothing of the learning is in the data
    recipe = replace(RECIPES["halfcheetah-medium"], steps=1010, policy_steps=0)
    learning = np.concatenate(
        [episode["actions"] for episode in play(make_environment(recipe.environment), recipe, data.action_space)]
    )
    assert len(learning) == 1010
    assert not {action.tobytes() for action in learning} & {action.tobytes() for action in rows["actions"].numpy()}


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_embedded_data_sets_are_whole_small_and_say_how_they_were_made(name: str) -> None:
    data = load_dataset(name)
    verify(data)
    assert re.fullmatch(rf"dr3-ray data collect {name} --out \S+", data.manifest.provenance.command)
    assert data.manifest.environment == RECIPES[name].environment
    steps = RECIPES[name].steps * RECIPES[name].keep
    assert len(data) == pytest.approx(steps, rel=0.05)


def test_the_embedded_data_sets_are_under_six_megabytes_together() -> None:
    paths = [load_dataset(name).path for name in EMBEDDED]
    assert sum(file.stat().st_size for path in paths for file in path.iterdir()) < 6_000_000


@pytest.mark.parametrize("source", ["embedded:nothing", "minari:x"])
def test_what_cannot_be_collected_is_one_line(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["data", "collect", source, "--out", str(tmp_path / "out"), "--steps", "10"])
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()
