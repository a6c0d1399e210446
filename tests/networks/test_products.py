"""Products by oneDNN and column by column are those of the batched ones, with their gradients."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from dr3_ray.networks import products
from dr3_ray.networks.precision import matmul_precision

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


@contextmanager
def all_by_onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever the sizes and the machine."""
    with monkeypatch.context() as patch:
        patch.setattr(products, "LEAST", 0)
        patch.setattr(products, "ONEDNN_IS_FASTER", True)
        yield


def drawn(n: int, sizes: tuple[int, ...], rows: int = 40) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    source = torch.Generator().manual_seed(n)
    x = torch.randn(n, rows, sizes[0], generator=source, requires_grad=True)
    layers = []
    for n_in, n_out in itertools.pairwise(sizes):
        weight = torch.randn(n, n_in, n_out, generator=source) / n_in**0.5
        layers.append((weight.requires_grad_(), torch.randn(n, 1, n_out, generator=source, requires_grad=True)))
    return x, layers


def value_and_gradients(y: Tensor, x: Tensor, layers: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    weighted = (y * torch.arange(y.numel()).view_as(y).cos()).sum()
    return [y, *torch.autograd.grad(weighted, [x, *(each for layer in layers for each in layer)])]


@needs_onednn
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("sizes", [(5, 7), (5, 12, 7), (6, 8, 8, 8), (1, 12, 7), (5, 1, 7)])
def test_relu_layers_have_the_values_and_gradients_of_the_batched_products(
    n: int, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, layers = drawn(n, sizes)
    expected = value_and_gradients(products.relu_layers(x, layers), x, layers)
    with all_by_onednn(monkeypatch):
        assert products.by_onednn(x, layers)
        y = products.relu_layers(x, layers)
        assert "_Layers" in str(y.grad_fn)
        found = value_and_gradients(y, x, layers)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert (found[0] == 0).any() and (found[0] > 0).any()


@needs_onednn
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("sizes", [(5, 12, 7, 1), (1, 12, 7, 1), (5, 12, 1, 1)])
@pytest.mark.parametrize("n", [1, 3])
def test_a_column_behind_them_is_a_layer_of_its_own(
    n: int, sizes: tuple[int, ...], precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is never rounded."""
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("a CPU without products in bf16")
    x, [*layers, column] = drawn(n, sizes)

    def value(column: Any = None) -> Tensor:
        return products.relu_layers(x, layers, column)

    def apart() -> Tensor:
        return products.affine(value(), *column)

    plain = [value_and_gradients(y, x, [*layers, column]) for y in (apart(), value(column))]
    with all_by_onednn(monkeypatch), matmul_precision(precision, x.device):
        assert "_Layers" in str(value(column).grad_fn)
        quick = [value_and_gradients(y, x, [*layers, column]) for y in (apart(), value(column))]
    for ours, theirs in (plain, quick):
        for one, other in zip(ours, theirs, strict=True):
            assert one.shape == other.shape and one.dtype == other.dtype == torch.float32
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    exact, found = plain[0][0], quick[1][0]
    assert (found - exact).norm() < (1e-6 if precision == "fp32" else 1e-2) * exact.norm()


@needs_onednn
@pytest.mark.parametrize("n", [1, 2])
def test_what_needs_no_gradient_gets_none(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, layers = drawn(n, (5, 7, 4))
    fixed = [(weight.detach(), bias.detach()) for weight, bias in layers]
    with all_by_onednn(monkeypatch):
        (of_x,) = torch.autograd.grad(products.relu_layers(x, fixed).sum(), x)
        data = x.detach()
        of_layers = torch.autograd.grad(products.relu_layers(data, layers).sum(), [layers[0][0], layers[1][1]])
        assert not products.relu_layers(data, fixed).requires_grad
    expected = torch.autograd.grad(
        products.relu_layers(x, layers).sum(), [x, layers[0][0], layers[1][1]], materialize_grads=True
    )
    for one, other in zip((of_x, *of_layers), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_an_affine_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    x, [(weight, bias)] = drawn(2, (9, 3))
    expected = value_and_gradients(torch.baddbmm(bias, x, weight), x, [(weight, bias)])
    with all_by_onednn(monkeypatch):
        found = value_and_gradients(products.affine(x, weight, bias), x, [(weight, bias)])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [8, 600])
def test_one_column(rows: int) -> None:
    x, [(weight, bias)] = drawn(2, (32, 1), rows)
    expected = value_and_gradients(torch.baddbmm(bias, x, weight), x, [(weight, bias)])
    y = products.affine(x, weight, bias)
    assert ("Stack" in str(y.grad_fn)) == (rows * 32 >= products.LONG)
    for one, other in zip(value_and_gradients(y, x, [(weight, bias)]), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="a CPU without products of bfloat16")
def test_factors_of_bfloat16_are_those_of_the_products_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding what stands between two layers is what the next product would have done."""
    x, layers = drawn(2, (16, 32, 32))
    exact = value_and_gradients(products.relu_layers(x, layers), x, layers)
    with matmul_precision("bf16"), all_by_onednn(monkeypatch):
        found = value_and_gradients(products.relu_layers(x, layers), x, layers)

    def rounded(values: Tensor) -> Tensor:
        return values + (values.bfloat16().float() - values).detach()

    by_hand = x
    for weight, bias in layers:
        by_hand = rounded(torch.relu(rounded(by_hand) @ rounded(weight) + rounded(bias)))
    for one, other, third in zip(found, value_and_gradients(by_hand, x, layers), exact, strict=True):
        assert one.dtype == torch.float32
        # gradients are rounded on their way, too, and the ReLU of a sum near 0 may fall on either side
        assert (one - other.detach()).norm() < 0.02 * third.norm()
    torch.testing.assert_close(found[0], by_hand, rtol=0.01, atol=0.01)
    assert not torch.allclose(found[0], exact[0], rtol=1e-4, atol=1e-4)
