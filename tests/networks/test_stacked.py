"""Stacked layers, their flat storage, Adam and targets, each against plain torch."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, tensor

from dr3_ray.data.sampler import generator
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import DiscreteCritic
from dr3_ray.networks.encoders import MLP, StackedLayerNorm, StackedLinear, flat_observations
from dr3_ray.networks.members import flatten_parameters, frozen, member_view
from dr3_ray.networks.optim import StackedAdam
from dr3_ray.networks.targets import polyak_update, target_of


def generators(*seeds: int) -> list[torch.Generator]:
    return [generator(seed, "init") for seed in seeds]


def plain_mlp(module: nn.Module, member: int, critic: int, x: Tensor) -> Tensor:
    """The encoder of one member and critic, layer by layer with torch's own linear function."""
    for layer in module.layers:  # type: ignore[union-attr]
        x = nn.functional.linear(x, layer.weight[member, critic].T, layer.bias[member, critic, 0]).relu()
    return x


def test_every_copy_is_its_own_linear_layer():
    layer = StackedLinear(generators(0, 1), 4, 3, copies=2)
    x = torch.randn(2, 2, 5, 4)
    y = layer(x)
    for k in range(2):
        for c in range(2):
            torch.testing.assert_close(y[k, c], x[k, c] @ layer.weight[k, c] + layer.bias[k, c])
    torch.testing.assert_close(layer(x[:, :1])[:, 1], layer(x[:, :1].expand(2, 2, 5, 4))[:, 1])


def test_first_weights_are_those_of_torch_linear_and_depend_on_the_seed_alone():
    layer = StackedLinear(generators(0, 1, 0), 400, 300)
    assert torch.equal(layer.weight[0], layer.weight[2]) and not torch.equal(layer.weight[0], layer.weight[1])
    assert torch.equal(layer.weight[1], StackedLinear(generators(1), 400, 300).weight[0])
    torch_linear = nn.Linear(400, 300)  # uniform in ±1/√400 = ±0.05, weights and biases
    for ours, theirs in ((layer.weight, torch_linear.weight), (layer.bias, torch_linear.bias)):
        assert ours.abs().max() <= 0.05 and theirs.abs().max() <= 0.05
        assert abs(ours.std() - 0.05 / 3**0.5) < 0.002 and abs(theirs.std() - 0.05 / 3**0.5) < 0.005


def test_mlp_has_a_relu_behind_every_layer():
    mlp = MLP(generators(0), 4, (6, 5), copies=2)
    x = torch.randn(1, 1, 7, 4)
    y = mlp(x)
    assert y.shape == (1, 2, 7, 5) and y.min() == 0.0
    torch.testing.assert_close(y[0, 1], plain_mlp(mlp, 0, 1, x[0, 0]))


def test_flat_observations_scale_bytes():
    frames = torch.full((1, 2, 3, 4), 51, dtype=torch.uint8)
    assert flat_observations(frames, torch.float32).unique().item() == pytest.approx(0.2)
    assert flat_observations(frames, torch.float32).shape == (1, 1, 2, 12)
    assert flat_observations(torch.full((1, 2, 3), 51.0), torch.float64).unique().item() == 51.0


def test_discrete_critic_returns_the_input_of_its_last_layer():
    critic = DiscreteCritic(generators(0, 1), Architecture((2, 3), (8, 4)), 3)
    observations = torch.randn(2, 5, 2, 3)
    q, phi = critic(observations)
    assert q.shape == (2, 1, 5, 3) and phi.shape == (2, 1, 5, 4)
    for k in range(2):
        expected = plain_mlp(critic.encoder, k, 0, observations[k].flatten(1))
        torch.testing.assert_close(phi[k, 0], expected)
        torch.testing.assert_close(q[k, 0], expected @ critic.head.weight[k, 0] + critic.head.bias[k, 0])
    assert torch.equal(critic.features(observations, torch.zeros(2, 5, dtype=torch.int64)), phi)


def test_continuous_critic_with_one_and_with_many_actions_at_a_state():
    critic = ContinuousCritic(generators(0, 1), Architecture((2, 3), (8, 4)), 2, n_critics=3)
    observations, actions = torch.randn(2, 5, 2, 3), torch.rand(2, 5, 7, 2)
    q, phi = critic(observations, actions)
    assert q.shape == (2, 3, 5, 7) and phi.shape == (2, 3, 5, 7, 4)
    one, one_phi = critic(observations, actions[:, :, 4])
    torch.testing.assert_close(q[..., 4], one)
    torch.testing.assert_close(phi[..., 4, :], one_phi)
    pair = torch.cat([observations[1].flatten(1), actions[1, :, 4]], dim=-1)
    expected = plain_mlp(critic.encoder, 1, 2, pair)
    torch.testing.assert_close(one_phi[1, 2], expected)
    torch.testing.assert_close(one[1, 2], (expected @ critic.head.weight[1, 2] + critic.head.bias[1, 2])[:, 0])


