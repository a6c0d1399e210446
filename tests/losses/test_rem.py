"""Mixtures of heads, worked by hand."""

import pytest
import torch
from torch import tensor

from dr3_ray.losses import rem


def test_mixtures_by_hand():
    uniform = tensor([[0.1, 0.3, 0.6], [0.5, 0.0, 0.0]])
    torch.testing.assert_close(rem.mixture(uniform, "uniform"), tensor([[0.1, 0.3, 0.6], [1.0, 0.0, 0.0]]))
    torch.testing.assert_close(rem.mixture(uniform, "one_hot"), tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    logs = tensor([0.1053605, 0.3566749, 0.9162907])  # −log of 0.9, 0.7 and 0.4
    torch.testing.assert_close(rem.mixture(uniform, "dirichlet")[0], logs / logs.sum())


@pytest.mark.parametrize(
    ("law", "second_moment"),
    # E α² of 4 heads: Dirichlet(1) has 2 / (4 · 5); one of 4 heads has 1/4; uniforms normalised lie nearer to 1/4²
    [("dirichlet", 0.1), ("one_hot", 0.25), ("uniform", None)],
)
def test_laws(law: rem.Law, second_moment: float | None):
    weights = rem.mixture(torch.rand(100_000, 4, generator=torch.Generator().manual_seed(0)), law)
    assert (weights >= 0.0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(100_000))
    torch.testing.assert_close(weights.mean(0), torch.full((4,), 0.25), atol=5e-3, rtol=0.0)
    found = weights.square().mean().item()
    assert found == pytest.approx(second_moment, abs=2e-3) if second_moment else 1 / 16 < found < 0.09


def test_the_largest_draw_is_finite():
    largest = tensor([[1.0 - 2.0**-24, 0.0]])
    torch.testing.assert_close(rem.mixture(largest, "dirichlet"), tensor([[1.0, 0.0]]))


def test_a_mixture_by_hand():
    heads = tensor([[[[1.0, 3.0], [4.0, 0.0]]]], requires_grad=True)  # one member, one row, two actions, two heads
    mixed = rem.mix(heads, tensor([[0.25, 0.75]]))
    torch.testing.assert_close(mixed, tensor([[[2.5, 1.0]]]))
    mixed[0, 0, 1].backward()
    torch.testing.assert_close(heads.grad, tensor([[[[0.0, 0.0], [0.25, 0.75]]]]))
