"""Stacked convolutions against plain torch."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional

from dr3_ray.data.sampler import generator
from dr3_ray.networks.convolutions import Convolutions, StackedConv2d, by_onednn


def generators(*seeds: int) -> list[torch.Generator]:
    return [generator(seed, "init") for seed in seeds]


def test_every_copy_is_its_own_convolution():
    layer = StackedConv2d(generators(0, 1), 3, 4, 3, stride=2, padding=1, copies=2)
    x = torch.randn(5, 2, 2, 3, 9, 9)  # [B, K, C, channel, height, width]
    y = layer(x.flatten(1, 2)).unflatten(1, (2, 2))
    for k in range(2):
        for c in range(2):
            alone = functional.conv2d(x[:, k, c], layer.weight[k, c], layer.bias[k, c], stride=2, padding=1)
            torch.testing.assert_close(y[:, k, c], alone)


def test_first_weights_are_those_of_torch_conv2d():
    ours, theirs = StackedConv2d(generators(0), 100, 50, 2), nn.Conv2d(100, 50, 2)  # uniform in ±1/√400 = ±0.05
    for ours_, theirs_ in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        assert ours_.abs().max() <= 0.05 and theirs_.abs().max() <= 0.05
        assert abs(ours_.std() - 0.05 / 3**0.5) < 0.005


@pytest.mark.parametrize("k", [1, 2])
def test_a_scale_is_one_of_the_input(k: int):
    layer = StackedConv2d(generators(*range(k)), 3, 4, 3)
    x = torch.randn(5, k, 3, 9, 9)
    torch.testing.assert_close(layer(x, 0.1), layer(0.1 * x))


def three(k: int, copies: int = 1) -> Convolutions:
    made = generators(*range(k))
    return Convolutions(
        [
            StackedConv2d(made, 3, 8, 4, stride=2, copies=copies),
            StackedConv2d(made, 8, 16, 3, padding=1, copies=copies),
            StackedConv2d(made, 16, 4, 3, copies=copies),
        ]
    )


def plain(layers: Convolutions, x: Tensor, scale: float = 1.0) -> Tensor:
    """The same of one member, by the equation."""
    y = x[:, 0] * scale
    for i, layer in enumerate(layers):
        y = torch.relu(y) if i else y
        y = functional.conv2d(y, layer.weight[0, 0], layer.bias[0, 0], layer.stride, layer.padding)
    return y.unsqueeze(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_relus_stand_between_them_in_values_and_gradients(dtype: torch.dtype):
    layers = three(1).to(dtype)
    x = torch.randn(6, 1, 3, 20, 20, dtype=dtype, requires_grad=True)
    upstream = torch.randn(6, 1, 4, 7, 7, dtype=dtype)
    given, wanted = upstream.clone(), [x, *layers.parameters()]
    ours, theirs = layers(x, 0.5), plain(layers, x, 0.5)
    torch.testing.assert_close(ours, theirs)
    found = torch.autograd.grad(ours, wanted, upstream)
    for one, other in zip(found, torch.autograd.grad(theirs, wanted, upstream), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(upstream, given)  # what others may still read is not written to


def test_only_what_needs_a_gradient_gets_one():
    layers = three(1)
    for frozen in (layers[0].weight, layers[1].bias):
        frozen.requires_grad_(False)
    wanted = [each for each in layers.parameters() if each.requires_grad]
    x = torch.randn(6, 1, 3, 20, 20)
    for one, other in zip(
        torch.autograd.grad(layers(x).sum(), wanted), torch.autograd.grad(plain(layers, x).sum(), wanted), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_one_network_on_a_cpu_is_convolved_by_onednn_and_for_functorch_without():
    layers = three(1)
    x = torch.randn(6, 1, 20, 20, 3).movedim(-1, 2)  # functorch does not move channels together
    if torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        assert by_onednn(1, x) and not by_onednn(2, x) and not by_onednn(1, x.double())
    of_rows = vmap(grad(lambda row: layers(row.unsqueeze(0)).square().sum()))(x)
    (of_all,) = torch.autograd.grad(layers(x.requires_grad_()).square().sum(), x)
    torch.testing.assert_close(of_rows, of_all)


def test_networks_do_not_mix():
    layers, x = three(2, copies=2), torch.randn(6, 4, 3, 20, 20)
    for n, y in enumerate(layers(x).unbind(1)):
        alone = three(1)
        for one, layer in zip(alone, layers, strict=True):
            one.weight.data, one.bias.data = (part.flatten(0, 1)[n][None, None] for part in (layer.weight, layer.bias))
        torch.testing.assert_close(alone(x[:, n : n + 1])[:, 0], y)
