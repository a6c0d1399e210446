"""Effective rank of matrices with known singular values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dr3_ray.diagnostics.rank import effective_rank


def with_singular_values(*sigma: float, rows: int = 50) -> Tensor:
    torch.manual_seed(0)
    left = torch.linalg.qr(torch.randn(rows, len(sigma), dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(len(sigma), len(sigma), dtype=torch.float64))[0]
    return left @ torch.tensor(sigma, dtype=torch.float64).diag() @ right


@pytest.mark.parametrize(
    ("sigma", "rank"),
    [
        ((1.0, 1.0, 1.0, 1.0), 4),
        ((97.0, 2.5, 0.5), 2),  # shares 0.97, 0.995: not squared, or the first alone would do
        ((100.0, 0.5, 0.4), 1),
        ((5.0, 5.0, 0.0, 0.0), 2),
    ],
)
def test_known_singular_values(sigma: tuple[float, ...], rank: int):
    assert effective_rank(with_singular_values(*sigma)).item() == rank
    assert effective_rank(with_singular_values(*sigma).float()).item() == rank
    assert effective_rank(with_singular_values(*sigma) * 1e3).item() == rank  # a scale does not matter


def test_threshold():
    matrix = with_singular_values(60.0, 30.0, 10.0)
    assert [effective_rank(matrix, delta).item() for delta in (0.5, 0.15, 0.05)] == [1, 2, 3]


def test_degenerate_matrices():
    matrices = torch.ones(3, 20, 4)
    matrices[0] = 0.0
    matrices[2, 3, 1] = torch.nan
    rank = effective_rank(matrices)
    assert rank[:2].tolist() == [0.0, 1.0] and rank[2].isnan()


@given(rows=st.integers(1, 40), features=st.integers(1, 12), decay=st.floats(0.1, 1.0), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_against_singular_values(rows: int, features: int, decay: float, seed: int):
    torch.manual_seed(seed)
    phi = torch.randn(2, rows, features) * decay ** torch.arange(features)
    sigma = torch.linalg.svdvals(phi.double())
    share = sigma.cumsum(-1) / sigma.sum(-1, keepdim=True)
    expected = (share < 0.99).sum(-1) + 1
    safe = ((share - 0.99).abs() > 1e-6).all(-1)  # on the threshold, rounding decides
    assert torch.equal(effective_rank(phi)[safe], expected[safe].float())
