"""Images and dict observations from the data to a restored checkpoint, through RLlib."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

import dr3_ray
from dr3_ray import UserError
from dr3_ray.data import Provenance, ShardWriter, SpaceSpec, episode_columns
from dr3_ray.data.spaces import named_parts
from dr3_ray.training import batches

pytestmark = pytest.mark.usefixtures("local_ray")


class Catch(gym.Env):  # type: ignore[type-arg]
    """A bright column has to be kept in the middle; five steps. Images alone, or with the last positions beside."""

    def __init__(self, named: bool = False, observation_space: gym.Space[Any] | None = None):
        self.named, self.shape = named, (48, 48, 3) if named else (84, 84, 4)
        image = gym.spaces.Box(0, 255, self.shape, np.uint8)
        state = gym.spaces.Box(-1.0, 1.0, (3,))
        as_played = gym.spaces.Dict(arm=gym.spaces.Dict(state=state), image=image) if named else image
        self.observation_space = observation_space or as_played  # another one: announced, not played
        self.action_space = gym.spaces.Box(-0.5, 0.5, (2,)) if named else gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.places = [float(self.np_random.uniform(-1.0, 1.0))] * 3
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        move = float(action[0]) if self.named else 0.5 * (int(action) - 1)
        self.places = [*self.places[1:], float(np.clip(self.places[-1] + move, -1.0, 1.0))]
        self.steps += 1
        return self._observe(), -abs(self.places[-1]), False, self.steps == 5, {}

    def _observe(self) -> Any:
        image = np.zeros(self.shape, np.uint8)
        image[:, int((self.places[-1] + 1.0) / 2.0 * (self.shape[1] - 1))] = 255
        return {"image": image, "arm": {"state": np.float32(self.places)}} if self.named else image


gym.register("CatchFrames-v0", entry_point=Catch)
gym.register("CatchNamed-v0", entry_point=Catch, kwargs={"named": True})

IMAGE = gym.spaces.Box(0, 255, (84, 84, 4), np.uint8)
OTHER = {
    "CatchDict-v0": gym.spaces.Dict(image=IMAGE),
    "CatchText-v0": gym.spaces.Dict(image=IMAGE, mission=gym.spaces.Text(9)),
    "CatchPair-v0": gym.spaces.Tuple([IMAGE, IMAGE]),
}
for name, space in OTHER.items():
    gym.register(name, entry_point=Catch, kwargs={"observation_space": space}, disable_env_checker=True)


def random_play(environment: gym.Env[Any, Any], episodes: int) -> Iterator[Any]:
    """Columns of episodes with random actions."""
    for episode in range(episodes):
        seen, actions, rewards = [environment.reset(seed=episode)[0]], [], []
        for _ in range(5):
            actions.append(environment.action_space.sample())
            observation, reward, *_ = environment.step(actions[-1])
            seen.append(observation)
            rewards.append(float(reward))
        scaled = np.stack(actions) * (1.0 if isinstance(environment.action_space, gym.spaces.Discrete) else 2.0)
        yield episode_columns(
            tree.map_structure(lambda *parts: np.stack(parts), *seen),
            scaled.astype(np.asarray(actions[0]).dtype),
            rewards,
            terminated=False,
            truncated=True,
            episode_id=episode,
            gamma=0.9,
        )


def write(path: Path, name: str) -> str:
    environment = gym.make(name).unwrapped
    environment.action_space.seed(0)
    with ShardWriter(
        path,
        observation_space=SpaceSpec.from_gymnasium(environment.observation_space),
        action_space=SpaceSpec.from_gymnasium(environment.action_space),
        gamma=0.9,
        name=name,
        environment=f"gymnasium:{name}",
        provenance=Provenance(source="random play"),
        rows_per_shard=40,
    ) as writer:
        for columns in random_play(environment, 20):
            writer.write(columns)
    return str(path)


CASES = {
    "CatchNamed-v0": ("DR3-CQL", {"encoder": {"image": "cog"}, "random_crop": 4, "normalize_observations": True}),
    "CatchFrames-v0": ("DR3-DQN", {"encoder": "nature_cnn", "random_crop": 4}),
}


def config_of(name: str, data: str) -> Any:
    algorithm, options = CASES[name]
    config = dr3_ray.config_for(algorithm).offline_data(input_=data)
    config = config.training(hidden_sizes=[8], batch_size=4, **options)
    config = config.population([{"seed": 0}, {"seed": 1, "dr3_coeff": 0.0}], updates_per_iteration=3)
    return config.environment(env=name).evaluation(evaluation_interval=1, evaluation_duration=2)


def rows(result: dict[str, Any]) -> str:
    return json.dumps(result["members"], sort_keys=True)


@pytest.fixture(autouse=True)
def small_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,048 images through every network would take most of a test's time."""
    monkeypatch.setattr(batches, "PROBE_ROWS", 64)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {name: write(tmp_path_factory.mktemp("data") / name, name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_trained_played_saved_and_restored(name: str, data: dict[str, str], tmp_path: Path) -> None:
    algorithm = config_of(name, data[name]).build_algo()
    first = algorithm.train()
    for row in first["members"].values():
        assert np.isfinite(list(row.values())).all() and not row["diverged"]
        assert row["episodes"] == 2 and -5.0 <= row["episode_return_mean"] <= 0.0
    checkpoint = Path(algorithm.save_to_path(tmp_path / "checkpoint"))
    second = algorithm.train()
    assert rows(second) != rows(first)
    restored = Algorithm.from_checkpoint(checkpoint)
    assert rows(restored.train()) == rows(second)
    restored.stop()

    module = RLModule.from_checkpoint(checkpoint / "learner_group" / "learner" / "rl_module" / "default_policy")
    assert any(parameter.ndim == 6 for parameter in module.networks.parameters())  # the convolutions
    observation, _ = gym.make(name).reset(seed=0)
    batch = tree.map_structure(lambda part: part[None], observation)
    actions = module.forward_inference({"obs": batch})["actions"]
    seen = {part: torch.as_tensor(values).expand(2, *values.shape) for part, values in named_parts(batch).items()}
    assert torch.equal(actions, module.act_all(seen.get("", seen))[0])
    assert actions.shape == ((1, 2) if name == "CatchNamed-v0" else (1,))
    algorithm.stop()


def test_rllibs_own_runner_plays_with_nested_observations(data: dict[str, str]) -> None:
    config = config_of("CatchNamed-v0", data["CatchNamed-v0"]).env_runners(env_runner_cls=SingleAgentEnvRunner)
    algorithm = config.evaluation(evaluation_config={"explore": False}).build_algo()
    (episode,) = algorithm.eval_env_runner_group.local_env_runner.sample(num_episodes=1, explore=False)
    assert len(episode) == 5 and episode.get_observations(0)["image"].shape == (48, 48, 3)
    algorithm.stop()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            "CatchDict-v0",
            r"has observations Dict\('image': Box\(.* the data set CatchFrames-v0 Box\(0, 255, .* the kinds differ",
        ),
        ("CatchText-v0", r"Text\(.* and the kinds differ"),
        ("CatchPair-v0", r"has observations Tuple\(Box.* and the kinds differ"),
    ],
)
def test_an_environment_that_does_not_fit_is_one_line(environment: str, message: str, data: dict[str, str]) -> None:
    with pytest.raises(UserError, match=message) as caught:
        config_of("CatchFrames-v0", data["CatchFrames-v0"]).environment(env=environment).build_algo()
    assert "\n" not in str(caught.value)


def test_an_encoder_of_nothing_is_one_line(data: dict[str, str]) -> None:
    config = config_of("CatchNamed-v0", data["CatchNamed-v0"]).training(encoder={"camera": "cog"})
    with pytest.raises(UserError, match="encoder names 'camera', but the observations have arm/state, image"):
        config.build_algo()
