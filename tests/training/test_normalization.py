"""Observations are normalised by the data's statistics, in training, in diagnostics and in acting alike."""

from typing import Any

import pytest
import torch

from dr3_ray.algorithms.registry import find
from dr3_ray.errors import UserError
from dr3_ray.training import normalization
from dr3_ray.training.member import Member, build_networks
from dr3_ray.types import Spaces


@pytest.fixture
def data(make_data: Any) -> Any:
    """Components of different means and scales, one of them constant."""
    data = make_data("continuous")
    for name in ("observations", "next_observations"):
        data.columns[name] = data.columns[name] * torch.tensor([1.0, 10.0, 0.0]) + torch.tensor([5.0, -300.0, 2.0])
    return data


def test_statistics(data: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(normalization, "ROWS_AT_ONCE", 33)  # several parts, the last one smaller
    mean, std = normalization.observation_statistics(data)
    rows = data.columns["observations"].double()
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(std, rows.std(0, correction=0))
    assert (std[:, 2] == 0.0).all()


def test_training_on_normalized_data_is_training_with_the_option(data: Any, make_population: Any, table_data: Any):
    mean, std = normalization.observation_statistics(data)

    def scaled(rows: Any) -> Any:
        return ((rows - mean) / (std + 1e-3)).float()

    columns = {name: scaled(rows) if name.endswith("observations") else rows for name, rows in data.columns.items()}
    spec, members = find("DR3-CQL", "continuous"), [{"seed": 0}, {"seed": 1}]
    inside = make_population(spec, [member | {"normalize_observations": True} for member in members], data=data)
    outside = make_population(spec, members, data=table_data(columns))
    for population in (inside, outside):
        population.update(5)
    found, expected = (
        population.metrics | dict(population.networks.named_parameters()) | population.probe()
        for population in (inside, outside)
    )
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
    observations = data.columns["observations"][:4].expand(2, 4, 2, 3)
    torch.testing.assert_close(inside.act(observations), outside.act(scaled(observations)), rtol=1e-4, atol=1e-5)


def test_statistics_belong_to_the_state(data: Any, make_population: Any, make_data: Any):
    spec, member = find("BC", "continuous"), {"normalize_observations": True}
    first = make_population(spec, [member], data=data)
    second = make_population(spec, [member], data=make_data("continuous", seed=1))
    second.networks.load_state_dict(first.networks.state_dict())
    observations = data.columns["observations"][None, :4]
    assert torch.equal(first.act(observations), second.act(observations))


def test_bytes_are_normalized_as_they_are():
    networks = torch.nn.ModuleDict()
    normalization.normalize_by(networks, (torch.tensor([100.0]), torch.tensor([10.0 - 1e-3])))
    frames = torch.tensor([[[120], [90]]], dtype=torch.uint8)
    torch.testing.assert_close(normalization.normalized(networks, frames), torch.tensor([[[2.0], [-1.0]]]))


def test_without_statistics_it_is_an_error():
    spec = find("BC", "discrete")
    member = Member.from_dict(spec, {"normalize_observations": True})
    with pytest.raises(UserError, match="needs statistics: give build_networks observation_statistics"):
        build_networks(spec, Spaces((3,), "discrete", 2), [member])
