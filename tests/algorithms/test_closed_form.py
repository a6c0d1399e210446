"""A chain whose values are known: Q-learning finds Q*, SARSA the behaviour's Q, and CQL distrusts what it never saw.

States 0 … 4, actions left and right. Left of 0 is 0; right of 4 ends the episode with reward 1. The behaviour goes
right three times in four. Every pair of state and action also occurs as the last step of a truncated episode.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.types import Spaces

N, GAMMA, LEFT, RIGHT = 5, 0.9, 0, 1
SPACES = Spaces((N,), "discrete", 2)
EXACT = {
    "hidden_sizes": (),  # with one-hot observations, a table
    "loss": "squared",
    "gamma": GAMMA,
    "batch_size": 256,
    "critic_lr": 0.02,
    "tau": 0.2,
    "target_period": 1,
    "dr3_coeff": 0.0,
}

pytestmark = pytest.mark.usefixtures("without_shape_checks")


def chain() -> dict[str, Tensor]:
    """For each pair: the behaviour's next actions in proportion, and one truncated row whose next action is unknown."""
    rows: list[tuple[int, int, float, int, int, float, bool]] = []
    for state in range(N):
        for action in (LEFT, RIGHT):
            ends = state == N - 1 and action == RIGHT
            next_state = max(state - 1, 0) if action == LEFT else min(state + 1, N - 1)
            for next_action, valid in [(RIGHT, True)] * 3 + [(LEFT, True), (LEFT, False)]:
                rows.append((state, action, float(ends), next_state, next_action, float(ends), valid and not ends))
    state, action, reward, next_state, next_action, terminated, valid = (
        torch.tensor(column) for column in zip(*rows, strict=True)
    )
    one_hot = torch.eye(N)
    return {
        "observations": one_hot[state],
        "actions": action,
        "rewards": reward,
        "next_observations": one_hot[next_state],
        "terminateds": terminated,
        "next_actions": next_action,
        "next_actions_valid": valid,
        # the behaviour's values and noise that the five rows of each pair cancel
        "monte_carlo_returns": BEHAVIOUR[state, action] + 0.2 * (torch.arange(len(rows)) % 5 - 2.0),
    }


def solve(next_policy: Any, bootstrap: float = 1.0) -> Tensor:
    """Fixed point of Q(s, a) = r + γ · bootstrap · V(s'), V by `next_policy`, with no V behind the end."""
    q = torch.zeros(N, 2)
    for _ in range(300):
        v = next_policy(q)
        left = GAMMA * bootstrap * torch.cat([v[:1], v[:-1]])
        right = torch.cat([GAMMA * bootstrap * v[1:], torch.ones(1)])
        q = torch.stack([left, right], dim=-1)
    return q


BEHAVIOUR = solve(lambda q: 0.25 * q[:, LEFT] + 0.75 * q[:, RIGHT])


def learned(make_population: Any, table_data: Any, name: str, steps: int, **options: Any) -> Tensor:
    """Q(s, ·) of every state after training on the chain."""
    data = table_data(chain())
    spec = find(name, "discrete")
    known = {option for option, _ in spec.options()}
    exact = {option: value for option, value in EXACT.items() if option in known or option.startswith("dr3_")}
    population = make_population(spec, [exact | options], data=data, spaces=SPACES)
    population.update(steps)
    q = population.networks.critic(torch.eye(N).unsqueeze(0))[0][0].detach()
    return q.mean(-1) if name in ("DR3-REM", "DR3-QRDQN") else q[0]  # heads, or quantiles


@pytest.mark.parametrize("double_q", [False, True])
def test_dqn_reaches_the_optimal_values(double_q: bool, make_population: Any, table_data: Any):
    optimal = solve(lambda q: q.amax(-1))
    torch.testing.assert_close(optimal[:, RIGHT], GAMMA ** torch.arange(N - 1.0, -1.0, -1.0))
    q = learned(make_population, table_data, "DR3-DQN", 600, double_q=double_q)
    torch.testing.assert_close(q, optimal, rtol=0.0, atol=0.01)
    # taking truncation, a fifth of the rows, for termination would be seen
    assert (solve(lambda q: q.amax(-1), bootstrap=0.8) - optimal).abs().max() > 0.1


