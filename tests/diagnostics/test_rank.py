"""Ranks of matrices with known singular values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dr3_ray.diagnostics.rank import effective_rank, singular_values, stable_rank


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


def test_stable_rank_of_known_singular_values():
    matrix = with_singular_values(2.0, 1.0, 1.0)
    torch.testing.assert_close(singular_values(matrix), torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64))
    assert stable_rank(matrix).item() == pytest.approx(6.0 / 4.0)
    degenerate = torch.stack([torch.zeros(20, 4), torch.ones(20, 4), torch.full((20, 4), torch.inf)])
    assert stable_rank(degenerate)[:2].tolist() == [0.0, 1.0] and stable_rank(degenerate)[2].isnan()
    assert singular_values(torch.ones(2, 5))[1:].abs().max() < 1e-7  # fewer rows than features


@given(rows=st.integers(1, 40), features=st.integers(1, 12), seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0))
@settings(max_examples=50)
def test_a_stable_rank_is_at_most_the_rank_whatever_the_scale(rows: int, features: int, seed: int, scale: float):
    torch.manual_seed(seed)
    phi = torch.randn(rows, features, dtype=torch.float64)
    assert 1.0 <= stable_rank(phi).item() <= min(rows, features) * (1 + 1e-6)
    assert stable_rank(scale * phi).item() == pytest.approx(stable_rank(phi).item(), rel=1e-4)
