"""Hindsight relabelling of goal data, row by row against a plain loop over episodes."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from dr3_ray import Member, Population, load_dataset
from dr3_ray.algorithms.registry import find
from dr3_ray.data import Dataset
from dr3_ray.data.importers.arrays import from_episodes
from dr3_ray.data.resident import Resident
from dr3_ray.errors import UserError
from dr3_ray.training.batches import Batches
from dr3_ray.training.hindsight import recorded_threshold

MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
SIZE, GOAL = 5, 0.5  # of the grid; how near is there


def walk(rng: np.random.Generator, length: int) -> dict[str, Any]:
    """Random steps on a grid, towards no goal; it ends in the pit at (0, 0), and at the goal by half of the walks."""
    place, goal = rng.integers(1, SIZE, 2).astype(np.float32), rng.integers(0, SIZE, 2).astype(np.float32)
    places, actions, rewards, ends = [place], [], [], []
    stops = rng.random() < 0.5
    for _ in range(length):
        action = rng.integers(4)
        place = np.clip(place + MOVES[action], 0, SIZE - 1)
        there = np.linalg.norm(place - goal) <= GOAL
        places.append(place)
        actions.append(action)
        rewards.append(float(there) - 1)
        ends.append(bool((place == 0).all() or (there and stops)))
        if ends[-1]:
            break
    seen = np.stack(places)
    return {
        "observations": {
            "observation": np.eye(SIZE, dtype=np.float32)[seen[:, 0].astype(int)],
            "achieved_goal": seen,
            "desired_goal": np.repeat(goal[None], len(seen), 0),
        },
        "actions": np.array(actions),
        "rewards": np.array(rewards),
        "terminateds": np.array(ends),
    }


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, list[dict[str, Any]]]:
    rng = np.random.default_rng(0)
    episodes = [walk(rng, int(rng.integers(1, 20))) for _ in range(40)]
    out = tmp_path_factory.mktemp("data") / "walks"
    with pytest.warns(UserWarning):
        from_episodes(episodes, out=out, action_space="discrete:4")
    return load_dataset(str(out)), episodes


def batches(data: Any, members: list[dict[str, Any]], algorithm: str = "DR3-DQN") -> Batches:
    spec = find(algorithm, "discrete")
    made = [Member.from_dict(spec, {"hidden_sizes": [4], "batch_size": 64} | each) for each in members]
    return Population.of(spec, made, data, data.spaces).steps.batches


def by_hand(episodes: list[dict[str, Any]], row: int, drawn: Any, how: dict[str, Any]) -> dict[str, Any]:
    """One row with its goal, from the episode that it lies in."""
    for episode in episodes:
        if row < len(episode["actions"]):
            break
        row -= len(episode["actions"])
    achieved = episode["observations"]["achieved_goal"]
    last, (whether, which) = len(episode["actions"]) - 1, (drawn.double().numpy() + 1) / 2
    goal, own = episode["observations"]["desired_goal"][row], episode["observations"]["desired_goal"][row]
    if whether < how["hindsight_ratio"]:
        at = last if how["hindsight"] == "final" else row + int(which * (last - row + 1))
        goal = achieved[at + 1]
    reached, reached_own = (np.linalg.norm(achieved[row + 1] - each) <= GOAL for each in (goal, own))
    died = episode["terminateds"][row] and not reached_own
    return {
        "goal": goal,
        "reward": 0.0 if reached else -1.0,
        "terminated": float(died or (how["hindsight_terminal"] and reached)),
        "place": achieved[row],
        "next_place": achieved[row + 1],
    }


@pytest.mark.parametrize("where", ["memory maps", "a device's memory"])
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("strategy", ["future", "final"])
def test_every_row_is_that_of_a_plain_loop(
    walks: tuple[Dataset, list[dict[str, Any]]], strategy: str, terminal: bool, where: str
) -> None:
    """Two members that differ in their ratio; the threshold is that of the recorded rewards."""
    data, episodes = walks
    members = [
        {"hindsight": strategy, "hindsight_ratio": ratio, "hindsight_terminal": terminal, "seed": seed}
        for seed, ratio in enumerate((0.8, 0.3))
    ]
    if where != "memory maps":
        names = ("observations", "actions", "rewards", "next_observations", "terminateds")
        held = Resident(data, names, torch.device("cpu"))
        held.spaces, held.observation_space = data.spaces, data.observation_space  # type: ignore[attr-defined]
    made, same = batches(data if where == "memory maps" else held, members), batches(data, members)
    steps = list(made.stream(slice(None), 3))
    indices, noise = same.draws(slice(None), 3)
    for step, (batch, _) in enumerate(steps):
        for member in range(2):
            for place, row in enumerate(indices[step, member].tolist()):
                want = by_hand(episodes, row, noise["hindsight"][step, member, place], members[member])
                seen, after = (
                    {name: part[member, place].numpy() for name, part in column.items()}
                    for column in (batch.observations, batch.next_observations)
                )
                assert (seen["desired_goal"] == want["goal"]).all() and (after["desired_goal"] == want["goal"]).all()
                assert (seen["achieved_goal"] == want["place"]).all()
                assert (after["achieved_goal"] == want["next_place"]).all()
                assert batch.rewards[member, place] == want["reward"]
                assert batch.terminateds[member, place] == want["terminated"]


def test_goals_are_drawn_uniformly_from_the_steps_that_follow(walks: tuple[Dataset, list[dict[str, Any]]]) -> None:
    data, _ = walks
    made = batches(data, [{"hindsight": "future", "hindsight_ratio": 1.0}])
    number = int(np.argmax(data.episodes["lengths"]))
    start, length = int(data.episodes["offsets"][number]), int(data.episodes["lengths"][number])
    indices, uniform = (
        torch.full((1, 20_000), start + 2),
        torch.rand(1, 20_000, generator=torch.Generator().manual_seed(0)),
    )
    rows = made._hindsight._goal_rows(indices, uniform) - start
    counts = torch.bincount(rows.flatten(), minlength=length)
    assert counts[:2].sum() == 0
    assert ((counts[2:] / 20_000 - 1 / (length - 2)).abs() < 0.015).all()


def test_a_member_draws_the_same_alone_again_and_after_a_checkpoint(walks: Any) -> None:
    data, _ = walks
    spec = find("DR3-DQN", "discrete")
    options = [
        {"hindsight": "future", "hindsight_ratio": ratio, "hidden_sizes": [4], "seed": 3} for ratio in (0.2, 0.9)
    ]
    members = [Member.from_dict(spec, each) for each in options]
    pack, alone, again = (
        Population.of(spec, each, data, data.spaces, "in_turn") for each in (members, members[1:], members)
    )
    pack.update(6)
    alone.update(6)
    again.update(2)
    resumed = Population.of(spec, members, data, data.spaces, "in_turn")
    resumed.networks.load_state_dict(again.networks.state_dict())
    resumed.load_state_dict(again.state_dict())
    resumed.update(4)
    for name, values in pack.networks.state_dict().items():
        assert torch.equal(values[1:], alone.networks.state_dict()[name]), name
        assert torch.equal(values, resumed.networks.state_dict()[name]), name


def test_behaviour_cloning_of_goals_that_were_reached(walks: Any) -> None:
    data, episodes = walks
    made, same = (batches(data, [{"hindsight": "final", "hindsight_ratio": 1.0}], "BC") for _ in "12")
    ((batch, _),) = made.stream(slice(None), 1)
    indices, noise = same.draws(slice(None), 1)
    how = {"hindsight": "final", "hindsight_ratio": 1.0, "hindsight_terminal": False}
    want = [
        by_hand(episodes, row, drawn, how)["goal"]
        for row, drawn in zip(indices[0, 0].tolist(), noise["hindsight"][0, 0], strict=True)
    ]
    assert (batch.observations["desired_goal"][0].numpy() == np.stack(want)).all() and batch.rewards is None


def test_the_probe_has_the_recorded_goals_and_rewards_by_the_same_rule(walks: Any) -> None:
    data, _ = walks
    members = [{"hindsight": "future", "hindsight_threshold": 100.0, "seed": seed} for seed in (0, 1)]
    made = batches(data, members)
    indices, _ = made.probe_draw()
    probe, _ = made.probe()
    recorded = data.gather(indices, ("observations",))["observations"]["desired_goal"]
    assert torch.equal(probe.observations["desired_goal"], recorded)
    assert probe.rewards.shape == (1, 2048) and (probe.rewards == 0).all()  # all is near enough


def test_the_threshold_lies_where_the_recorded_rewards_change(walks: Any) -> None:
    assert 0.0 <= recorded_threshold(walks[0]) < 1.0


def goals(tmp_path: Path, rewards: np.ndarray, width: int = 2) -> Dataset:
    places = np.linspace(0, 1, 13)[:, None] * np.ones(2)
    observations = {"achieved_goal": places, "desired_goal": np.ones((13, width))}
    episode = {"observations": observations, "actions": np.arange(12) % 2, "rewards": rewards}
    from_episodes([episode], out=tmp_path / "data", action_space=gym.spaces.Discrete(2))
    return load_dataset(str(tmp_path / "data"))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("rewards", "width", "options", "says"),
    [
        (np.zeros(12), 2, {}, "they do not have two values: give hindsight_threshold"),
        (np.arange(12), 2, {}, "they do not have two values"),
        (np.arange(12) < 6, 2, {}, "a goal counts as reached at 1.* and as missed at 0: give hindsight_threshold"),
        (np.arange(12) > 9, 2, {"n_step": 3}, "n_step = 3 counts recorded rewards"),
        (np.arange(12) > 9, 2, {"reward_scaling": "return_range"}, "reward_scaling = return_range counts recorded"),
        (np.arange(12) > 9, 3, {}, r"vectors of one length, and these have achieved_goal \(2,\), desired_goal \(3,\)"),
    ],
)
def test_goals_that_cannot_be_changed_are_one_line(
    rewards: np.ndarray, width: int, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    data = goals(tmp_path, rewards.astype(float), width)
    with pytest.raises(UserError, match=says):
        batches(data, [{"hindsight": "future"} | options])


def test_data_without_goals_and_an_algorithm_of_returns() -> None:
    data = load_dataset("embedded:breakout-replay")
    with pytest.raises(UserError, match=r"hindsight = final needs observations with the parts achieved_goal and"):
        batches(data, [{"hindsight": "final"}])
    with pytest.raises(UserError, match=r"unknown option 'hindsight'"):
        Member.from_dict(find("DR3-MC", "discrete"), {"hindsight": "final"})
    made = {"hindsight": "final"}
    for threshold, says in ((-0.1, "at least 0, not -0.1"), (float("nan"), "at least 0"), ("x", "of type float")):
        with pytest.raises(UserError, match=f"hindsight_threshold must be {says}"):
            Member.from_dict(find("DR3-DQN", "discrete"), made | {"hindsight_threshold": threshold})
    taken = Member.from_dict(find("DR3-DQN", "discrete"), made | {"hindsight_threshold": 1})
    assert taken.to_dict()["hindsight_threshold"] == 1.0
