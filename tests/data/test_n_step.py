"""Transitions over several steps, against a walk along the episodes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.data.n_step import gather_n_step

COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminateds", "next_actions_valid")


def walk(data: Any, row: int, n: int) -> tuple[list[float], int]:
    """The rewards from a row on, and the last row that is reached: at most n steps, within the episode."""
    columns = data.gather(
        torch.arange(row, min(row + n, len(data))), ("rewards", "terminateds", "truncateds", "episode_ids", "timesteps")
    )
    rewards: list[float] = []
    for i in range(len(columns["rewards"])):
        if i and (
            columns["episode_ids"][i] != columns["episode_ids"][0]
            or columns["timesteps"][i] != columns["timesteps"][0] + i
        ):
            break
        rewards.append(columns["rewards"][i].item())
        if columns["terminateds"][i] or columns["truncateds"][i]:
            break
    return rewards, row + len(rewards) - 1


def assert_walked(data: Any, indices: Tensor, n: int) -> None:
    found = gather_n_step(data, indices, COLUMNS, n)
    plain = data.gather(indices, COLUMNS)
    for k, b in torch.cartesian_prod(*map(torch.arange, indices.shape)).tolist():
        rewards, last = walk(data, int(indices[k, b]), n)
        assert found["n_steps"][k, b] == len(rewards)
        torch.testing.assert_close(found["n_step_rewards"][k, b], torch.tensor(rewards + [0.0] * (n - len(rewards))))
        end = data.gather(torch.tensor([last]), COLUMNS)
        for name in ("next_observations", "terminateds", "next_actions_valid"):
            assert torch.equal(found[name][k, b], end[name][0]), name
        for name in ("observations", "actions", "rewards"):
            assert torch.equal(found[name][k, b], plain[name][k, b]), name


@pytest.mark.parametrize("n", [2, 3, 25])
def test_every_row_of_terminated_and_truncated_episodes(n: int, make_data: Any):
    assert_walked(make_data("discrete", rows=50), torch.arange(50).view(2, 25), n)


def test_a_subsample_stops_where_a_row_is_missing(make_data: Any):
    data = make_data("discrete", rows=200)
    kept = torch.rand(200, generator=torch.Generator().manual_seed(0)) < 0.7
    data.columns = {name: values[kept] for name, values in data.columns.items()}
    assert_walked(data, torch.arange(len(data)).unsqueeze(0), 3)


def test_a_data_set_on_disk():
    data = load_dataset("embedded:breakout-replay")
    indices = torch.randint(len(data) - 40, (1, 8), generator=torch.Generator().manual_seed(0))
    assert_walked(data, torch.cat([indices, indices + 20, torch.arange(len(data) - 8, len(data)).unsqueeze(0)]), 5)


def test_one_step_is_the_row_itself(make_data: Any):
    data, indices = make_data("discrete"), torch.arange(200).unsqueeze(0)
    found, plain = gather_n_step(data, indices, COLUMNS, 1), data.gather(indices, COLUMNS)
    assert all(torch.equal(found[name], plain[name]) for name in COLUMNS)
    assert torch.equal(found["n_step_rewards"][..., 0], plain["rewards"]) and (found["n_steps"] == 1).all()


def test_the_parts_of_a_dict_are_those_of_the_same_steps(make_dataset: Any):
    """Episodes of 3, 1, 5 and 2 steps: the state two steps on, or the last of the episode."""
    path, rows = make_dataset(observation="dict")
    found = gather_n_step(load_dataset(path), torch.arange(11), COLUMNS, 2)
    last = [1, 2, 2, 3, 5, 6, 7, 8, 8, 10, 10]
    for part, values in found["next_observations"].items():
        expected = torch.from_numpy(rows[f"next_observations/{part}"])
        assert torch.equal(values, expected[last].to(values.dtype))
        assert torch.equal(found["observations"][part], torch.from_numpy(rows[f"observations/{part}"]).to(values.dtype))


@pytest.mark.parametrize("execution", ["in_turn", "stacked"])
def test_targets_by_definition(execution: str, make_population: Any):
    members = [{"gamma": 0.9, "n_step": 3, "seed": 4}, {"gamma": 0.5, "n_step": 3, "seed": 4}]
    population = make_population(find("DR3-DQN", "discrete"), members, execution)
    indices, _ = population.steps.batches.sampler.draw(slice(0, 2))
    again = make_population(find("DR3-DQN", "discrete"), members)
    population.steps.batches.sampler.load_state_dict(again.steps.batches.sampler.state_dict(), step=0)
    expected = []
    for k, member in enumerate(members):
        targets = []
        for row in indices[k].tolist():
            rewards, last = walk(population.data, row, 3)
            end = population.data.gather(torch.tensor([[last]]), COLUMNS)
            values = population.networks.target_critic(end["next_observations"].expand(2, 1, 2, 3))[0][k, 0, 0]
            target = sum(member["gamma"] ** i * reward for i, reward in enumerate(rewards))
            target += member["gamma"] ** len(rewards) * (1.0 - end["terminateds"].item()) * values.max().item()
            targets.append(target)
        expected.append(sum(targets) / len(targets))
    torch.testing.assert_close(population.update(1)["target"], torch.tensor(expected))
    assert population.probe()["td_error"].isfinite().all()
