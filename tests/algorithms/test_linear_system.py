"""On a linear system whose behaviour's Q is linear, with linear critics: the closed form on Box actions.

s' = A s + B a and r = c s + d a + e; the behaviour takes a = k s + noise of mean m. Q(s, a) = p s + q a + f solves

    p = c + γ A (p + k q),    q = d + γ B (p + k q),    f = e + γ (f + q m).

Every minibatch is the whole of the data, which contain each noise at s and at s' equally often.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.types import Spaces
from tests.algorithms.gridworld import EveryRow

A, B, C, D, E, GAMMA = 0.7, 0.5, 0.3, 0.6, -0.2, 0.8

pytestmark = pytest.mark.usefixtures("without_shape_checks")


def solution(k: float, mean_noise: float) -> Tensor:
    """(p, q, f)."""
    matrix = [[1.0 - GAMMA * A, -GAMMA * A * k, 0.0], [-GAMMA * B, 1.0 - GAMMA * B * k, 0.0]]
    return torch.linalg.solve(
        tensor([*matrix, [0.0, -GAMMA * mean_noise, 1.0 - GAMMA]]).double(), tensor([C, D, E]).double()
    )


def learned(make_population: Any, name: str, steps: int, k: float, noise: Tensor, **options: Any) -> Tensor:
    """(p, q, f) of each critic, [critic, 3]."""
    states, here, there = torch.cartesian_prod(torch.linspace(-1.0, 1.0, 5).double(), noise, noise).T
    actions = k * states + here
    after = A * states + B * actions
    next_actions = k * after + there
    rewards = C * states + D * actions + E
    p, q, f = solution(k, noise.mean().item())
    columns = {
        **{"observations": states.unsqueeze(-1), "actions": actions.unsqueeze(-1), "rewards": rewards},
        **{"next_observations": after.unsqueeze(-1), "next_actions": next_actions.unsqueeze(-1)},
        **{"terminateds": torch.zeros_like(states), "next_actions_valid": torch.ones(len(states), dtype=torch.bool)},
        "monte_carlo_returns": rewards + GAMMA * (p * after + q * next_actions + f),
    }
    assert actions.abs().max() < 1.0 and next_actions.abs().max() < 1.0
    data, spec = EveryRow(columns), find(name, "continuous")
    common = {"hidden_sizes": (), "gamma": GAMMA, "critic_lr": 0.02, "tau": 0.5, "target_period": 1, "dr3_coeff": 0.0}
    known = {option for option, _ in spec.options()} | {"dr3_coeff"}
    values = {option: value for option, value in common.items() if option in known} | {"batch_size": len(data)}
    population = make_population(
        spec, [values | options], dtype=torch.float64, data=data, spaces=Spaces((1,), "continuous", 1)
    )
    population.update(steps)
    head = population.networks.critic.head
    return torch.cat([head.weight[0, :, :, 0], head.bias[0, :, 0]], dim=-1).detach()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DR3-SARSA", {}),
        ("DR3-MC", {}),
        ("DR3-IQL", {"expectile": 0.5, "value_lr": 0.02}),  # V is linear too, and the ½-expectile the mean
    ],
    ids=str,
)
def test_q_of_the_behaviour(name: str, options: dict[str, Any], make_population: Any):
    noise = tensor([-0.5, 0.0, 0.6]).double()
    expected = solution(0.3, noise.mean().item())
    assert (expected - solution(0.0, 0.0)).abs().min() > 0.1
    # two critics, of which the target takes the minimum: at the end they agree
    for critic in learned(make_population, name, 800, 0.3, noise, **options):
        torch.testing.assert_close(critic, expected, rtol=0.0, atol=1e-5)


def test_td_reaches_q_of_the_behaviour_model(make_population: Any):
    """Of noise tanh(½ ± 0.8) the model makes tanh(N(½, 0.8²)), whose mean is another."""
    noise = torch.tanh(0.5 + 0.8 * tensor([-1.0, 1.0]).double())
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    mean = float(weights @ np.tanh(0.5 + 0.8 * nodes)) / math.sqrt(2.0 * math.pi)
    expected = solution(0.0, mean)
    options = {"n_critics": 1, "behaviour_lr": 0.01, "behaviour_steps": 200, "n_sampled_actions": 50, "critic_lr": 0.01}
    (q,) = learned(make_population, "DR3-TD", 800, 0.0, noise, **options)
    torch.testing.assert_close(q, expected, rtol=0.0, atol=0.04)
    assert (solution(0.0, noise.mean().item()) - expected).abs().max() > 0.1
