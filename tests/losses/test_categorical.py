"""Categorical values: by hand, in closed form, and what their cross-entropy is least at."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor

from dr3_ray.losses import categorical

DOUBLE = torch.float64


def edges(bins: int) -> Tensor:
    """Bins of width 1 from 0 on."""
    return torch.arange(bins + 1, dtype=DOUBLE).unsqueeze(0)


def centres(bins: int) -> Tensor:
    return edges(bins)[:, :-1] + 0.5


def test_hl_gauss_by_hand():
    # σ = 1, y = 1 on bins [0, 1], [1, 2], [2, 3]: Φ(0) − Φ(−1), Φ(1) − Φ(0), Φ(2) − Φ(1), over their sum
    one, two = 0.3413447461, 0.4772498681
    whole = one + two
    found = categorical.hl_gauss(tensor([1.0], dtype=DOUBLE), edges(3), 1.0)
    torch.testing.assert_close(found, tensor([[one, one, two - one]], dtype=DOUBLE) / whole)


def test_two_hot_by_hand():
    found = categorical.two_hot(tensor([0.5, 1.75, 2.5]), tensor([[0.5, 1.5, 2.5]]))
    assert torch.equal(found, tensor([[1.0, 0.0, 0.0], [0.0, 0.75, 0.25], [0.0, 0.0, 1.0]]))


@given(st.floats(0.3, 2.0), st.floats(16.0, 24.0))
def test_hl_gauss_recovers_its_mean(sigma: float, target: float):
    """Up to the ripple of bins, w/π Σ_k exp(−2π²k²σ²) sin(2πky) / k (Poisson's summation): 5 · 10⁻⁶ w at σ = 0.75."""
    found = categorical.hl_gauss(tensor([target], dtype=DOUBLE), edges(40), sigma)
    torch.testing.assert_close(found.sum(-1), torch.ones(1, dtype=DOUBLE))
    mean = (found * centres(40)).sum(-1).item()
    ripple = sum(
        math.exp(-2.0 * (math.pi * k * sigma) ** 2) * math.sin(2.0 * math.pi * k * target) / (math.pi * k)
        for k in range(1, 9)
    )
    assert mean == pytest.approx(target + ripple, abs=1e-9)
    variance = (found * (centres(40) - mean).square()).sum().item()
    assert variance == pytest.approx(sigma**2 + 1.0 / 12.0, abs=0.1)  # Sheppard's correction
    if sigma >= 0.75:
        assert abs(mean - target) < 5e-6


@given(st.floats(0.0, 1.0), st.integers(2, 60), st.floats(-1e3, 1e3), st.floats(1e-2, 1e3))
def test_two_hot_is_exact(place: float, bins: int, low: float, span: float):
    points = (low + span * torch.linspace(0.0, 1.0, bins, dtype=DOUBLE)).unsqueeze(0)
    target = (points[0, 0] + place * (points[0, -1] - points[0, 0])).view(1)
    found = categorical.two_hot(target, points)
    assert (found * points).sum().item() == pytest.approx(target.item(), rel=1e-9, abs=1e-9 * span)
    assert found.sum().item() == pytest.approx(1.0) and (found > 1e-9).sum() <= 2


def test_the_cross_entropy_and_its_gradient():
    logits = torch.randn(4, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    goal = torch.rand(4, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)).softmax(-1)
    loss = categorical.cross_entropy(logits, goal)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, goal, reduction="none"))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(gradient, logits.softmax(-1) - goal)


def test_the_slope_is_the_gradient_of_the_mean():
    logits = torch.randn(4, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    points = tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]], dtype=DOUBLE)
    (gradient,) = torch.autograd.grad(categorical.expectation(logits, points).sum(), logits)
    torch.testing.assert_close(categorical.expectation_slope(logits, points), gradient)
    assert categorical.expectation(torch.zeros(1, 5, dtype=DOUBLE), points).item() == 0.0


def test_what_lies_outside():
    found = categorical.outside(tensor([[-1.5, -1.0, 0.0, 2.0, 2.5]]), -1.0, tensor([[2.0]]))
    assert torch.equal(found, tensor([[1.0, 0.0, 0.0, 0.0, 1.0]]))
