"""Collecting: any environment with a small learner, the recipes shortened; and the data sets that ship."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import MultiBinary, MultiDiscrete

from dr3_ray import load_dataset, load_policy
from dr3_ray.algorithms.registry import find
from dr3_ray.cli.app import main
from dr3_ray.data import Dataset, to_env_actions, verify
from dr3_ray.data.spaces import training_spaces
from dr3_ray.errors import UserError
from dr3_ray.evaluation.contract import Recorded
from dr3_ray.evaluation.online import Learning
from dr3_ray.evaluation.quality import Check, reached
from dr3_ray.evaluation.recipes import RECIPES
from dr3_ray.runs.plain import write_plain
from dr3_ray.training.member import Member, build_networks
from dr3_ray.training.saved import NAME, PLACE, PREFIX, description

EMBEDDED = [name for name in RECIPES if name.startswith("embedded:")]


def collect(source: str, out: Path, steps: int) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    command = [sys.executable, "-m", "dr3_ray", "data", "collect", source, "--out", str(out), "--steps", str(steps)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_writes_what_was_played_and_repeats_itself(tmp_path: Path) -> None:
    assert collect("embedded:pendulum-replay", tmp_path / "a", 1250).returncode == 0
    first = load_dataset(str(tmp_path / "a"))
    second = collected(tmp_path / "b", "embedded:pendulum-replay", "--steps", "1250")
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
    data = collected(tmp_path / "out", "embedded:breakout-replay", "--steps", "5300")
    assert 0.08 * 5300 < len(data) < 0.12 * 5300 and not data.manifest.complete_episodes
    assert data.observation_space.dtype == "bool" and data.manifest.environment == "minatar:breakout"


@pytest.mark.slow
def test_medium_is_what_the_policy_plays_after_the_learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log where it runs
    data = collected(tmp_path / "medium", "halfcheetah-medium", "--steps", "1010")
    assert data.manifest.name == "halfcheetah-medium" and data.manifest.environment == "gymnasium:HalfCheetah-v5"
    assert data.manifest.provenance.source.startswith("1010 steps of the policy of an online")
    assert len(data) == 1010 and data.manifest.counts.terminateds == 0
    rows = data.gather(torch.arange(1010), ["actions", "timesteps"])
    assert rows["timesteps"].tolist() == [*range(1000), *range(10)]
    # nothing of the learning is in the data
    recipe = replace(RECIPES["halfcheetah-medium"], steps=1010, policy_steps=0)
    course = Learning(recipe)
    course.learn()
    learning = course.replay.numbers["actions"]
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


TINY = ("--set", "hidden_sizes=[8]", "--set", "batch_size=8")


def collected(out: Path, *words: str) -> Dataset:
    """Collect in this process, with a network of a few numbers where something is learned."""
    with pytest.raises(SystemExit) as end:
        main(["data", "collect", *words, "--out", str(out)])
    assert not end.value.code
    return load_dataset(str(out))


@pytest.mark.parametrize(
    "environment, learner",
    [("CartPole-v1", "dqn"), ("gymnasium:Pendulum-v1", "sac"), ("minatar:asterix", "random")],
)
def test_any_environment_and_the_learner_of_its_actions(environment: str, learner: str, tmp_path: Path) -> None:
    sets = () if learner == "random" else (*TINY, "--set", "warm_up=0.03k")
    given = ("--learner", learner) if learner == "random" else ()  # the others are chosen by the space
    data = collected(tmp_path / "a", environment, *given, "--steps", "60", *sets)
    again = collected(tmp_path / "b", environment, "--learner", learner, "--steps", "60", *sets)
    other = collected(tmp_path / "c", environment, "--learner", learner, "--steps", "60", "--seed", "1", *sets)
    assert data.fingerprint == again.fingerprint != other.fingerprint
    assert len(data) == 60 and data.manifest.complete_episodes
    assert data.manifest.environment == (environment if ":" in environment else f"gymnasium:{environment}")
    verify(data)
    assert learner in data.manifest.name


def test_what_is_kept_are_rows_of_the_whole(tmp_path: Path) -> None:
    whole = collected(tmp_path / "whole", "CartPole-v1", "--learner", "random", "--steps", "200")
    part = collected(tmp_path / "part", "CartPole-v1", "--learner", "random", "--steps", "200", "--keep", "0.2")
    assert 20 <= len(part) <= 60 and not part.manifest.complete_episodes
    rows = [data.gather(torch.arange(len(data)), ["observations"])["observations"] for data in (whole, part)]
    known = {row.numpy().tobytes() for row in rows[0]}
    assert all(row.numpy().tobytes() in known for row in rows[1])


def test_parts_of_observations_and_combinations_of_actions(tmp_path: Path) -> None:
    """As they are evaluated: a Dict of bytes and float64, MultiDiscrete and MultiBinary actions."""
    for kind, action_space in (("many", MultiDiscrete([3, 2])), ("flags", MultiBinary(2))):
        name = f"Collected{kind}-v0"
        gym.register(name, entry_point=lambda space=action_space: Parts(space), max_episode_steps=5)
        try:
            data = collected(tmp_path / kind, name, "--steps", "40", *TINY, "--set", "warm_up=20")
        finally:
            del gym.registry[name]
        rows = data.gather(torch.arange(40), ["observations", "actions", "rewards"])
        assert rows["observations"]["eye"].dtype == torch.uint8 and rows["observations"]["touch/skin"].shape == (40, 2)
        # the reward is the sum of the action that the environment was given
        assert to_env_actions(data.action_space, rows["actions"].numpy()).sum(1).tolist() == rows["rewards"].tolist()
        assert len(set(rows["actions"].tolist())) > 2


class Parts(gym.Env):
    """An environment with parts, one of them bytes, in one array that every step changes."""

    def __init__(self, action_space: gym.Space) -> None:
        skin = gym.spaces.Box(-1, 1, (2,), np.float64)
        eye = gym.spaces.Box(0, 255, (4,), np.uint8)
        self.observation_space = gym.spaces.Dict({"touch": gym.spaces.Dict({"skin": skin}), "eye": eye})
        self.action_space = action_space
        self.state = np.zeros(2)

    def observation(self) -> dict:
        return {"touch": {"skin": self.state}, "eye": np.full(4, 3, np.uint8)}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.state[:] = self.np_random.uniform(-1, 1, 2)
        return self.observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.state[:] = self.np_random.uniform(-1, 1, 2)
        return self.observation(), float(np.sum(action)), False, False, {}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of players in the folder from which the command is given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "its_players.py").write_text(
        "import numpy as np\n"
        "calls = 0\n"
        "def left(observation): return 0\n"
        "def leaning(observation): return int(observation[2] > 0)\n"
        "def far(observation): return 2\n"
        "def half(observation): return 0.5\n"
        "def lists(observation): return [0]\n"
        "def late(observation):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    return np.array([np.nan if calls == 8 else 0.5], np.float32)\n"
        "def fails(observation): return observation['nothing']\n"
        "number = 3\n"
    )
    yield "its_players"
    sys.modules.pop("its_players", None)


def test_a_function_of_the_user_plays(module: str, tmp_path: Path) -> None:
    data = collected(tmp_path / "out", "CartPole-v1", "--learner", f"{module}:leaning", "--steps", "100")
    rows = data.gather(torch.arange(100), ["observations", "actions"])
    assert torch.equal(rows["actions"], (rows["observations"][:, 2] > 0).long())
    assert data.manifest.provenance.source == f"100 steps of {module}:leaning on gymnasium:CartPole-v1"
    assert data.manifest.name == "CartPole-v1-leaning"


WRONG_PLAYERS = {
    "out of bounds": ("CartPole-v1", "far", "its_players:far at step 0: action 2 is outside"),
    "no integer": ("CartPole-v1", "half", "have to be integers"),
    "shape": ("CartPole-v1", "lists", "gives an action of shape (1,)"),
    "NaN": ("Pendulum-v1", "late", "at step 7: an action is NaN"),
    "an exception": ("CartPole-v1", "fails", "at step 0 raises IndexError"),
    "not there": ("CartPole-v1", "nobody", "nobody"),
    "no function": ("CartPole-v1", "number", "is a int"),
}


@pytest.mark.parametrize("environment, name, says", WRONG_PLAYERS.values(), ids=WRONG_PLAYERS)
def test_what_a_function_returns_is_checked_and_nothing_is_left(
    environment: str, name: str, says: str, module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [environment, "--learner", f"{module}:{name}", "--steps", "50", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        main(["data", "collect", *words])
    line = capsys.readouterr().err
    assert end.value.code == 2 and line.count("\n") == 1 and says in line, line
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("out", ".out"))]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of an untrained CQL on Pendulum's data."""
    data = load_dataset("embedded:pendulum-replay")
    spec, spaces = find("DR3-CQL", "continuous"), training_spaces(data.observation_space, data.action_space)
    member = Member.from_dict(spec, {"hidden_sizes": [8]})
    networks = build_networks(spec, spaces, [member])
    config = {"algorithm": "DR3-CQL", "members": [member.to_dict()], "observation_statistics": None}
    described = description(config | {"recorded": Recorded.of(data).to_dict()}, spaces)
    state = {f"{PREFIX}{name}": values for name, values in networks.state_dict().items()}
    (tmp_path / "checkpoint" / PLACE).mkdir(parents=True)
    write_plain(tmp_path / "checkpoint" / PLACE, NAME, {"description": described, "state": state})
    return tmp_path / "checkpoint"