@pytest.mark.parametrize("head", ["hl_gauss", "two_hot"])
def test_categorical_q_learning_reaches_them_too(head: str, make_population: Any, table_data: Any):
    """Within 0.005 of a range of 2, a twentieth of a bin: no softmax gives a bin a probability of 0."""
    options = {"critic_head": head, "bins": 21, "v_min": -0.5, "v_max": 1.5, "loss": "huber"}
    q = learned(make_population, table_data, "DR3-DQN", 400, critic_lr=0.1, batch_size=128, **options)
    torch.testing.assert_close(q, solve(lambda values: values.amax(-1)), rtol=0.0, atol=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DR3-REM", {"n_heads": 3}),
        ("DR3-REM", {"n_heads": 3, "mixture": "dirichlet"}),
        ("DR3-REM", {"n_heads": 3, "mixture": "one_hot"}),
        ("DR3-QRDQN", {"n_quantiles": 5}),  # of returns that are certain: all of them are Q*
    ],
    ids=str,
)
def test_ensembles_and_quantiles_reach_them_too(
    name: str, options: dict[str, Any], make_population: Any, table_data: Any
):
    q = learned(make_population, table_data, name, 1200, **options)
    torch.testing.assert_close(q, solve(lambda values: values.amax(-1)), rtol=0.0, atol=0.02)


def test_sarsa_reaches_the_values_of_the_behaviour(make_population: Any, table_data: Any):
    q = learned(make_population, table_data, "DR3-SARSA", 1000, critic_lr=3e-3, batch_size=1024)
    torch.testing.assert_close(q, BEHAVIOUR, rtol=0.0, atol=0.02)
    # taking the unknown next actions of truncated rows for data would be seen, and so would termination there
    assert (solve(lambda q: 0.4 * q[:, LEFT] + 0.6 * q[:, RIGHT]) - BEHAVIOUR).abs().max() > 0.04
    assert (solve(lambda q: 0.25 * q[:, LEFT] + 0.75 * q[:, RIGHT], bootstrap=0.8) - BEHAVIOUR).abs().max() > 0.1


def test_td_reaches_the_values_of_the_policy_that_the_data_show(make_population: Any, table_data: Any):
    # each action stands as often at s, whatever follows at s': cloning finds one in two
    options = {"critic_lr": 3e-3, "batch_size": 1024, "behaviour_lr": 0.02, "behaviour_steps": 200}
    q = learned(make_population, table_data, "DR3-TD", 1200, **options)
    torch.testing.assert_close(q, solve(lambda q: q.mean(-1)), rtol=0.0, atol=0.02)
    assert (solve(lambda q: q.mean(-1)) - BEHAVIOUR).abs().max() > 0.1


def test_monte_carlo_regression_reaches_the_mean_return(make_population: Any, table_data: Any):
    q = learned(make_population, table_data, "DR3-MC", 1000, critic_lr=3e-3, batch_size=1024)
    torch.testing.assert_close(q, BEHAVIOUR, rtol=0.0, atol=0.02)


def test_cql_is_below_dqn_on_actions_that_the_data_lack(make_population: Any, table_data: Any):
    columns = chain()
    seen = columns["actions"] == columns["observations"].argmax(-1) % 2  # left in even states, right in odd ones
    data = table_data({name: column[seen] for name, column in columns.items()})
    options = EXACT | {"hidden_sizes": (32,), "critic_lr": 1e-3}
    q = {}
    for name, more in (("DR3-DQN", {}), ("DR3-CQL", {"cql_alpha": 1.0})):
        population = make_population(find(name, "discrete"), [options | more], data=data, spaces=SPACES)
        population.update(500)
        q[name] = population.networks.critic(torch.eye(N).unsqueeze(0))[0][0, 0].detach()
    states = torch.arange(N)
    unseen = {name: values[states, 1 - states % 2] for name, values in q.items()}
    assert (unseen["DR3-CQL"] < unseen["DR3-DQN"] - 0.3).all()
    assert (q["DR3-CQL"].argmax(-1) == states % 2).all()  # greedy is what the data did


def test_iql_reaches_the_expectile_of_what_the_data_do(make_population: Any, table_data: Any):
    # every state has both actions equally often: τ (max − v) = (1 − τ) (v − min)
    expected = solve(lambda q: 0.9 * q.amax(-1) + 0.1 * q.amin(-1))
    options: dict[str, Any] = {"critic_lr": 3e-3, "value_lr": 3e-3, "batch_size": 1024}
    q = learned(make_population, table_data, "DR3-IQL", 1000, expectile=0.9, **options)
    torch.testing.assert_close(q, expected, rtol=0.0, atol=0.02)
    assert (solve(lambda q: q.mean(-1)) - expected).abs().max() > 0.1 and (
        solve(lambda q: q.amax(-1)) - expected
    ).abs().max() > 0.04
