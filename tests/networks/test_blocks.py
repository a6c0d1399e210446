"""Blocks change nothing but rounding, wherever they are cut and whoever asks."""

from functools import partial

import pytest
import torch

from dr3_ray.algorithms import cql_continuous
from dr3_ray.algorithms.registry import find
from dr3_ray.data.sampler import generator
from dr3_ray.networks import blocks
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.regularizers.registry import REGULARIZERS
from dr3_ray.types import Spaces

ROWS, SAMPLES, ACTIONS = 13, 4, 2
SPACES = Spaces((3,), "continuous", ACTIONS)
FLOAT64 = 8  # bytes
NORMS = [{"critic_norm": norm} for norm in ("layer", "unit", "spectral")]


def case(members: int, **settings):
    """A critic of these members, what its rows are worth, and columns of rows for it."""
    options = find("DR3-CQL", "continuous").options.from_dict({"hidden_sizes": [8, 6]} | settings)
    stacked = type(options).stack([options] * members, dtype=torch.float64)
    sources = [generator(seed, "networks", "cpu") for seed in range(members)]
    critic = ContinuousCritic(sources, Architecture.of(options, SPACES), ACTIONS).to(torch.float64)
    draw = partial(torch.randn, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    columns = (
        draw(members, ROWS, 3),
        draw(members, ROWS, ACTIONS).tanh(),
        draw(members, ROWS, SAMPLES, ACTIONS).tanh(),
        draw(members, ROWS, SAMPLES),
    )
    return critic, partial(cql_continuous.gap_of, stacked, critic), columns


def change(critic, values, seeds):
    """Let every regulariser change the critic, by those of its options that are in `values`."""
    for each in REGULARIZERS.values():
        own = each.options.from_dict({name: value for name, value in values.items() if name in each.options.names()})
        if each.change:
            sources = [generator(seed, "networks", "cpu") for seed in seeds]
            each.change(critic, each.options.stack([own] * len(seeds)), sources)


def gradient(critic, mean):
    weights = torch.arange(1.0, mean.numel() + 1, dtype=torch.float64).view_as(mean)  # each member and critic its own
    return torch.autograd.grad((weights * mean).sum(), list(critic.parameters()))


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("rows", [1, 5, 12, ROWS, 100])
@pytest.mark.parametrize(
    "settings",
    [{}, {"cql_form": "H_unweighted"}, {"cql_form": "rho"}, {"cql_temperature": 0.3, "cql_clip_above": 1.5}],
    ids=str,
)
def test_value_and_gradient_are_those_of_all_rows_at_once(members, rows, settings, monkeypatch):
    critic, values, columns = case(members, **settings)
    monkeypatch.setattr(blocks, "CACHED", rows * (SAMPLES + 1) * 2 * 8 * FLOAT64)
    assert blocks.rows_in_cache(critic, SAMPLES + 1, ROWS) == rows
    whole = values(*columns).mean(-1)
    found = blocks.mean_in_blocks(values, critic, columns, SAMPLES + 1)
    torch.testing.assert_close(found, whole, rtol=1e-13, atol=1e-13)
    for ours, plain in zip(gradient(critic, found), gradient(critic, whole), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-13)


def test_parts_of_a_dict_observation_are_cut_alike(monkeypatch):
    critic, _, (observations, actions, *_) = case(2)

    def values(observations, actions):
        return critic(observations["near"] + observations["far"], actions)[0]

    monkeypatch.setattr(blocks, "CACHED", 5 * 2 * 8 * FLOAT64)
    columns = ({"near": observations, "far": 2.0 * observations}, actions)
    found = blocks.mean_in_blocks(values, critic, columns, 1)
    torch.testing.assert_close(found, values(*columns).mean(-1))


def test_without_a_gradient_there_is_nothing_to_keep_small(monkeypatch):
    monkeypatch.setattr(blocks, "CACHED", 1)
    critic, values, columns = case(1)
    with torch.no_grad():
        assert torch.equal(blocks.mean_in_blocks(values, critic, columns, SAMPLES + 1), values(*columns).mean(-1))


@pytest.mark.parametrize("option", [{"critic_dropout": 0.1}, {"critic_norm": "spectral"}, {"critic_bottleneck": True}])
def test_a_critic_that_draws_noise_or_keeps_a_state_sees_all_rows_at_once(option, monkeypatch):
    monkeypatch.setattr(blocks, "CACHED", 1)
    critic, _, _ = case(1)
    assert blocks.rows_in_cache(critic, SAMPLES, ROWS) == 1
    change(critic, option, [0])
    assert blocks.rows_in_cache(critic, SAMPLES, ROWS) is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"critic_bottleneck": True},
        {"critic_head": "hl_gauss", "bins": 5, "v_max": 3.0},
        *({"critic_norm": norm} for norm in ("layer", "unit", "spectral")),
    ],
    ids=str,
)
@pytest.mark.parametrize("critics", [None, 1])
def test_values_alone_are_those_of_a_whole_pass(changes, critics):
    """Of all critics or of the first, for one action a state and for several, with their gradients."""
    critic, _, (observations, actions, samples, _) = case(2)
    change(critic, changes, [0, 1])
    critic.to(torch.float64).eval()
    for some in (actions, samples):
        some = some.clone().requires_grad_()
        ours, whole = critic.values(observations, some, critics), critic(observations, some)[0][:, :critics]
        assert ours.shape == whole.shape
        torch.testing.assert_close(ours, whole)
        wanted = [some, *critic.parameters()]
        found, expected = (
            torch.autograd.grad(each.cos().sum(), wanted, materialize_grads=True, allow_unused=True)
            for each in (ours, whole)
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