def test_flat_storage_and_member_views_share_memory():
    critic = ContinuousCritic(generators(0, 1, 2), Architecture((3,), (4,)), 2)
    before = copy.deepcopy(critic)
    values = flatten_parameters(critic)
    assert values.shape == (3, sum(parameter[0].numel() for parameter in critic.parameters()))
    for ours, theirs in zip(critic.parameters(), before.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    view = member_view(critic, slice(1, 2))
    values[1] = 7.0
    assert all(bool((parameter == 7.0).all()) for parameter in view.parameters())
    assert all(bool((parameter[1] == 7.0).all()) for parameter in critic.parameters())
    assert not any(bool((parameter[0] == 7.0).any()) for parameter in critic.parameters())


@given(data=st.data(), k=st.integers(1, 4), width=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_looking_at_members_changes_nothing(data: st.DataObject, k: int, width: int):
    start = data.draw(st.integers(0, k - 1))
    stop = data.draw(st.integers(start + 1, k))
    critic = DiscreteCritic(generators(*range(k)), Architecture((3,), (width,)), 2)
    flatten_parameters(critic)
    observations = torch.randn(k, 4, 3)
    whole, part = critic(observations)[0], member_view(critic, slice(start, stop))(observations[start:stop])[0]
    torch.testing.assert_close(whole[start:stop], part)


def test_frozen_lets_gradient_through_to_the_inputs_only():
    critic = ContinuousCritic(generators(0), Architecture((3,), (4,)), 2)
    actions = torch.randn(1, 4, 2, requires_grad=True)
    with frozen(critic):
        value = critic(torch.randn(1, 4, 3), actions)[0]
    value.sum().backward()
    assert actions.grad is not None and all(parameter.grad is None for parameter in critic.parameters())
    assert all(parameter.requires_grad for parameter in critic.parameters())


@pytest.mark.parametrize("together", [True, False])
def test_adam_is_torch_adam_for_every_member(together: bool):
    torch.manual_seed(0)
    lrs, epsilons = [1e-3, 1e-2, 1e-3, 1e-3], [1e-8, 1e-8, 1e-2, 1e-8]
    values = torch.randn(4, 20, dtype=torch.float64)  # a matrix of 3 x 4 and a vector of 8
    shapes = [torch.Size([4, 3, 4]), torch.Size([4, 8])]
    plain = [nn.Parameter(row.clone()) for row in values]
    settings_of = zip(plain, lrs, epsilons, strict=True)
    adams = [torch.optim.Adam([one], lr=lr, eps=epsilon) for one, lr, epsilon in settings_of]
    stacked = StackedAdam(values, shapes, lrs, epsilons)
    for _ in range(20):
        gradients = torch.randn(4, 20, dtype=torch.float64)
        # of the order in memory that a convolution's gradient can have
        pieces = gradients[:, :12].view(4, 3, 4).mT.contiguous().mT, gradients[:, 12:]
        for members in [range(4)] if together else [range(1), range(1, 4)]:
            stacked.step(members, [piece[members.start : members.stop] for piece in pieces])
        for parameter, adam, gradient in zip(plain, adams, gradients, strict=True):
            parameter.grad = gradient.clone()
            adam.step()
    torch.testing.assert_close(values, torch.stack([one.detach() for one in plain]), rtol=1e-12, atol=1e-12)


def test_a_target_is_a_copy_without_gradient_that_follows_its_formula():
    critic = DiscreteCritic(generators(0, 1), Architecture((3,), (4,)), 2)
    target = target_of(critic)
    assert not any(parameter.requires_grad for parameter in target.parameters())
    target_values, online = flatten_parameters(target), flatten_parameters(critic)
    assert torch.equal(target_values, online)
    online += 1.0
    expected = 0.75 * target_values[0] + 0.25 * online[0]
    polyak_update(target_values, online, tensor([0.25, 1.0]))
    torch.testing.assert_close(target_values[0], expected)
    assert torch.equal(target_values[1], online[1])  # τ = 1 is a copy, to the bit


def test_layer_norms_are_those_of_torch():
    norm = StackedLayerNorm(2, 4, 3)
    norm.weight.data.normal_(generator=generator(0, "init"))
    norm.bias.data.normal_(generator=generator(1, "init"))
    x = torch.randn(2, 3, 5, 4)
    for k in range(2):
        for c in range(3):
            single = torch.nn.LayerNorm(4, eps=1e-6)
            single.weight.data, single.bias.data = norm.weight[k, c, 0].detach(), norm.bias[k, c, 0].detach()
            torch.testing.assert_close(norm(x)[k, c], single(x[k, c]))


def test_layer_norm_stands_behind_every_relu():
    mlp = MLP([generator(0, "init")], 3, (8, 6), layer_norm=True)
    rows = mlp(torch.randn(1, 1, 5, 3))
    torch.testing.assert_close(rows.mean(-1), torch.zeros(1, 1, 5), atol=1e-5, rtol=0.0)
    assert (rows < 0.0).any() and len(list(mlp.parameters())) == 8
