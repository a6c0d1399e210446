"""`dr3-ray evaluate`: the returns are those of the episodes of these seeds, and all of them are kept."""

import os
import sys

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from dr3_ray import load_policy
from dr3_ray.cli.app import main
from dr3_ray.policies.playing import AT_A_TIME


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(each) for each in arguments])
    return int(end.value.code or 0)


def by_hand(policy, seed: int) -> tuple[float, int]:
    environment = gym.make("CartPole-v1")
    observation, over, total, length = environment.reset(seed=seed)[0], False, 0.0, 0
    while not over:
        observation, reward, *ends, _ = environment.step(policy.act(observation))
        total, length, over = total + reward, length + 1, any(ends)
    return total, length


@pytest.mark.slow
def test_every_return_is_kept(run, tmp_path, capsys):
    episodes, file = AT_A_TIME + 3, tmp_path / "new" / "returns.parquet"
    assert command("evaluate", run, "--episodes", episodes, "--seed", 7, "--every-return", file) == 0
    out, error = capsys.readouterr()
    kept = pd.read_parquet(file)
    policy = load_policy(run)
    wanted = [by_hand(policy, seed) for seed in range(7, 7 + episodes)]
    assert kept["seed"].tolist() == list(range(7, 7 + episodes))
    assert list(zip(kept["episode_return"], kept["length"], strict=True)) == wanted
    mean = np.mean([each for each, _ in wanted])
    assert out.startswith(f"return {mean:.4g} (95% interval ")
    assert f"over {episodes} episodes of seeds 7 to {6 + episodes}" in out
    assert "of 2 configurations the one with the best episode_return_mean" in error


class Pictured(CartPoleEnv):
    """CartPole whose pictures need no window: the cart is where it is."""

    def render(self):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:, int(32 + 10 * self.state[0]) % 64] = 255
        return picture


@pytest.fixture
def pictured():
    gym.register("Pictured-v0", Pictured, max_episode_steps=500)
    yield "Pictured-v0"
    del gym.registry["Pictured-v0"]


@pytest.mark.slow
def test_first_episodes_become_videos(run, tmp_path, capsys, pictured):
    asked = ["--episodes", 4, "--where", "seed=1", "--env", pictured]
    assert command("evaluate", run, *asked, "--video", tmp_path / "films") == 0
    films = sorted(path.name for path in (tmp_path / "films").glob("*.mp4"))
    assert [name.partition("-episode")[0] for name in films] == ["seed-0", "seed-1", "seed-2"]
    assert all(path.stat().st_size > 1000 for path in (tmp_path / "films").glob("*.mp4"))
    again = capsys.readouterr().out
    assert command("evaluate", run, *asked) == 0
    assert again.startswith(capsys.readouterr().out)


@pytest.mark.spread(2)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--env", "Nothing-v7"], "environment 'Nothing-v7' cannot be made"),
        (["--env", "Pendulum-v1"], "environment Pendulum-v1 has observations"),
        (["--env", "minatar:breakout", "--video", "x"], "minatar:breakout draws no pictures: leave out the video"),
        (["--video", "films"], "videos cannot be made (DependencyNotInstalled: pygame is not installed"),
        (["--member", "zz"], "0 members of"),
        (["--member", "best", "--where", "seed"], "'seed' is not of the form OPTION=VALUE"),
        (["--member", "ab", "--where", "seed=1"], "--member ab and --where name members in two ways"),
        (["--every-return", "/proc/nothing/x"], "/proc/nothing/x cannot be written"),
        (["--every-return", "returns/"], "returns/ is a folder's name: give that of a file in it"),
        (["--video", __file__], f"{__file__} is no folder for videos (File exists): give another --video"),
        (["--video", "/proc/nothing"], "/proc/nothing is no folder for videos"),
        (["--env", " "], "an empty name is no environment"),
        (["--seed", str(2**32)], "Invalid value for '--seed'"),
    ],
)
def test_mistakes_are_one_line(run, words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("evaluate", run, "--episodes", 1, *words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {said}")
    assert not [path for path in tmp_path.iterdir() if path.name != "films"]


@pytest.mark.parametrize("words", [["evaluate", "--episodes", 1, "--every-return"], ["export", "--to", "pt2", "--out"]])
def test_a_pipe_is_not_replaced_by_a_file(run, words, capsys, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert command(words[0], run, *words[1:], pipe) == 2
    assert f"{pipe} cannot be written (it is a pipe or a device): give another {words[-1]}" in capsys.readouterr().err
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_an_environment_without_its_package_names_the_extra(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, name)
    assert command("evaluate", run, "--env", "HalfCheetah-v5") == 2
    assert (
        "'HalfCheetah-v5' needs a package that is not installed: pip install 'dr3-ray[mujoco]'"
        in capsys.readouterr().err
    )
