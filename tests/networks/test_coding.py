"""What a categorical critic's outputs mean: its range, its loss, and that everything else reads Q."""

from typing import Any

import pytest
import torch
from torch import Tensor, tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.data.sampler import generator
from dr3_ray.losses import categorical
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.coding import Categorical, Coding
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import ActionInputCritic, DiscreteCritic
from dr3_ray.regularizers.head import Head, change
from dr3_ray.types import Transition

K, B, C, N, BINS = 2, 5, 2, 3, 7
RANGE = {"v_min": -2.0, "v_max": 3.0}


def coding(head: Any, v_min: Tensor, v_max: Tensor) -> Categorical:
    return Categorical(head, BINS, v_min, v_max, torch.full_like(v_min, 0.75))


def test_the_bins_of_each_head():
    low, high = tensor([-7.0, 0.0]), tensor([7.0, 3.5])
    edges, points = coding("hl_gauss", low, high), coding("two_hot", low, high)
    assert edges.centres(3)[0, 0].tolist() == [-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0]
    assert points.centres(3)[0, 0, [0, -1]].tolist() == [-7.0, 7.0]
    assert points.centres(4).shape == (2, 1, 1, BINS) and edges.centres(3)[1, 0, 0] == 0.25


@pytest.mark.parametrize("head", ["hl_gauss", "two_hot"])
def test_targets_beyond_the_range_are_those_at_its_ends(head: Any):
    """Also far beyond, where a Gaussian has no mass on the bins: a public loss is not a number there."""
    made = coding(head, tensor([-1.0]), tensor([2.0]))
    found = made.probabilities(tensor([[[-1e6, -1.0, 2.0, 1e6]]]))
    assert torch.equal(found[..., 0, :], found[..., 1, :]) and torch.equal(found[..., 2, :], found[..., 3, :])
    torch.testing.assert_close(found.sum(-1), torch.ones(1, 1, 4))
    assert made.outside(tensor([[-1e6, -1.0, 2.0, 2.1]])).tolist() == [[1.0, 0.0, 0.0, 1.0]]


def test_a_range_that_was_fitted_is_kept_and_one_that_was_given_counts():
    made = coding("hl_gauss", tensor([0.0, -1.0]), tensor([0.0, 1.0]))
    assert made.range[0].isnan().all() and made.range[1].tolist() == [-1.0, 1.0]
    made.fit(tensor([[-4.0, 4.0], [-5.0, 5.0]]))
    made.fit(tensor([[-6.0, 6.0], [-7.0, 7.0]]))  # others' data change nothing
    assert made.range.tolist() == [[-4.0, 4.0], [-1.0, 1.0]]
    other = coding("hl_gauss", tensor([2.0, 0.0]), tensor([3.0, 0.0]))
    other.load_state_dict(made.state_dict())
    assert other.range.tolist() == [[2.0, 3.0], [-1.0, 1.0]]  # what the weights are used to, unless said otherwise


def critics() -> dict[str, Any]:
    sources = [generator(seed, "init") for seed in range(K)]
    architecture = Architecture((4,), (6,))
    made: dict[str, Any] = {
        "box": ContinuousCritic(sources, architecture, N, C),
        "heads": DiscreteCritic(sources, architecture, N, C),
        "input": ActionInputCritic(sources, architecture, N, C),
    }
    for each in made.values():
        options = Head.from_dict({"critic_head": "two_hot", "bins": BINS, **RANGE})
        change(each, Head.stack([options] * K), sources)
    return made


@pytest.mark.parametrize("kind", ["box", "heads", "input"])
@pytest.mark.parametrize("looks", [False, True])
def test_outputs_are_logits_behind_phi_and_everything_else_is_their_mean(kind: str, looks: bool):
    critic = critics()[kind]
    critic.looks_ahead = looks
    box = kind == "box"
    actions, next_actions = torch.randn(2, K, B, N) if box else torch.randint(N, (2, K, B))
    batch = Transition(torch.randn(K, B, 4), actions, next_observations=torch.randn(K, B, 4))
    outputs, phi, _ = critic.along(batch, next_actions)
    assert outputs.shape == (K, C, B, BINS) and phi.shape == (K, C, B, 6)
    torch.testing.assert_close(outputs, critic.outputs_of(phi, actions))
    q = categorical.expectation(outputs, torch.linspace(-2.0, 3.0, BINS).view(1, 1, 1, -1))
    torch.testing.assert_close(critic.coding.decode(outputs), q)
    torch.testing.assert_close(critic.values(batch.observations, actions), q)
    if box:
        torch.testing.assert_close(critic(batch.observations, actions)[0], q)
        torch.testing.assert_close(critic.values(batch.observations, actions, critics=1), q[:, :1])
        several = critic.values(batch.observations, torch.stack([actions, next_actions], dim=2))
        torch.testing.assert_close(several[..., 0], q)
        slopes = critic.slopes(batch.observations, actions)
        own = actions.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(critic(batch.observations, own)[0][:, 1].sum(), own)
        torch.testing.assert_close(slopes[:, 1], wanted)
    else:
        every, _, _ = critic.along(batch, next_actions, every=True)
        assert every.shape == (K, C, B, N, BINS)
        torch.testing.assert_close(critic.coding.decode(every), critic(batch.observations)[0])
        torch.testing.assert_close(critic.coding.taken(every, actions), outputs)


def test_a_scalar_critic_is_as_it_was():
    critic = ContinuousCritic([generator(0, "init")], Architecture((4,), (6,)), N)
    before = list(critic.parameters())
    change(critic, Head(), [generator(0, "head")])
    assert all(one is other for one, other in zip(before, critic.parameters(), strict=True))
    assert type(critic.coding) is Coding and not list(critic.coding.buffers())


def test_first_weights_are_those_of_the_seed_and_hidden_layers_those_of_a_scalar_critic(make_population: Any):
    spec = find("DR3-DQN", "discrete")
    scalar, alone = (make_population(spec, [{"seed": 1} | more]).networks for more in ({}, {"critic_head": "two_hot"}))
    pack = make_population(spec, [{"seed": seed, "critic_head": "two_hot"} for seed in (0, 1)]).networks
    for ours, theirs in zip(alone.critic.encoder.parameters(), scalar.critic.encoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, values in alone.state_dict().items():
        assert torch.equal(pack.state_dict()[name][1], values[0]), name
    assert torch.equal(alone.critic.head.weight, alone.target_critic.head.weight)
