"""A gradient penalty is right through the fast products too."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dr3_ray.networks import blocks, products
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import ActionInputCritic, DiscreteCritic, MultiHeadCritic

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
CRITICS = {
    "discrete": lambda sources, architecture: DiscreteCritic(sources, architecture, 3),
    "input": lambda sources, architecture: ActionInputCritic(sources, architecture, 3),
    "heads": lambda sources, architecture: MultiHeadCritic(sources, architecture, 3, 4),
    "continuous": lambda sources, architecture: ContinuousCritic(sources, architecture, 2),
}
SHAPES = {"vectors": ((5,), "flat"), "images": ((8, 8, 3), "impala")}


def made(critic: str, shape: str, width: int) -> tuple[nn.Module, list[Tensor]]:
    observations, encoder = SHAPES[shape]
    sources = [torch.Generator().manual_seed(0)]
    network = CRITICS[critic](sources, Architecture(observations, (width,), encoder))
    source = torch.Generator().manual_seed(1)
    inputs = [torch.randn(1, 64, *observations, generator=source, requires_grad=True)]
    if critic == "continuous":
        inputs.append(torch.randn(1, 64, 2, generator=source, requires_grad=True))
    return network, inputs


def penalty(network: nn.Module, inputs: list[Tensor]) -> dict[str, Tensor | None]:
    """The gradient of ‖∂Q/∂x‖² in every weight."""
    q, _ = network(*inputs)
    slopes = torch.autograd.grad(q.sum(), inputs[-1], create_graph=True)[0]
    names, weights = zip(*((name, each) for name, each in network.named_parameters() if "weight" in name), strict=True)
    return dict(zip(names, torch.autograd.grad(slopes.square().sum(), weights, allow_unused=True), strict=True))


@pytest.mark.parametrize("critic", CRITICS)
def test_a_gradient_penalty_trains_every_weight(critic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "ONEDNN_IS_FASTER", False)
    found = penalty(*made(critic, "vectors", 16))
    assert all(each is not None and each.isfinite().all() and each.any() for each in found.values())


@needs_onednn
@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("shape", SHAPES)
def test_fast_products_have_the_second_gradients_of_plain_ones(
    critic: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, inputs = made(critic, shape, 512)
    double, exact = copy.deepcopy(network).double(), [each.detach().double().requires_grad_() for each in inputs]
    expected = penalty(double, exact)
    monkeypatch.setattr(products, "LEAST", 0)
    monkeypatch.setattr(products, "ONEDNN_IS_FASTER", True)
    found = penalty(network, inputs)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert values is not None and values.any() == expected[name].any(), name
        scale = float(expected[name].abs().amax())
        torch.testing.assert_close(values.double(), expected[name], rtol=1e-3, atol=1e-4 * scale, msg=name)


def test_means_in_blocks_have_second_gradients_too(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = made("discrete", "vectors", 16)
    weights = [each for name, each in network.named_parameters() if "weight" in name]

    def values(observations: Any) -> Tensor:
        return network(observations)[0].square().mean(-1)

    def second(mean: Tensor) -> tuple[Tensor, ...]:
        slopes = torch.autograd.grad(mean.sum(), weights, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in slopes), weights)

    monkeypatch.setattr(blocks, "CACHED", 2**10)
    assert blocks.rows_in_cache(network, 1, 64) < 64
    expected = second(values(inputs[0]).mean(-1))
    found = second(blocks.mean_in_blocks(values, network, [inputs[0].detach()], 1))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
