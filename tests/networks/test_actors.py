"""The squashed Gaussian's density against torch.distributions, and at the edge of the action space."""

import math

import pytest
import torch
from torch import Tensor, tensor
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from dr3_ray.data.sampler import generator
from dr3_ray.networks.actors import (
    ACTION_EPSILON,
    CategoricalActor,
    DeterministicActor,
    GaussianActor,
    LogTemperature,
    SquashedGaussianActor,
    categorical_sample,
    squashed_log_prob,
    squashed_sample,
    tanh_log_det,
)
from dr3_ray.networks.architecture import Architecture


def squashed_gaussian(mean: Tensor, log_std: Tensor) -> TransformedDistribution:
    return TransformedDistribution(
        Independent(Normal(mean, log_std.exp()), 1),
        TanhTransform(cache_size=1),  # type: ignore[no-untyped-call]
    )


@pytest.fixture
def moments() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(50, 3, dtype=torch.float64), torch.randn(50, 3, dtype=torch.float64) - 1.0


def test_log_prob_of_given_actions(moments: tuple[Tensor, Tensor]):
    actions = torch.rand(50, 3, dtype=torch.float64) * 1.98 - 0.99
    torch.testing.assert_close(squashed_log_prob(*moments, actions), squashed_gaussian(*moments).log_prob(actions))


def test_samples_and_their_log_prob(moments: tuple[Tensor, Tensor]):
    mean, log_std = moments
    noise = torch.randn(50, 3, dtype=torch.float64)
    actions, log_probs = squashed_sample(mean, log_std, noise)
    u = mean + log_std.exp() * noise
    expected = Normal(mean, log_std.exp()).log_prob(u) - torch.log1p(-torch.tanh(u).square())
    torch.testing.assert_close(actions, torch.tanh(u))
    torch.testing.assert_close(log_probs, expected.sum(-1))
    moderate = (actions.abs() < 0.9999).all(-1)  # beyond, atanh loses digits
    torch.testing.assert_close(squashed_log_prob(mean, log_std, actions)[moderate], log_probs[moderate])


def test_log_prob_by_hand():
    # mean 0, std 1, a = tanh(½): log N(½; 0, 1) − log(1 − a²)
    expected = -0.125 - 0.5 * math.log(2.0 * math.pi) - math.log(1.0 - math.tanh(0.5) ** 2)
    actual = squashed_log_prob(torch.zeros(1, 1), torch.zeros(1, 1), tensor([[math.tanh(0.5)]]))
    torch.testing.assert_close(actual, tensor([expected]))


