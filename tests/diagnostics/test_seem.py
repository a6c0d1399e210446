"""SEEM's eigenvalue of matrices whose eigenvalues are known, and against the row × row kernel of its authors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dr3_ray.diagnostics.seem import kernel_norm, seem_eigenvalue, self_excitation

EYE = torch.eye(2, dtype=torch.float64)


def both(phi: Tensor, next_phi: Tensor, discounts: Tensor) -> tuple[float, float]:
    weights = torch.ones(len(phi), dtype=phi.dtype)
    return tuple(f(phi, next_phi, discounts, weights).item() for f in (seem_eigenvalue, kernel_norm))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("next_phi", "gamma", "largest", "norm"),
    [
        ([[0.0, 1.0], [-1.0, 0.0]], 0.5, -1.0, math.sqrt(2.5)),  # −1 ± 0.5i: the real part counts
        ([[3.0, 0.0], [0.0, 0.0]], 0.5, 0.5, math.sqrt(0.25 + 1.0)),  # diag(0.5, −1)
        ([[1.0, 0.0], [0.0, 1.0]], 1.0, 0.0, 0.0),  # γΦ' = Φ
        ([[0.0, 4.0], [4.0, 0.0]], 0.5, 1.0, math.sqrt(10.0)),  # [[−1, 2], [2, −1]]: 1 and −3
    ],
)
def test_known_eigenvalues(next_phi: list[list[float]], gamma: float, largest: float, norm: float):
    found = both(EYE, torch.tensor(next_phi, dtype=torch.float64), torch.full((2,), gamma, dtype=torch.float64))
    assert found == pytest.approx((largest, norm))


def test_where_nothing_is_bootstrapped_it_is_the_least_square_of_a_singular_value():
    phi = torch.diag(torch.tensor([3.0, 2.0], dtype=torch.float64))
    assert both(phi, 1e3 * phi, torch.zeros(2, dtype=torch.float64)) == pytest.approx((-4.0, math.sqrt(81.0 + 16.0)))


def test_rows_that_are_not_trained_on_do_not_count_and_of_critics_the_largest_does():
    phi = torch.eye(3)[:, :2].expand(1, 2, 3, 2).clone()  # the third row is zeros
    phi[0, :, 2] = 100.0
    next_phi = torch.zeros(1, 2, 3, 2)
    next_phi[0, 1, 0, 0] = 3.0
    trained = torch.tensor([[1.0, 1.0, 0.0]])
    found = self_excitation(phi, next_phi, trained, trained, 0.5 * trained)
    assert found["seem_eigenvalue"].item() == pytest.approx(0.5 / 2)  # a mean over two rows; the other critic has −0.5
    assert found["seem_normalized"].item() == pytest.approx(0.5 / math.sqrt(1.25))


def test_what_is_not_finite_is_nan_and_zeros_are_zero():
    phi, ones = torch.ones(2, 1, 4, 3), torch.ones(2, 4)
    phi[0, 0, 1, 2], phi[1] = torch.nan, 0.0
    for values in self_excitation(phi, phi, ones, ones, 0.9 * ones).values():
        assert values[0].isnan() and values[1] == 0.0


@given(rows=st.integers(2, 12), features=st.integers(1, 6), seed=st.integers(0, 1000), scale=st.floats(0.1, 10.0))
@settings(max_examples=50)
def test_against_the_kernel_of_rows(rows: int, features: int, seed: int, scale: float):
    """A = (ΓΦ' − Φ) Φᵀ has the same eigenvalues other than 0, and both numbers go with the square of φ's units."""
    torch.manual_seed(seed)
    phi, next_phi = torch.randn(2, rows, features, dtype=torch.float64)
    discounts = 0.99 * (torch.rand(rows, dtype=torch.float64) < 0.8)
    kernel = (discounts[:, None] * next_phi - phi) @ phi.T
    largest, norm = both(phi, next_phi, discounts)
    assert norm == pytest.approx(torch.linalg.norm(kernel).item())
    assert max(largest, 0.0) == pytest.approx(max(torch.linalg.eigvals(kernel).real.max().item(), 0.0), abs=1e-9)
    scaled = both(scale * phi, scale * next_phi, discounts)
    assert scaled == pytest.approx((scale**2 * largest, scale**2 * norm), abs=1e-9)
