"""`dr3-ray evaluate`: the returns are those of the episodes of these seeds, and all of them are kept."""

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
    ],
)
def test_mistakes_are_one_line(run, words, said, capsys):
    assert command("evaluate", run, "--episodes", 1, *words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {said}")
