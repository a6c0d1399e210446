"""What CQL's options on Box actions mean, beyond what is compared with CORL."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn, tensor

from dr3_ray.algorithms import cql_continuous
from dr3_ray.algorithms.registry import find
from dr3_ray.networks.actors import LogTemperature

SPEC = find("DR3-CQL", "continuous")


@pytest.mark.parametrize(
    ("scaling", "excess"),
    [
        ("authors", [[3.0 * 2.0 - 5.0, 3.0 * 1.0 - 5.0]]),  # α gap − τ
        ("common", [[3.0 * (2.0 - 5.0), 3.0 * (1.0 - 5.0)]]),  # α (gap − τ)
    ],
)
def test_the_two_scalings_of_lagrange(scaling: Any, excess: list[list[float]]):
    options = SPEC.options.from_dict({"lagrange": scaling, "lagrange_threshold": 5.0, "cql_alpha": 3.0})
    networks = nn.ModuleDict({"lagrange": LogTemperature(1, 0.5)})
    gap = tensor([[2.0, 1.0]], requires_grad=True)
    losses = cql_continuous.conservative_terms(SPEC.options.stack([options]), networks, gap)  # type: ignore[arg-type]
    multiplier, expected = tensor(0.5).exp(), tensor(excess)
    torch.testing.assert_close(losses["cql"], multiplier * expected.sum(1))
    torch.testing.assert_close(losses["lagrange"], -multiplier * expected.mean(1))
    torch.stack(list(losses.values())).sum().backward()
    torch.testing.assert_close(gap.grad, (multiplier * 3.0).expand(1, 2))  # the critics' alone
    # d/d log α' of −α' · excess: the multiplier grows while the gap is above the threshold
    torch.testing.assert_close(networks["lagrange"].log_alpha.grad, -multiplier * expected.mean(1))


@pytest.mark.parametrize("order", ["max_min", "min_max"])
def test_max_backup_is_the_value_of_the_action_that_it_names(order: str, make_population: Any):
    population = make_population(SPEC, [{"max_backup": order}], dtype=torch.float64)
    networks: Any = population.networks
    indices, noise = population.steps.batches.sampler.draw(slice(0, 1))
    batch = population.steps.batches.gather(indices)
    _, backup = population.steps.views[0].base_objective(networks, batch, noise, 0)
    mean, log_std = (values.unsqueeze(2) for values in networks.actor(batch.next_observations))
    actions = torch.tanh(mean + log_std.exp() * noise["next_action"])
    q: Tensor = networks.target_critic(batch.next_observations, actions)[0]  # [K, C, B, N]
    chosen = networks.target_critic(batch.next_observations, backup.next_actions)[0]  # [K, C, B]
    assert actions.shape[2] == 3 and backup.next_actions.shape == (1, 16, 2)
    if order == "max_min":
        values = q.amax(-1).amin(1)
        assert (chosen - values.unsqueeze(1)).abs().amin(1).max() < 1e-12  # of the critic that has the minimum
    else:
        values = q.amin(1).amax(-1)
        torch.testing.assert_close(chosen.amin(1), values)


def test_rho_samples_the_policy_alone(make_population: Any):
    population = make_population(SPEC, [{"cql_form": "rho"}])
    assert set(population.steps.batches.sampler.draw(slice(0, 1))[1]) == {"action", "next_action", "sampled_at_s"}
    assert population.update(2)["cql_gap"].isfinite().all()
