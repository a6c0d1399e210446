"""SEEM's eigenvalue of matrices whose eigenvalues are known, and against the row × row kernel of its authors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dr3_ray.diagnostics.seem import EXACT, arnoldi, kernel_norm, seem_eigenvalue, self_excitation

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


def with_eigenvalues(values: Tensor, seed: int = 0) -> Tensor:
    """A matrix that is not symmetric, of these eigenvalues."""
    torch.manual_seed(seed)
    basis = torch.randn(len(values), len(values), dtype=torch.float64)
    return basis @ torch.diag(values) @ torch.linalg.inv(basis)


@pytest.mark.parametrize("largest", [0.7, 0.01])
def test_more_features_than_are_solved_for(largest: float):
    """Φ = I and γΦ' = A + I, so that Φᵀ(γΦ' − Φ) = A, whose eigenvalues are known."""
    n = 300
    assert n > 2 * EXACT
    values = torch.cat([torch.tensor([largest], dtype=torch.float64), -torch.linspace(0.0, 1.0, n - 1).double()])
    next_phi = with_eigenvalues(values).T + torch.eye(n, dtype=torch.float64)
    eye, ones = torch.eye(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)
    for scale in (1.0, 1e-3, 1e3):
        found = seem_eigenvalue(scale * eye, scale * next_phi, ones, ones).item()
        size = scale**2 * torch.linalg.norm(next_phi - eye).item()
        assert found == pytest.approx(scale**2 * largest, abs=1e-4 * size)
        assert found == pytest.approx(scale**2 * largest, rel=1e-3) or largest < 0.1


def test_many_features_of_a_network_against_all_eigenvalues():
    torch.manual_seed(0)
    phi = torch.relu(torch.randn(2, 600, 40) @ torch.randn(40, 320))  # of low rank, with units that are dead
    next_phi = torch.relu(phi @ torch.randn(320, 320)) * torch.tensor([0.2, 0.02]).view(2, 1, 1)
    phi[..., :30] = next_phi[..., :30] = 0.0
    discounts, weights = torch.full((600,), 0.99), torch.full((600,), 1 / 600)
    matrix = phi.mT @ (0.99 * next_phi - phi) / 600
    wanted = torch.linalg.eigvals(matrix.double()).real.amax(-1)
    found, norm = seem_eigenvalue(phi, next_phi, discounts, weights), kernel_norm(phi, next_phi, discounts, weights)
    assert wanted[0] > 0.1 * norm[0] and 0.0 <= wanted[1] < 1e-6  # the first excites itself
    assert ((found - wanted).abs() <= 1e-4 * norm).all()
    assert torch.equal(found, seem_eigenvalue(phi, next_phi, discounts, weights))  # from the same start
    alone = [seem_eigenvalue(phi[k], next_phi[k], discounts, weights) for k in range(2)]
    torch.testing.assert_close(found, torch.stack(alone))


def test_a_space_that_is_exhausted_adds_no_eigenvalue():
    values = torch.tensor([-3.0, -2.0] * 10, dtype=torch.float64)  # after two steps nothing is left
    found = torch.linalg.eigvals(arnoldi(with_eigenvalues(values), 8)).real.amax().item()
    assert found == pytest.approx(-2.0)
    assert torch.equal(arnoldi(torch.zeros(9, 9, dtype=torch.float64), 4), torch.zeros(4, 4, dtype=torch.float64))


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
