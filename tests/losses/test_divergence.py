"""Divergences from samples, worked by hand and against what they estimate."""

import math

import pytest
import torch
from torch import tensor
from torch.distributions import Normal, kl_divergence

from dr3_ray.losses import divergence


def test_kl_estimate_is_a_mean_of_log_ratios():
    log_probs = tensor([[0.0, -1.0]], requires_grad=True)
    behaviour = tensor([[-2.0, -2.0]], requires_grad=True)
    found = divergence.kl_estimate(log_probs, behaviour)
    torch.testing.assert_close(found, tensor([1.5]))
    found.sum().backward()
    torch.testing.assert_close(log_probs.grad, tensor([[0.5, 0.5]]))
    torch.testing.assert_close(behaviour.grad, tensor([[-0.5, -0.5]]))


def test_kl_estimate_approaches_the_divergence():
    torch.manual_seed(0)
    policy, behaviour = Normal(tensor(0.3), tensor(0.5)), Normal(tensor(-0.2), tensor(1.0))
    samples = policy.sample((1, 400_000))
    found = divergence.kl_estimate(policy.log_prob(samples), behaviour.log_prob(samples))
    torch.testing.assert_close(found, kl_divergence(policy, behaviour).view(1), rtol=0.01, atol=0.0)


def test_kernels():
    x, y = tensor([[0.0, 0.0]], requires_grad=True), tensor([[3.0, 4.0], [0.0, 0.0]])
    laplacian, gaussian = divergence.laplacian_kernel(x, y, 2.0), divergence.gaussian_kernel(x, y, 5.0)
    torch.testing.assert_close(laplacian, tensor([[math.exp(-3.5), 1.0]]))
    torch.testing.assert_close(gaussian, tensor([[math.exp(-0.5), 1.0]]))
    # k · sign(y − x) / σ and k · (y − x) / σ²
    for kernel, expected in ((laplacian, tensor([[0.5, 0.5]])), (gaussian, tensor([[3.0, 4.0]]) / 25.0)):
        (gradient,) = torch.autograd.grad(kernel[0, 0], x)
        torch.testing.assert_close(gradient, kernel[0, 0].detach() * expected)


def test_mmd_by_hand():
    # k(x, x') over {0, 1}²: (1 + 1 + 2 e⁻¹) / 4; k(y, y) = 1; k(x, y) over {0, 1} × {1}: (e⁻¹ + 1) / 2
    x, y, e = tensor([[[0.0], [1.0]]]), tensor([[[1.0]]]), math.exp(-1.0)
    found = divergence.mmd(x, y, divergence.laplacian_kernel, 1.0)
    torch.testing.assert_close(found, tensor([(2.0 + 2.0 * e) / 4.0 + 1.0 - (e + 1.0)]))


def test_the_gradient_of_mmd_by_hand():
    # Gaussian kernel, σ = 1, e = k(0, 1): (2 + 2e) / 4 + 1 − (e + 1) = (1 − e) / 2, and dk(0, 1) = e (1, −1): x_0 has
    # ½ e from its own kind and −e from y, x_1 has −½ e, y has e
    x, y = tensor([[[0.0], [1.0]]], requires_grad=True), tensor([[[1.0]]], requires_grad=True)
    e = math.exp(-0.5)
    found = divergence.mmd(x, y, divergence.gaussian_kernel, 1.0)
    torch.testing.assert_close(found, tensor([(1.0 - e) / 2.0]))
    found.sum().backward()
    torch.testing.assert_close(x.grad, tensor([[[-0.5 * e], [-0.5 * e]]]))
    torch.testing.assert_close(y.grad, tensor([[[e]]]))


@pytest.mark.parametrize("kernel", divergence.KERNELS.values())
def test_mmd_is_zero_between_equals_and_knows_members(kernel: divergence.Kernel):
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 4, 2), torch.randn(2, 3, 5, 2)
    torch.testing.assert_close(divergence.mmd(x, x, kernel, 0.7), torch.zeros(2, 3))
    together = divergence.mmd(x, y, kernel, tensor([0.5, 2.0]).view(-1, 1, 1, 1))
    for member, sigma in enumerate((0.5, 2.0)):
        torch.testing.assert_close(together[member], divergence.mmd(x[member], y[member], kernel, sigma))
    assert (together > 0.0).all()
