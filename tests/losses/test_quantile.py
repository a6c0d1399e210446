"""The quantile Huber loss, worked by hand, and what it regresses to."""

import pytest
import torch
from torch import tensor

from dr3_ray.losses.quantile import quantile_huber, quantile_target


def test_targets_by_hand():
    next_quantiles = tensor([[[1.0, 3.0], [1.0, 3.0]]], requires_grad=True)
    targets = quantile_target(tensor([[0.5, 0.5]]), tensor([[0.0, 1.0]]), next_quantiles, tensor([[0.9]]))
    torch.testing.assert_close(targets, tensor([[[1.4, 3.2], [0.5, 0.5]]]))
    assert not targets.requires_grad


def test_value_and_gradient_by_hand():
    # θ = (0, 1), τ̂ = (¼, ¾), y = (½, 3): u = ½ and 3 for the first, −½ and 2 for the second
    quantiles, targets = tensor([[0.0, 1.0]], requires_grad=True), tensor([[0.5, 3.0]])
    loss = quantile_huber(quantiles, targets, 1.0)
    first = (0.25 * 0.125 + 0.25 * 2.5) / 2.0
    second = (0.25 * 0.125 + 0.75 * 1.5) / 2.0
    assert loss.item() == pytest.approx(first + second)
    loss.sum().backward()
    # ∂L/∂θ_i = −mean_j weight · clip(u, −1, 1)
    assert quantiles.grad is not None
    torch.testing.assert_close(quantiles.grad[0], tensor([-(0.25 * 0.5 + 0.25) / 2.0, -(-0.25 * 0.5 + 0.75) / 2.0]))


def test_kappa_of_each_member():
    quantiles, targets = torch.zeros(3, 1, 1), torch.full((3, 1, 1), 3.0)
    loss = quantile_huber(quantiles, targets, tensor([1.0, 2.0, 4.0]).view(-1, 1, 1, 1))
    # linear beyond 1 and beyond 2, where it is κ (3 − ½κ); still square at 3
    torch.testing.assert_close(loss, tensor([[0.5 * 2.5], [0.5 * 4.0], [0.5 * 4.5]]))


def test_its_minimum_are_the_quantiles():
    # below κ → 0 the loss is stationary at the τ̂-quantiles of the targets: of 0 … 99, those at (1, 3, 5, 7, 9) / 10
    targets = torch.arange(100.0, dtype=torch.float64).unsqueeze(0)
    quantiles = tensor([[9.5, 29.5, 49.5, 69.5, 89.5]], dtype=torch.float64)
    for shift, sign in ((-1.0, -1.0), (0.0, 0.0), (1.0, 1.0)):
        shifted = (quantiles + shift).requires_grad_()
        (gradient,) = torch.autograd.grad(quantile_huber(shifted, targets, 1e-3).sum(), shifted)
        torch.testing.assert_close(gradient, torch.full_like(gradient, sign * 1e-5), rtol=1e-6, atol=1e-12)
