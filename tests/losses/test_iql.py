"""The expectile and the weights of IQL, worked by hand."""

import math

import torch
from torch import tensor
from torch.autograd import gradcheck

from dr3_ray.losses import iql


def test_expectile_loss_and_its_gradient():
    # u = 2: 0.7 · 4, gradient 2 · 0.7 · 2; u = −1: 0.3 · 1, gradient −2 · 0.3; u = 0: nothing
    advantages = tensor([2.0, -1.0, 0.0], requires_grad=True)
    loss = iql.expectile_loss(advantages, 0.7)
    torch.testing.assert_close(loss, tensor([2.8, 0.3, 0.0]))
    loss.sum().backward()
    torch.testing.assert_close(advantages.grad, tensor([2.8, -0.6, 0.0]))


def test_the_expectile_of_each_member():
    loss = iql.expectile_loss(tensor([[1.0, -1.0], [1.0, -1.0]]), tensor([[0.5], [0.9]]))
    torch.testing.assert_close(loss, tensor([[0.5, 0.5], [0.9, 0.1]]))


def test_the_minimum_is_the_expectile():
    # of {0, 1} in equal parts: τ (1 − v) = (1 − τ) v, so v = τ
    values = torch.linspace(0.0, 1.0, 1001)
    losses = sum(iql.expectile_loss(q - values, 0.9) for q in (0.0, 1.0))
    assert values[losses.argmin()] == 0.9  # type: ignore[union-attr]


def test_weights_are_clipped_above_and_have_no_gradient():
    # exp(2 · log 3) = 9; exp(2 · 5) is over the clip; exp(−∞) = 0; an overflow is clipped as well
    advantages = tensor([math.log(3.0), 5.0, -math.inf, 1e4], requires_grad=True)
    weights = iql.advantage_weights(advantages, 2.0, 100.0)
    torch.testing.assert_close(weights, tensor([9.0, 100.0, 0.0, 100.0]))
    assert not weights.requires_grad
    each = iql.advantage_weights(advantages[:2].repeat(2, 1), tensor([[1.0], [0.0]]), tensor([[2.0], [0.5]]))
    torch.testing.assert_close(each, tensor([[2.0, 2.0], [0.5, 0.5]]))


def test_gradients_against_finite_differences():
    torch.manual_seed(0)
    advantages = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda advantages: iql.expectile_loss(advantages, 0.8), (advantages,))
