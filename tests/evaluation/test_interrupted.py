"""A collection that is interrupted goes on from its last checkpoint, to the rows of one that is not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from dr3_ray.cli.app import main
from dr3_ray.data import load_dataset, verify
from dr3_ray.data.leftovers import leftovers
from dr3_ray.data.schema import MANIFEST, PARTIAL
from dr3_ray.data.targets import Target
from dr3_ray.errors import UserError
from dr3_ray.evaluation.collect import collect
from dr3_ray.evaluation.journal import FOLDER
from dr3_ray.evaluation.online import Player
from dr3_ray.evaluation.recipes import recipe_of
from dr3_ray.process.folders import CACHE
from tests.room import files_up_to

TINY = {"hidden_sizes": [8], "batch_size": 8, "warm_up": 30}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))


class Short(gym.Env):
    """Episodes of ten steps or so, whose rewards are the actions; `kept` counts on from episode to episode."""

    observation_space = gym.spaces.Dict({"seen": gym.spaces.Box(-1, 1, (3,), np.float64)})
    action_space = gym.spaces.Discrete(3)
    keeps = False

    def __init__(self) -> None:
        self.kept = 0.0

    def _seen(self) -> dict:
        return {"seen": np.append(self.np_random.uniform(-1, 1, 2), self.kept)}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.kept += self.keeps / 1000
        return self._seen(), {}

    def step(self, action: np.int64) -> tuple[dict, float, bool, bool, dict]:
        return self._seen(), float(action), bool(self.np_random.random() < 0.1), False, {}


class Pushed(Short):
    action_space = gym.spaces.Box(-1, 1, (2,))

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        return super().step(action.sum())


class Keeping(Short):
    keeps = True


class Unseeded(Short):
    """Says nothing twice, whatever its seed is."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        return super().reset()


@pytest.fixture(autouse=True)
def environments() -> Iterator[None]:
    made = {"Short-v0": Short, "Keeping-v0": Keeping, "Pushed-v0": Pushed, "Unseeded-v0": Unseeded}
    for name, entry in made.items():
        gym.register(name, entry_point=entry, max_episode_steps=25)
    yield
    for name in made:
        del gym.registry[name]


