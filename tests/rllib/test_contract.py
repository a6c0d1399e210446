"""Data and environment on RLlib's ways in: what is refused, what is converted, and what becomes of NaN."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

import dr3_ray
from dr3_ray import UserError
from dr3_ray.data import Provenance, SpaceSpec, episode_columns, write_dataset
from tests.evaluation.worlds import World

pytestmark = pytest.mark.usefixtures("local_ray")

PLACE, PUSH = Box(-1.0, 1.0, (2,)), Box(-1.0, 1.0, (1,))
RARE = 1e30  # where the data have only zeros
WORLDS: list[World] = []  # that were made in this process


def quiet(step: int) -> Any:
    """Integers first."""
    return np.array([0, 0]) if step == 0 else np.array([step / 20, 0.0])


def rare(step: int) -> Any:
    """What no data have, from the third step on."""
    return np.float32([step / 20, RARE if step == 2 else 0.0])


SCENES: dict[str, Any] = {
    "fits": lambda: World(PLACE, PUSH, quiet, lambda action, step: 1.0),
    "wider": lambda: World(PLACE, Box(-2.0, 2.0, (1,)), quiet, lambda action, step: 1.0),
    "narrower": lambda: World(PLACE, Box(-0.5, 0.5, (1,)), quiet),
    "choices": lambda: World(PLACE, Discrete(3), quiet),
    "other units": lambda: World(Box(-10.0, 10.0, (2,)), PUSH, quiet),
    "rare": lambda: World(Box(-np.inf, np.inf, (2,)), PUSH, rare, lambda action, step: 1.0),
    "unpaid": lambda: World(PLACE, PUSH, quiet, lambda action, step: np.nan if step == 7 else 1.0),
}


def make(scene: str) -> World:
    world = SCENES[scene]()
    WORLDS.append(world)
    return world


@pytest.fixture(autouse=True)
def scenes() -> Iterator[None]:
    for scene in SCENES:
        register_env(scene, lambda config, scene=scene: make(scene))  # type: ignore[misc]
    yield
    WORLDS.clear()


class Narrower(World):
    """The environment as a class."""

    def __init__(self, config: Any):
        super().__init__(PLACE, Box(-0.5, 0.5, (1,)), quiet)


def episodes() -> Iterator[Any]:
    rng = np.random.default_rng(0)
    for episode in range(4):
        observations = np.stack([[step / 20, 0.0] for step in range(21)]).astype(np.float32)
        actions, rewards = rng.uniform(-1, 1, (20, 1)).astype(np.float32), np.ones(20)
        ends = {"terminated": False, "truncated": True, "episode_id": episode, "gamma": 0.9}
        yield episode_columns(observations, actions, rewards, **ends)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "pushes"
    spaces = {"observation_space": PLACE, "action_space": PUSH}
    specs = {name: SpaceSpec.from_gymnasium(space) for name, space in spaces.items()}
    write_dataset(path, episodes(), name="pushes", gamma=0.9, provenance=Provenance(source="chance"), **specs)
    return str(path)


def config_of(data: str, scene: Any = None, members: int = 2) -> Any:
    config = dr3_ray.config_for("BC").offline_data(input_=data).training(hidden_sizes=[8, 8], batch_size=8)
    config = config.population([{"seed": seed} for seed in range(members)], updates_per_iteration=5)
    config = config.evaluation(evaluation_interval=1, evaluation_duration=2)
    return config if scene is None else config.environment(env=scene)


BOTH = r"has {}.*, the data set pushes Box\(-1.0, 1.0, \({},\), float32\), and "


@pytest.mark.spread(3)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.environment(env="narrower"), "^environment narrower " + BOTH.format("actions Box.-0.5, 0.5", 1)),
        (lambda c: c.environment(env=Narrower), "^environment .*Narrower.* " + BOTH.format("actions Box.-0.5, 0.5", 1)),
        (lambda c: c.environment(env="choices"), BOTH.format("actions Discrete.3", 1)),
        (lambda c: c.environment(env="other units"), BOTH.format("observations Box.-10.0, 10.0", 2)),
        (
            lambda c: c.environment(env="fits").evaluation(evaluation_config={"env": "narrower"}),
            "^environment narrower " + BOTH.format("actions Box.-0.5, 0.5", 1),
        ),
        (
            lambda c: c.environment(env="narrower").evaluation(evaluation_num_env_runners=1),
            "^environment narrower " + BOTH.format("actions Box.-0.5, 0.5", 1),
        ),
        (
            lambda c: c.environment(env="fits", action_space=Box(-0.5, 0.5, (1,))),
            "^the config " + BOTH.format("actions Box.-0.5, 0.5", 1),
        ),
        (
            lambda c: c.environment(env="fits").evaluation(
                evaluation_config={"observation_space": Box(-10.0, 10.0, (2,))}
            ),
            "^evaluation_config has no effect on 'observation_space': set it outside$",
        ),
        (
            lambda c: c.environment(env="wider").env_runners(env_runner_cls=SingleAgentEnvRunner),
            "SingleAgentEnvRunner converts nothing, where environment wider has .*2.0.* the data set pushes .*1.0",
        ),
    ],
)
def test_what_does_not_agree_is_one_line_on_every_way_in(data: str, change: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        change(config_of(data)).build_algo()
    assert "\n" not in str(caught.value)


def test_actions_go_out_in_the_units_of_the_data(data: str, tmp_path: Path) -> None:
    algorithm = config_of(data, "wider", members=1).build_algo()
    WORLDS.clear()
    result = algorithm.train()
    assert result["members"]["000"]["episode_return_mean"] == 20.0
    checkpoint = Path(algorithm.save_to_path(tmp_path / "c"))
    module = RLModule.from_checkpoint(checkpoint / "learner_group" / "learner" / "rl_module" / "default_policy")
    seen = np.stack([quiet(step) for step in range(20)]).astype(np.float32)
    expected = module.forward_inference({"obs": seen})["actions"].numpy()
    assert len(WORLDS) == 2 and np.ptp(expected) > 0
    for world in WORLDS:
        np.testing.assert_allclose(np.stack(world.received), expected, rtol=1e-5, atol=1e-6)
    algorithm.stop()


def spoil(learner: Any) -> None:
    """Member 1 weighs what is 0 in all data with a number that is no more than finite."""
    with torch.no_grad():
        learner.population.networks.actor.encoder.layers[0].weight[1, :, 1] = 3e38


@pytest.mark.parametrize("cpus", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_policy_without_an_action_has_diverged_at_that_update_and_others_go_on(
    cpus: int, data: str, tmp_path: Path
) -> None:
    config = config_of(data, "rare").resources(num_cpus_for_main_process=cpus)
    algorithm = config.build_algo()
    algorithm.learner_group.foreach_learner(spoil)
    first, second = algorithm.train()["members"], algorithm.train()["members"]
    assert not first["000"]["diverged"] and first["000"]["episode_return_mean"] == 20.0 and "error" not in first["000"]
    assert first["001"]["diverged"] and np.isnan(first["001"]["episode_return_mean"])
    assert first["001"]["error"] == "its policy gave NaN or infinity for an action at update 5"
    assert np.isfinite([first[key]["loss_actor"] for key in first]).all()  # nothing in training says so
    assert second["001"]["diverged"] and second["000"]["loss_actor"] != first["000"]["loss_actor"]
    assert second["001"]["loss_actor"] == first["001"]["loss_actor"]  # trained no further
    if cpus == 1:
        assert all(np.isfinite(world.received).all() for world in WORLDS)
    restored = Algorithm.from_checkpoint(algorithm.save_to_path(tmp_path / "c"))
    third = restored.train()["members"]
    assert third["001"]["diverged"] and not third["000"]["diverged"]
    json.dumps(third)
    restored.stop(), algorithm.stop()


def test_a_module_gives_no_nan_to_whoever_asks_for_an_action(data: str) -> None:
    algorithm = config_of(data, "fits", members=1).build_algo()
    module = algorithm.eval_env_runner_group.local_env_runner.module
    assert module.forward_inference({"obs": np.zeros((1, 2), np.float32)})["actions"].shape == (1, 1)
    with pytest.raises(UserError, match="the policy gives NaN or infinity for an action"):
        module.forward_inference({"obs": np.float32([[np.nan, 0.0]])})
    algorithm.stop()


def test_an_environment_without_a_number_is_told_and_is_nobodys_end(data: str) -> None:
    algorithm = config_of(data, "unpaid").build_algo()
    for update in (5, 10):
        for row in algorithm.train()["members"].values():
            assert np.isnan(row["episode_return_mean"]) and not row["diverged"]
            assert row["error"] == (
                "its environment gave NaN or infinity for an observation or a reward in 2 of 2 episodes "
                f"at update {update}"
            )
    algorithm.stop()


@pytest.mark.slow
def test_evaluation_beside_training_names_the_update_of_its_weights(data: str) -> None:
    config = config_of(data, "unpaid").evaluation(evaluation_num_env_runners=1, evaluation_parallel_to_training=True)
    algorithm = config.build_algo()
    assert [row["error"][-11:] for row in algorithm.train()["members"].values()] == ["at update 0"] * 2
    algorithm.stop()


def test_a_checkpoint_goes_on_with_data_whose_numbers_mean_the_same(data: str, tmp_path: Path) -> None:
    """A weight of the networks stands for half the push, where the data have twice the range."""

    def build(path: str) -> Any:
        return config_of(path).evaluation(evaluation_interval=None).build_algo()

    saved = build(data)
    checkpoint = saved.save_to_path(tmp_path / "c")
    for name, push in {"same": PUSH, "twice": Box(-2.0, 2.0, (1,))}.items():
        specs = {"observation_space": SpaceSpec.from_gymnasium(PLACE), "action_space": SpaceSpec.from_gymnasium(push)}
        write_dataset(
            tmp_path / name, episodes(), name=name, gamma=0.9, provenance=Provenance(source="chance"), **specs
        )
    same, twice = (build(str(tmp_path / name)) for name in ("same", "twice"))
    same.restore_from_path(checkpoint)
    with pytest.raises(UserError, match=r"^the checkpoint in .*Box.-1.0, 1.0, \(1,\).*, the data set twice .*Box.-2.0"):
        twice.restore_from_path(checkpoint)
    for algorithm in (saved, same, twice):
        algorithm.stop()


@pytest.mark.slow
def test_bytes_are_asked_for_where_the_data_are_bytes(tmp_path: Path) -> None:
    space = Box(0, 255, (2,), np.uint8)
    frames = np.zeros((6, 2), np.uint8)
    ends = {"terminated": True, "truncated": False, "episode_id": 0, "gamma": 0.9}
    columns = [episode_columns(frames, np.zeros(5, np.int64), np.ones(5), **ends)]
    specs = {"observation_space": SpaceSpec.from_gymnasium(space), "action_space": SpaceSpec.discrete(2)}
    path = tmp_path / "bytes"
    write_dataset(path, columns, name="bytes", gamma=0.9, provenance=Provenance(source="nobody"), **specs)
    algorithm = config_of(str(path), members=1).evaluation(evaluation_interval=None).build_algo()
    algorithm.stop()
    register_env("shares", lambda config: World(Box(0, 1, (2,), np.float32), Discrete(2), lambda step: np.zeros(2)))
    algorithm = config_of(str(path), "shares", members=1).build_algo()
    module = algorithm.eval_env_runner_group.local_env_runner.module
    assert algorithm.train()["members"]["000"]["episodes"] == 2
    with pytest.raises(UserError, match=r"observations are torch\.float32, and in the data bytes: give torch\.uint8"):
        module.forward_inference({"obs": np.zeros((1, 2), np.float32)})
    algorithm.stop()
