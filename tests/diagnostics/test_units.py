"""Dead and dormant units, counted by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dr3_ray.diagnostics.units import dead_units, dormant_units, idle_units

PHI = torch.tensor([[0.0, 4.0, 0.1, 0.0], [0.0, -4.0, 0.1, 8.0]])  # scores 0, 4, 0.1 and 4 over their mean 2.025


@pytest.mark.parametrize(("tau", "share"), [(0.0, 0.25), (0.025, 0.25), (0.05, 0.5), (1.9, 0.5), (2.0, 1.0)])
def test_dormant_units_by_hand(tau: float, share: float):
    assert dormant_units(PHI, tau).item() == share


def test_dead_units_by_hand():
    assert dead_units(PHI).item() == 0.25
    assert dead_units(PHI[:1]).item() == 0.5  # the last is 0 at the first row alone
    assert dormant_units(torch.zeros(3, 5)).item() == dead_units(torch.zeros(3, 5)).item() == 1.0


def test_critics_are_averaged_and_members_are_not():
    phi = torch.stack([torch.stack([PHI, torch.ones(2, 4)]), torch.stack([torch.zeros(2, 4), PHI])])
    assert {name: values.tolist() for name, values in idle_units(phi).items()} == {
        "dead_units": [0.125, 0.625],
        "dormant_units": [0.125, 0.625],
    }


@given(rows=st.integers(1, 10), units=st.integers(1, 8), seed=st.integers(0, 1000), power=st.integers(-8, 8))
@settings(max_examples=50)
def test_dead_units_are_dormant_whatever_the_scale(rows: int, units: int, seed: int, power: int):
    torch.manual_seed(seed)
    phi = torch.relu(torch.randn(rows, units) - 0.5)
    assert dead_units(phi) <= dormant_units(phi)
    assert dormant_units(2.0**power * phi) == dormant_units(phi)