def contents(folder: Path) -> dict:
    """All files, and of the manifest all but when it was written."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = json.loads(found[MANIFEST])
    del manifest["provenance"]["created"], manifest["digests"]["manifest"]
    return found | {MANIFEST: manifest}


def interrupted(recipe, out: Path, at: list[int], player: Player | None = None) -> None:
    """Collect, interrupted at these steps, each time that they are reached."""
    for step in at:
        with pytest.raises(KeyboardInterrupt):
            collect(recipe, out, told=stop_at(step), player=player, seconds=0)
        assert not (out / MANIFEST).exists()
    collect(recipe, out, player=player, seconds=0)


def stop_at(step: int) -> Callable[[int, float | None], None]:
    """What interrupts a collection that plays this step."""

    def stop(steps: int, gained: float | None) -> None:
        if steps >= step:
            raise KeyboardInterrupt

    return stop


COLLECTED: dict[str, tuple[str, dict, Callable[[], Player] | None]] = {
    "dqn": ("Short-v0", {"settings": TINY}, None),
    "sac, dropout and normal observations": (
        "Pushed-v0",
        {"settings": TINY | {"normalize_observations": True, "critic_dropout": 0.1}},
        None,
    ),
    "medium": ("Short-v0", {"settings": TINY | {"checks": 10}, "quality": "medium", "medium_return": 0.1}, None),
    "expert": ("Short-v0", {"settings": TINY | {"checks": 4}, "quality": "expert"}, None),
    "a tenth of random actions": ("Short-v0", {"learner": "random", "keep": 0.1}, None),
    "a player": ("Short-v0", {"player": "me"}, lambda: Player("me", "me", lambda environment, episode: leaning)),
    "an environment that keeps something": ("Keeping-v0", {"settings": TINY}, None),
    "the same and random actions": ("Keeping-v0", {"learner": "random"}, None),
}


LONG = ("sac, dropout and normal observations", "expert", "an environment that keeps something")


def leaning(observation: dict) -> int:
    return int(observation["seen"][0] > 0)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("where", ["a new folder", pytest.param("an empty folder", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("environment", "how", "player"),
    [
        pytest.param(*values, id=name, marks=[pytest.mark.slow] if name in LONG else [])
        for name, values in COLLECTED.items()
    ],
)
def test_the_rows_are_those_of_an_uninterrupted_collection(
    environment: str, how: dict, player: Callable[[], Player] | None, where: str, tmp_path: Path
) -> None:
    recipe, plays = recipe_of(environment, steps=130, **how), player and player()
    collect(recipe, tmp_path / "whole", player=plays)
    if where == "an empty folder":
        (tmp_path / "out").mkdir()
    interrupted(recipe, tmp_path / "out", [100, 100], plays)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not list(tmp_path.rglob(f"*{PARTIAL}")) and leftovers() == []
    verify(load_dataset(str(tmp_path / "out")))


def test_what_was_played_is_not_learned_from_again(tmp_path: Path) -> None:
    """It goes on from the last episode that ended."""
    recipe, told = recipe_of("Short-v0", steps=300, learner="random"), list[int]()
    with pytest.raises(KeyboardInterrupt):
        collect(recipe, tmp_path / "out", told=stop_at(200), seconds=0)
    collect(recipe, tmp_path / "out", told=lambda steps, gained: told.append(steps), seconds=0)
    assert 175 < told[0] < 200 and told[1:] == [200, 300]


def test_without_a_checkpoint_it_begins_again(tmp_path: Path) -> None:
    recipe = recipe_of("Short-v0", "random", steps=300)
    with pytest.raises(KeyboardInterrupt):
        collect(recipe, tmp_path / "out", told=stop_at(200))  # sooner than ten seconds
    collect(recipe, tmp_path / "out")
    collect(recipe, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_another_recipe_begins_anew_and_leaves_the_first_where_it_was(tmp_path: Path) -> None:
    recipe = recipe_of("Short-v0", "random", steps=300)
    with pytest.raises(KeyboardInterrupt):
        collect(recipe, tmp_path / "out", told=stop_at(200), seconds=0)
    other = replace(recipe, seed=1)
    collect(other, tmp_path / "out", seconds=0)
    collect(other, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    (left,) = leftovers()
    assert list(left.path.glob(f"{FOLDER}/at-*"))


def test_an_environment_that_ignores_its_seed_is_told(tmp_path: Path) -> None:
    recipe = recipe_of("Unseeded-v0", "random", steps=300)
    with pytest.warns(UserWarning, match=r"not-repeated: environment Unseeded-v0 .* interrupted after 2?9?\d+ steps"):
        interrupted(recipe, tmp_path / "out", [200])
    data = load_dataset(str(tmp_path / "out"))
    assert len(data) == 300 and "not-repeated" in data.manifest.provenance.notes[0]


@pytest.mark.parametrize("damage", ["state.json", "state.safetensors", "column-0"])
def test_a_damaged_checkpoint_is_one_line_that_says_what_to_remove(damage: str, tmp_path: Path) -> None:
    recipe = recipe_of("Short-v0", "random", steps=300)
    with pytest.raises(KeyboardInterrupt):
        collect(recipe, tmp_path / "out", told=stop_at(200), seconds=0)
    (left,) = leftovers()
    (file,) = left.path.rglob(damage)
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(UserError, match=f"in {left.path / FOLDER} is damaged .*: remove that folder"):
        collect(recipe, tmp_path / "out")


def test_two_at_once_whatever_they_write(tmp_path: Path) -> None:
    """The second one is refused at its beginning; in an existing folder too."""
    recipe = recipe_of("Short-v0", learner="random", steps=100)
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "out", tmp_path / "empty"):

        def second(steps: int, gained: float | None, out: Path = out) -> None:
            for other in (recipe, replace(recipe, seed=1)):
                with pytest.raises(UserError, match=r"another process is writing to .*: wait for it, or end it"):
                    collect(other, out, told=lambda *_: pytest.fail("it began"))
            with pytest.raises(UserError, match="another process is writing to"):
                Target(out).open()

        collect(recipe, out, told=second)
        assert sorted(path.name for path in out.iterdir()) == ["episodes.arrow", MANIFEST, "shard-00000.arrow"]
    assert leftovers() == [] and not list(tmp_path.rglob(f"*{PARTIAL}"))


def test_a_full_disk_is_one_line_with_the_command_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data", "collect", "Short-v0", "--steps", "300", "--out", str(tmp_path / "out")]
    words += ["--learner", "random"]
    monkeypatch.setattr(sys, "argv", ["dr3-ray", *words])
    with files_up_to(3000), pytest.raises(SystemExit) as end:
        main(words)
    line = capsys.readouterr().err
    assert end.value.code == 2 and line.count("\n") == 1, line
    assert f"make room, and `dr3-ray {' '.join(words[:5])}" in line and "` goes on where it was" in line
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code and len(load_dataset(str(tmp_path / "out"))) == 300


# A process forks one child after the other. Each collects, and kills itself before its n-th change of a folder.
KILLED = """
import os, random, signal, sys
import gymnasium
from pathlib import Path
from dr3_ray.evaluation.collect import collect
from dr3_ray.evaluation.recipes import recipe_of

out, seed = Path(sys.argv[1]), int(sys.argv[2])
settings = {"hidden_sizes": [8], "batch_size": 8, "warm_up": 20, "checks": 5}
recipe = recipe_of("CartPole-v1", steps=100, settings=settings, quality="expert")
draw = random.Random(seed)

def attempt(limit):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = 0
    def kill(event, args):
        nonlocal count
        if event in {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"} and ".partial" in str(args[0]):
            count += 1
            if count >= limit:
                os.kill(os.getpid(), signal.SIGKILL)
    try:
        if limit:
            sys.addaudithook(kill)
        collect(recipe, out, seconds=0)
        os._exit(0)
    finally:
        os._exit(1)

codes = []
while not codes or codes[-1] == -signal.SIGKILL:
    codes.append(attempt(draw.randint(15, 30 + 15 * len(codes))))
    print(codes[-1], flush=True)
"""


@pytest.mark.slow
def test_a_collection_that_is_killed_again_and_again(tmp_path: Path) -> None:
    settings = {"hidden_sizes": [8], "batch_size": 8, "warm_up": 20, "checks": 5}
    recipe = recipe_of("CartPole-v1", steps=100, settings=settings, quality="expert")
    collect(recipe, tmp_path / "whole")
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "out"), "3"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    codes = [int(line) for line in result.stdout.split()]
    assert len(codes) > 3 and set(codes) == {0, -signal.SIGKILL}, result.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not list(tmp_path.rglob(f"*{PARTIAL}")) and leftovers() == []


@pytest.mark.slow
def test_a_signal_ends_it_with_the_command_that_goes_on(tmp_path: Path) -> None:
    words = [
        "data",
        "collect",
        "CartPole-v1",
        "--learner",
        "random",
        "--steps",
        "1000000",
        "--out",
        str(tmp_path / "out"),
    ]
    command = [sys.executable, "-m", "dr3_ray", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob(f".out*{PARTIAL}")) and process.poll() is None:
            pass
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    assert process.returncode == 130 and said.count("\n") == 1, said
    assert f"this goes on: dr3-ray {' '.join(words)}" in said
    assert leftovers()
