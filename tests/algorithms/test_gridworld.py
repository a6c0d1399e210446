"""On a gridworld that slips: SARSA, TD, MC, IQL and AWAC reach Q of the behaviour, DQN and its kin the optimal one.

The solutions come from linear equations and value iteration. Every minibatch is the whole of data that contain each
transition as often as it is likely, so that what is left is rounding and the optimiser.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.algorithms.gridworld import (
    SKEWED,
    STATES,
    SURE,
    UNIFORM,
    dynamics,
    learned,
    optimal_q,
    probabilities,
    q_of,
    rows,
)

pytestmark = pytest.mark.usefixtures("without_shape_checks")

BEHAVIOUR, OPTIMAL = q_of(probabilities(SKEWED)), optimal_q()


def assert_reached(q: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(q[STATES], expected[STATES], rtol=0.0, atol=1e-5)


def test_the_solutions_solve_bellmans_equations_and_differ():
    transition, reward = dynamics()
    assert transition.sum(-1)[STATES].unique().tolist() == [0.5, 0.75, 1.0]  # an end ahead, beside, and neither
    for q, values in ((OPTIMAL, OPTIMAL.amax(-1)), (BEHAVIOUR, (probabilities(SKEWED) * BEHAVIOUR).sum(-1))):
        torch.testing.assert_close(q, reward + 0.9 * transition @ values)
    for other in (OPTIMAL, q_of(probabilities(UNIFORM))):
        assert (BEHAVIOUR - other).abs().max() > 0.1
    # a walk along the walls is worth more than one past the pit
    assert OPTIMAL[0].max() > 0.2 > 0.0 > BEHAVIOUR[0].max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "options"),
    [
        ("DR3-SARSA", 400, {}),
        ("DR3-TD", 500, {"behaviour_lr": 0.02, "behaviour_steps": 100}),
        ("DR3-MC", 400, {}),
        ("DR3-IQL", 600, {"expectile": 0.5, "value_lr": 5e-3}),  # the ½-expectile is the mean
        ("DR3-AWAC", 600, {"awac_lambda": 1e9, "actor_lr": 0.02}),  # all weights are 1: its policy is the behaviour
    ],
    ids=str,
)
def test_values_of_the_behaviour(name: str, steps: int, options: dict[str, Any], make_population: Any):
    assert_reached(learned(make_population, rows(SKEWED), name, steps, options)[0, 0], BEHAVIOUR)


@pytest.mark.parametrize(("behaviour", "double_q"), [(SKEWED, False), (UNIFORM, True)])
def test_optimal_values_whatever_the_behaviour(behaviour: Tensor, double_q: bool, make_population: Any):
    columns = rows(behaviour, next_behaviour=SURE)
    assert_reached(learned(make_population, columns, "DR3-DQN", 400, {"double_q": double_q})[0, 0], OPTIMAL)


def test_optimal_values_of_every_head(make_population: Any):
    columns, options = rows(UNIFORM, next_behaviour=SURE), {"n_heads": 3, "critic_lr": 0.02}
    for head in learned(make_population, columns, "DR3-REM", 900, options)[0].unbind(-1):
        assert_reached(head, OPTIMAL)


def test_optimal_values_of_every_quantile_where_nothing_slips(make_population: Any):
    never = ((0, 1),)
    columns, options = rows(UNIFORM, never, SURE), {"n_quantiles": 3}
    for quantile in learned(make_population, columns, "DR3-QRDQN", 700, options)[0].unbind(-1):
        assert_reached(quantile, optimal_q(*dynamics(never)))
