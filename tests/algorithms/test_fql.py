"""The flow keeps to both modes of the data, and the policy to the better one; Euler's method by hand."""

from typing import Any

import pytest
import torch

from dr3_ray.algorithms.registry import find
from dr3_ray.data.sampler import generator
from dr3_ray.types import Spaces
from tests.conftest import random_data


def test_euler_takes_equal_steps_at_the_times_that_it_says():
    spec = find("DR3-FQL", "continuous")
    options = spec.options.stack([spec.options.from_dict({"hidden_sizes": (8,)})] * 2)
    networks = spec.networks(options, Spaces((4,), "continuous", 3), [generator(seed, "init") for seed in range(2)])
    drawn = torch.Generator().manual_seed(0)
    states, noise = torch.randn(2, 5, 4, generator=drawn), torch.randn(2, 5, 3, generator=drawn)
    points = noise
    for time in (0.0, 0.25, 0.5, 0.75):
        points = points + 0.25 * networks.flow(states, points, torch.full((2, 5), time))
    torch.testing.assert_close(networks.flow.transported(states, noise, 4), points)
    # a field that is the same everywhere moves every point by itself
    for parameter in networks.flow.parameters():
        parameter.data.zero_()
    networks.flow.head.bias.data[:] = torch.tensor([1.0, -2.0, 0.5])
    moved = networks.flow.transported(states, noise, 7)
    torch.testing.assert_close(moved, noise + torch.tensor([1.0, -2.0, 0.5]))


@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")
def test_the_flow_has_both_modes_of_the_data_and_the_policy_the_better(make_population: Any):
    data = random_data("continuous", rows=2000)
    side = torch.randint(2, (2000, 1), generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0
    data.columns["actions"] = (0.6 * side).expand(-1, data.columns["actions"].shape[1]).clone()
    data.columns["rewards"], data.columns["terminateds"] = side[:, 0].clone(), torch.ones(2000)
    options = {"hidden_sizes": [32, 32], "batch_size": 64, "actor_lr": 5e-3, "critic_lr": 5e-3, "flow_lr": 5e-3}
    cloning, choosing = ({**options, "fql_alpha": alpha, "seed": seed} for seed, alpha in ((0, 100.0), (1, 0.3)))
    population = make_population(find("DR3-FQL", "continuous"), [cloning, choosing], data=data)
    population.update(400)
    seen = data.columns["observations"][:500].expand(2, -1, *data.columns["observations"].shape[1:])
    noise = torch.randn(2, 500, side.shape[1], generator=torch.Generator().manual_seed(2))
    noise = noise.expand(-1, -1, data.columns["actions"].shape[1])
    with torch.no_grad():
        ends, actions = population.networks.flow.transported(seen, noise, 10), population.networks.actor(seen, noise)
    for member in (0, 1):
        assert (ends[member].abs() - 0.6).abs().median() < 0.15
        assert 0.25 < (ends[member][..., 0] > 0.0).float().mean() < 0.75
    assert 0.25 < (actions[0][..., 0] > 0.0).float().mean() < 0.75  # far from Q
    assert (actions[1][..., 0] > 0.0).float().mean() > 0.9