def test_a_trained_policy_plays_as_it_acts(checkpoint: Path, tmp_path: Path) -> None:
    policy, words = load_policy(checkpoint), ("Pendulum-v1", "--learner", str(checkpoint), "--steps", "50")
    data = collected(tmp_path / "a", *words)
    rows = data.gather(torch.arange(50), ["observations", "actions"])
    played = to_env_actions(data.action_space, rows["actions"].numpy())
    np.testing.assert_allclose(played, policy.act(rows["observations"].numpy()), atol=1e-5)
    assert "of a checkpoint" in data.manifest.provenance.details["policy"]
    drawn = [collected(tmp_path / name, *words, "--set", "sample=true") for name in "bc"]
    assert drawn[0].fingerprint == drawn[1].fingerprint != data.fingerprint


LEARNING = [Check(0, -10.0), Check(10, 5.0), Check(20, -4.0), Check(30, 1.0), Check(40, 20.0)]


def test_medium_is_a_third_of_the_way_from_a_random_policy_to_the_expert() -> None:
    place, details = reached("medium", LEARNING, None, warm_up=10)
    assert place == 3  # the first of at least 0, after the warm-up, whose policy was random
    assert details["reached"] == (
        "return 1 of the policy after 30 steps; asked for 0, a third of the way from -10 to 20"
    )
    assert reached("medium-replay", LEARNING, -5.0, warm_up=10).place == 2
    assert reached("expert", LEARNING, None, warm_up=10).place == 4