def test_gradient_by_hand():
    # with u = ½, mean 0, std 1: ∂ log π / ∂mean = u = ½, ∂ log π / ∂log std = u² − 1 = −¾
    mean, log_std = torch.zeros(1, 1, requires_grad=True), torch.zeros(1, 1, requires_grad=True)
    squashed_log_prob(mean, log_std, tensor([[math.tanh(0.5)]])).sum().backward()
    torch.testing.assert_close(mean.grad, tensor([[0.5]]))
    torch.testing.assert_close(log_std.grad, tensor([[-0.75]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_actions_at_the_bounds_are_finite(dtype: torch.dtype):
    mean = torch.zeros(2, 2, dtype=dtype, requires_grad=True)
    log_std = torch.zeros(2, 2, dtype=dtype, requires_grad=True)
    log_probs = squashed_log_prob(mean, log_std, tensor([[1.0, -1.0], [1.0, 1.0]], dtype=dtype))
    log_probs.sum().backward()
    # ±1 counts as ±(1 − ε): log N(atanh(1 − ε)) − log(1 − (1 − ε)²) for each component
    u = math.atanh(1.0 - ACTION_EPSILON)
    component = -0.5 * u**2 - 0.5 * math.log(2.0 * math.pi) - math.log(1.0 - (1.0 - ACTION_EPSILON) ** 2)
    torch.testing.assert_close(log_probs, torch.full((2,), 2.0 * component, dtype=dtype), rtol=0.02, atol=0.0)
    assert mean.grad is not None and mean.grad.isfinite().all()
    assert log_std.grad is not None and log_std.grad.isfinite().all()


def test_log_determinant_far_out():
    # 1 − tanh²(20) = 4 e^{−40} to this precision, where 1 − tanh² itself rounds to 0
    torch.testing.assert_close(tanh_log_det(tensor([[20.0], [-20.0]])), torch.full((2,), math.log(4.0) - 40.0))


def test_one_draw_of_many_actions_at_each_state():
    torch.manual_seed(0)
    mean, log_std, noise = torch.randn(2, 3, 1, 4), torch.randn(2, 3, 1, 4), torch.randn(2, 3, 5, 4)
    actions, log_probs = squashed_sample(mean, log_std, noise)
    assert actions.shape == (2, 3, 5, 4) and log_probs.shape == (2, 3, 5)
    one, one_log_prob = squashed_sample(mean[:, :, 0], log_std[:, :, 0], noise[:, :, 2])
    torch.testing.assert_close(actions[:, :, 2], one)
    torch.testing.assert_close(log_probs[:, :, 2], one_log_prob)


def test_modes():
    generators = [generator(seed, "init") for seed in (0, 1)]
    observations = torch.randn(2, 5, 3)
    gaussian = SquashedGaussianActor(generators, Architecture((3,), (8,)), 2)
    mean, log_std = gaussian(observations)
    assert mean.shape == log_std.shape == (2, 5, 2)
    assert torch.equal(gaussian.mode(observations), torch.tanh(mean))
    categorical = CategoricalActor(generators, Architecture((3,), (8,)), 4)
    assert torch.equal(categorical.mode(observations), categorical(observations).argmax(-1))


def test_log_std_stays_in_range():
    actor = SquashedGaussianActor([generator(0, "init")], Architecture((3,), (8,)), 2)
    actor.head.weight.data.mul_(1e6)
    log_std = actor(torch.randn(1, 50, 3))[1]
    assert log_std.min() == -20.0 and log_std.max() == 2.0


def test_temperature_starts_at_one():
    assert LogTemperature(3)().exp().tolist() == [1.0, 1.0, 1.0]


def test_a_gaussian_has_a_bounded_mean_and_one_std_for_all_states():
    actor = GaussianActor([generator(0, "init"), generator(1, "init")], Architecture((3,), (8,)), 2)
    observations = torch.randn(2, 5, 3) * 100.0
    mean, log_std = actor(observations)
    assert mean.shape == (2, 5, 2) and mean.abs().max() <= 1.0 and mean.abs().max() > 0.9
    assert log_std.shape == (2, 1, 2) and (log_std == 0.0).all()
    assert torch.equal(actor.mode(observations), mean)
    actor.log_std.data.fill_(3.0)
    assert (actor(observations)[1] == 2.0).all()


def test_a_deterministic_actor_acts_inside_of_the_box():
    actor = DeterministicActor([generator(0, "init"), generator(1, "init")], Architecture((3,), (8,)), 2)
    observations = torch.randn(2, 5, 3)
    actions = actor(observations)
    assert actions.shape == (2, 5, 2) and actions.abs().max() < 1.0
    assert torch.equal(actor.mode(observations), actions)
    assert torch.unique(actions).numel() == 20


def test_categorical_samples():
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    draws = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 1.0 - 2.0**-24])
    assert categorical_sample(logits.expand(6, 3), draws).tolist() == [0, 0, 1, 1, 2, 2]
    uniform = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(categorical_sample(logits.expand(100_000, 3), uniform), minlength=3)
    torch.testing.assert_close(counts / 100_000, logits.exp(), atol=5e-3, rtol=0.0)
    never = torch.tensor([0.0, -200.0, 0.0])
    assert not (categorical_sample(never.expand(100_000, 3), uniform) == 1).any()
