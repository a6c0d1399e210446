"""What the critic's layers make of a row, and their gradients, worked by hand."""

import math

import torch
from torch import Tensor, nn, tensor

from dr3_ray.data.sampler import generator
from dr3_ray.networks.encoders import SpectralLinear, StackedLayerNorm, StackedLinear, UnitLength
from dr3_ray.networks.stochastic import Bottleneck, Dropout


def value_and_gradient(layer: nn.Module, row: list[float]) -> tuple[Tensor, Tensor]:
    """The layer's output for one row of one critic, and the gradient of its first component in the row."""
    x = tensor(row).view(1, 1, 1, -1).requires_grad_()
    y: Tensor = layer(x)
    y[..., 0].sum().backward()
    assert x.grad is not None
    return y.detach().flatten(), x.grad.flatten()


def test_unit_length():
    # y = (3, 4) / 5, ∂y_0 = ((1, 0) − y_0 y) / 5
    y, gradient = value_and_gradient(UnitLength(), [3.0, 4.0])
    torch.testing.assert_close(y, tensor([0.6, 0.8]))
    torch.testing.assert_close(gradient, tensor([1.0 - 0.36, -0.48]) / 5.0)


def test_layer_norm():
    # mean 1, variance 2: y = (−1, −1, 2) / √2 and ∂y_0 = ((1, 0, 0) − 1/3 − y_0 y / 3) / √2, y_0 y = (½, ½, −1);
    # then the weight 2 and the bias 1
    norm = StackedLayerNorm(1, 3)
    norm.weight.data.fill_(2.0)
    norm.bias.data.fill_(1.0)
    y, gradient = value_and_gradient(norm, [0.0, 0.0, 3.0])
    torch.testing.assert_close(y, 2.0 * tensor([-1.0, -1.0, 2.0]) / math.sqrt(2.0) + 1.0)
    expected = 2.0 * tensor([1.0 - 1.0 / 3.0 - 1.0 / 6.0, -1.0 / 3.0 - 1.0 / 6.0, 0.0]) / math.sqrt(2.0)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_dropout():
    # with p = ½ what is left counts twice, in value and gradient
    layer = Dropout(tensor([0.5]))
    layer.generators = [generator(0, "layers")]
    outcomes = set()
    for _ in range(20):
        y, gradient = value_and_gradient(layer, [3.0, 5.0])
        assert gradient.tolist() == [y[0].item() / 3.0, 0.0]
        outcomes.add(tuple(y.tolist()))
    assert outcomes == {(0.0, 0.0), (6.0, 0.0), (0.0, 10.0), (6.0, 10.0)}


def test_spectral_norm():
    # W = diag(2, 1): σ = 2 moves with w_00 alone, and (x W / σ)_1 = (3 w_01 + 4 w_11) / w_00
    linear = StackedLinear([generator(0, "init")], 2, 2)
    linear.weight.data = torch.diag(tensor([2.0, 1.0])).view(1, 1, 2, 2)
    linear.bias.data.zero_()
    layer = SpectralLinear(linear)
    y = layer(tensor([[[[3.0, 4.0]]]]))
    torch.testing.assert_close(y.flatten(), tensor([3.0, 2.0]))
    (gradient,) = torch.autograd.grad(y[..., 1].sum(), layer.weight)
    torch.testing.assert_close(gradient[0, 0], tensor([[-4.0 / 2.0**2, 3.0 / 2.0], [0.0, 4.0 / 2.0]]))


def test_bottleneck():
    # mean x_0 and log std 0 + b: z = x_0 + e^b ε, ∂z = 1 in the mean's weight times x_0, (z − x_0) in b
    layer = Bottleneck([generator(0, "init")], 1, 1)
    layer.linear.weight.data = tensor([[[[1.0, 0.0]]]])
    layer.linear.bias.data = tensor([[[[0.0, math.log(0.5)]]]])
    layer.generators = [generator(0, "layers")]
    z = layer(tensor([[[[3.0]]]]))
    assert z.item() != 3.0
    z.sum().backward()
    torch.testing.assert_close(layer.linear.bias.grad.flatten(), tensor([1.0, z.item() - 3.0]))
    torch.testing.assert_close(layer.linear.weight.grad.flatten(), 3.0 * tensor([1.0, z.item() - 3.0]))
