"""The schedule of c0, and c0 as a multiplier that holds what it penalises."""

import io
import math
from typing import Any

import pytest
import torch
from torch import tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.errors import UserError
from dr3_ray.regularizers.dr3 import LogMultiplier, schedule
from dr3_ray.training.member import Member


def test_schedules_by_hand():
    warmups = tensor([0.0, 1.0, 4.0])
    for step, expected in ((0, [1.0, 1.0, 0.25]), (2, [1.0, 1.0, 0.75]), (3, [1.0, 1.0, 1.0]), (99, [1.0, 1.0, 1.0])):
        assert schedule(warmups, step).tolist() == expected
    assert schedule(0.0, 0).item() == 1.0


def test_the_coefficient_warms_up_in_the_loss(make_population: Any):
    members = [{"dr3_coeff": 0.2, "dr3_warmup_steps": 4}, {"dr3_coeff": 0.2}]
    population = make_population(find("DR3-DQN", "discrete"), members, "stacked")
    for share in (0.25, 0.5, 0.75, 1.0, 1.0):
        metrics = population.update(1)
        torch.testing.assert_close(metrics["loss_dr3"], 0.2 * tensor([share, 1.0]) * metrics["dr3_penalty"])


def test_dual_ascent_by_hand():
    multiplier = LogMultiplier(7)
    limit = LogMultiplier.LIMIT
    assert limit == pytest.approx(math.log(100.0))  # c0 stays within a hundredth and a hundred times dr3_coeff
    multiplier.log_multiplier.data = tensor([0.5, 0.5, limit, limit, -limit, limit, -limit])
    violation = tensor([2.0, -3.0, 2.0, -3.0, -3.0, -0.1, 0.1])
    loss = multiplier.loss(violation)
    # at either limit only what leads back counts
    torch.testing.assert_close(loss, tensor([-1.0, 1.5, 0.0, 3.0 * limit, 0.0, 0.1 * limit, 0.1 * limit]))
    loss.sum().backward()
    assert multiplier.log_multiplier.grad is not None
    assert multiplier.log_multiplier.grad.tolist() == pytest.approx([-2.0, 3.0, 0.0, 3.0, 0.0, 0.1, -0.1])


@pytest.mark.parametrize("name", ["DR3-DQN", "DR3-SARSA"])
@pytest.mark.parametrize("execution", ["in_turn", "stacked"])
def test_one_step_by_definition(name: str, execution: str, make_population: Any):
    members = [
        {"dr3_coeff": 0.2, "dr3_adaptive": "cosine", "dr3_threshold": threshold, "dr3_multiplier_lr": lr, "seed": 1}
        | {"adam_eps": 1e-8}
        for threshold, lr in ((-1.0, 0.1), (1.0, 0.2))
    ]
    population = make_population(find(name, "discrete"), members, execution)
    first = population.update(1)
    assert first["dr3_weight"].tolist() == pytest.approx([0.2, 0.2])
    assert first["loss_dr3_multiplier"].tolist() == [0.0, 0.0]  # ρ = 0
    torch.testing.assert_close(first["loss_dr3"], 0.2 * first["dr3_penalty"])
    # Adam's first step has the size of its step size: up above the threshold, down below
    rho = population.networks.dr3_multiplier.log_multiplier.detach().clone()
    torch.testing.assert_close(rho, tensor([0.1, -0.2]), rtol=1e-5, atol=0.0)
    second = population.update(1)
    torch.testing.assert_close(second["dr3_weight"], 0.2 * rho.exp())
    torch.testing.assert_close(second["loss_dr3"], second["dr3_weight"] * second["dr3_penalty"])


@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")
def test_it_holds_the_dot_product(make_population: Any):
    spec = find("DR3-DQN", "discrete")
    free = make_population(spec, [{"dr3_coeff": 0.0}])
    free.update(2000)
    before = free.probe()["dot_product"].item()
    values = {"dr3_coeff": 0.01, "dr3_adaptive": "dot_product", "dr3_multiplier_lr": 0.05}
    held = make_population(spec, [values | {"dr3_threshold": share * before} for share in (0.5, 0.25)])
    held.update(1500)
    found = []
    for _ in range(5):  # it goes up and down around the threshold, as dual ascent does
        held.update(100)
        found.append(held.probe()["dot_product"] / before)
    shares = torch.stack(found)
    assert (shares < tensor([0.75, 0.4])).all() and (shares > tensor([0.25, 0.1])).all(), shares


def test_the_multiplier_is_part_of_a_checkpoint(make_population: Any):
    members = [{"dr3_adaptive": "dot_product", "dr3_multiplier_lr": 0.1 * k, "seed": k} for k in (1, 2)]
    first, second = (make_population(find("DR3-TD", "continuous"), members) for _ in range(2))
    first.update(5)
    file = io.BytesIO()
    torch.save((first.networks.state_dict(), first.state_dict()), file)
    file.seek(0)
    networks, state = torch.load(file)
    assert networks["dr3_multiplier.log_multiplier"].abs().min() > 0.0
    second.networks.load_state_dict(networks)
    second.load_state_dict(state)
    ours, theirs = first.update(5), second.update(5)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(first.networks.dr3_multiplier(), second.networks.dr3_multiplier())


def test_it_waits_for_the_critic(make_population: Any):
    values = {"dr3_adaptive": "dot_product", "behaviour_steps": 3}
    population = make_population(find("DR3-TD", "discrete"), [values])
    population.update(3)
    assert population.networks.dr3_multiplier().item() == 0.0
    population.update(1)
    assert population.networks.dr3_multiplier().item() != 0.0


def test_a_threshold_that_is_no_cosine_fails():
    with pytest.raises(UserError, match="dr3_threshold = 2 is not a cosine: choose one from -1 to 1"):
        Member.from_dict(find("DR3-DQN", "discrete"), {"dr3_adaptive": "cosine", "dr3_threshold": 2.0})
    for held, threshold in (("dot_product", 2.0), ("cosine", 1.0), ("cosine", -1.0)):
        Member.from_dict(find("DR3-DQN", "discrete"), {"dr3_adaptive": held, "dr3_threshold": threshold})