@pytest.mark.parametrize(
    "quality, checks, wanted, says",
    [
        ("expert", [Check(0, 3.0), Check(10, 3.0)], None, "nothing is expert here"),
        ("medium", [Check(0, 3.0), Check(10, 2.0)], None, "nothing is medium here"),
        ("medium", LEARNING, 21.0, "the best was 20 after 40 steps"),
        ("medium", [Check(0, 0.0), Check(20, 1.0), Check(30, 9.0)], None, "none between them"),
        ("medium", [Check(0, 0.0), Check(20, 10.0), Check(30, 9.0)], None, "none between them"),
    ],
)
def test_data_that_did_not_reach_a_quality_do_not_get_its_name(
    quality: str, checks: list[Check], wanted: float | None, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        reached(quality, checks, wanted, warm_up=10)


class Better(gym.Env):
    """Five steps whose reward is the action: a random policy's return is 2.5, the best one's 5."""

    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.np_random.random(2, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.np_random.random(2, np.float32), float(action), False, False, {}


@pytest.fixture
def better() -> Iterator[str]:
    gym.register("Better-v0", entry_point=Better, max_episode_steps=5)
    yield "Better-v0"
    del gym.registry["Better-v0"]


def test_the_qualities_of_one_learner(better: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (better, "--steps", "150", *TINY, "--set", "warm_up=30", "--set", "critic_lr=0.03")
    replay, expert = (collected(tmp_path / name, *words, "--quality", name) for name in ("replay", "expert"))
    assert len(expert) == 150 and expert.manifest.name == "Better-v0-dqn-expert"
    assert replay.manifest.name == "Better-v0-dqn-replay"
    told = expert.manifest.provenance.details["reached"]
    assert (
        told.startswith("return 5 of the policy after all 150 steps") and f"expert: {told}" in capsys.readouterr().out
    )
    actions = [data.gather(torch.arange(150), ["actions"])["actions"].float() for data in (replay, expert)]
    assert actions[0].mean() < actions[1].mean() > 0.9
    checks = ("--set", "checks=5", "--medium-return", "0")  # the first policy that learned has that
    medium = collected(tmp_path / "medium", *words, "--quality", "medium", *checks)
    until = collected(tmp_path / "until", *words, "--quality", "medium-replay", *checks)
    assert "of the policy after 60 steps" in medium.manifest.provenance.details["reached"]
    assert len(medium) == 150 and len(until) == 60
    assert torch.equal(until.gather(torch.arange(60), ["actions"])["actions"].float(), actions[0][:60])
    assert until.manifest.statistics["episode_returns"].max <= 5


REFUSED = {
    "a preset that is none": (["embedded:nothing"], "embedded:nothing"),
    "an environment that is none": (["minari:x"], "cannot be made"),
    "no such learner": (["CartPole-v1", "--learner", "ppo"], "ppo"),
    "continuous actions": (["Pendulum-v1", "--learner", "dqn"], "dqn plays discrete actions"),
    "discrete actions": (["CartPole-v1", "--learner", "sac"], "sac plays continuous actions"),
    "a preset has its own": (["embedded:pendulum-replay", "--learner", "sac"], "has its own learner"),
    "no such option": (["CartPole-v1", "--set", "batchsize=3"], "batch_size"),
    "an option of the random one": (["CartPole-v1", "--learner", "random", "--set", "batch_size=3"], "no option"),
    "an option of nobody": (["CartPole-v1", "--learner", "its.module:f", "--set", "batch_size=3"], "no options"),
    "a path that is not there": (["CartPole-v1", "--learner", "./runs/none"], "no learner"),
    "no such quality": (["CartPole-v1", "--quality", "good"], "good"),
    "a quality of a recipe": (["embedded:pendulum-replay", "--quality", "medium"], "recipe as it is"),
    "a quality of a random learner": (["CartPole-v1", "--learner", "random", "--quality", "expert"], "learns nothing"),
    "medium of a replay": (["CartPole-v1", "--medium-return", "3"], "give --quality medium"),
    "a return that is too high": (
        ["CartPole-v1", "--quality", "medium", "--medium-return", "501", *TINY, "--set", "warm_up=5"],
        "the return 501",
    ),
    "checks of a replay": (["CartPole-v1", "--set", "checks=3"], "leave out checks"),
    "several steps": (["CartPole-v1", "--set", "n_step=3"], "n_step=1 alone"),
    "no rows": (["CartPole-v1", "--keep", "0"], "above 0"),
    "no columns": (["Taxi-v3"], "have to be a Box"),
    "no such game": (["minatar:chess"], "chess"),
}


@pytest.mark.parametrize("words, says", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_collected_is_one_line(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["data", "collect", *words, "--out", str(tmp_path / "out"), "--steps", "10"])
    line = capsys.readouterr().err
    assert end.value.code == 2 and line.count("\n") == 1 and says in line, line
    assert not list(tmp_path.iterdir())
