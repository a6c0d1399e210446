"""CQL's closed forms, and where its values bound the true ones from below (arXiv 2006.04779, theorems 3.2 and 3.3).

The loss of discrete CQL, E (Q − y)² + α E [log Σ exp Q(s, ·) − Q(s, a)] with a ~ β, is stationary in a table where
2 β (Q − B Q) + α (π − β) = 0 for each pair, π = softmax(Q(s, ·)) and B Bellman's optimality operator:

    Q(s, a) = B Q(s, a) − α/2 (π(a|s) / β(a|s) − 1).

In the mean under π that takes off α/2 χ²(π ‖ β) ≥ 0 in each state, whatever β is. For the greedy actions g(s) it gives

    max_a Q(s, a) = V^g(s) − α/2 [(I − γ P^g)⁻¹ (π(g|·) / β(g|·) − 1)](s),

below the true value of the policy that acts wherever softmax(Q) takes g at least as often as the data do. A uniform β
grants that; one that is surer of g than softmax(Q) does not.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.networks.actors import squashed_sample
from dr3_ray.types import Spaces
from tests.algorithms.gridworld import (
    ACTIONS,
    GAMMA,
    REWARD,
    SKEWED,
    STATES,
    SURE,
    TRANSITION,
    UNIFORM,
    EveryRow,
    learned,
    probabilities,
    q_of,
    rows,
)

pytestmark = pytest.mark.usefixtures("without_shape_checks")


def with_alphas(make_population: Any, columns: dict[str, Tensor], steps: int, *alphas: float) -> Tensor:
    """Q [K, S, A] of one member for each α."""
    return learned(make_population, columns, "DR3-CQL", steps, *({"cql_alpha": alpha} for alpha in alphas))[:, 0]


def greedy(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The policy [S, A] that takes argmax Q, the value [S] that Q gives it, and its true value."""
    policy = torch.nn.functional.one_hot(q.argmax(-1), ACTIONS).double()
    return policy, q.amax(-1), (policy * q_of(policy)).sum(-1)


@pytest.mark.parametrize("behaviour", [UNIFORM, SKEWED], ids=["uniform", "skewed"])
def test_the_fixed_point(behaviour: Tensor, make_population: Any):
    alphas, beta = (0.0, 0.3, 1.0), probabilities(behaviour)
    for alpha, q in zip(
        alphas, with_alphas(make_population, rows(behaviour, next_behaviour=SURE), 700, *alphas), strict=True
    ):
        backup = REWARD + GAMMA * TRANSITION @ q.amax(-1)
        softmax = q.softmax(-1)
        lowered = 0.5 * alpha * (softmax / beta - 1.0)
        torch.testing.assert_close(q[STATES], (backup - lowered)[STATES], rtol=0.0, atol=1e-6)
        chi_squared = ((softmax - beta).square() / beta).sum(-1)
        torch.testing.assert_close((softmax * lowered).sum(-1), 0.5 * alpha * chi_squared)

        policy, estimate, true = greedy(q)
        stays = (policy.unsqueeze(-1) * TRANSITION).sum(1)
        summed = torch.linalg.solve(torch.eye(len(q)).double() - GAMMA * stays, (policy * lowered).sum(-1))
        torch.testing.assert_close(estimate[STATES], (true - summed)[STATES], rtol=0.0, atol=1e-5)
        if alpha == 0.0:
            torch.testing.assert_close(estimate[STATES], true[STATES], rtol=0.0, atol=1e-5)
        elif behaviour is UNIFORM:
            assert (estimate[STATES] < true[STATES] - 0.03 * alpha).all()
        else:  # the data take the greedy action three times in six; softmax(Q), Q being small, less often
            assert (estimate[STATES] > true[STATES]).any()


@pytest.mark.spread(3)
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_greedy_value_is_a_lower_bound_in_spite_of_sampling(seed: int, make_population: Any):
    """Each pair 16 times with rewards that are off by 0.2: the maximum believes what is too good, α takes it back."""
    source, columns = torch.Generator().manual_seed(seed), rows(UNIFORM, next_behaviour=SURE)
    of_each_pair = torch.arange(len(columns["actions"])).view(len(STATES) * ACTIONS, -1)
    drawn = torch.randint(of_each_pair.shape[1], (len(of_each_pair), 16), generator=source)
    sampled = {name: column[of_each_pair.gather(1, drawn).flatten()] for name, column in columns.items()}
    sampled["rewards"] = sampled["rewards"] + 0.2 * torch.randn(drawn.numel(), generator=source).double()
    q_without, q_with = with_alphas(make_population, sampled, 500, 0.0, 5.0)
    _, estimate, true = greedy(q_without)
    assert (estimate[STATES] > true[STATES]).all() and (estimate - true)[STATES].mean() > 0.1
    _, estimate, true = greedy(q_with)
    assert (estimate[STATES] < true[STATES]).all()


def bandit(make_population: Any, actions: Tensor, rewards: Tensor, ends: float, *members: dict[str, Any]) -> Any:
    """Continuous CQL on one state and these rows; to be trained."""
    here = torch.zeros(len(actions), 1)
    columns = {
        **{"observations": here, "actions": actions.unsqueeze(-1), "rewards": rewards, "next_observations": here},
        "terminateds": torch.full_like(rewards, ends),
    }
    options = {"batch_size": len(actions), "dr3_coeff": 0.0}
    return make_population(
        find("DR3-CQL", "continuous"),
        [options | member for member in members],
        "stacked",
        data=EveryRow(columns),
        spaces=Spaces((1,), "continuous", 1),
    )


@pytest.mark.slow
def test_a_linear_critic_reaches_its_closed_form_on_box_actions(make_population: Any):
    """Q(a) = w a + b, data a = ±½ with reward a, no next state, so that E (Q − a)² + α (log ∫ exp Q − E Q) has the
    derivatives ½ (w − 1) + α (coth w − 1/w) and 2 b; the integral over [−1, 1] is 2 sinh(w) e^b / w.
    """
    alphas, roots = (0.0, 1.0, 5.0), [1.0]
    for alpha in alphas[1:]:
        low, high = 1e-6, 1.0
        for _ in range(50):
            w = 0.5 * (low + high)
            below = 0.5 * (w - 1.0) + alpha * (1.0 / math.tanh(w) - 1.0 / w) < 0.0
            low, high = (w, high) if below else (low, w)
        roots.append(low)
    assert roots == pytest.approx([1.0, 0.606, 0.231], abs=1e-3)
    actions = tensor([-0.5, 0.5]).repeat(16)
    options = {"hidden_sizes": (), "critic_lr": 0.01, "actor_lr": 0.01, "temperature_lr": 0.0, "n_sampled_actions": 20}
    members = ({"cql_alpha": alpha, **options} for alpha in alphas)
    population = bandit(make_population, actions, actions, 1.0, *members)
    population.update(500)
    head = population.networks.critic.head
    for critic in range(2):
        torch.testing.assert_close(head.weight[:, critic, 1, 0], tensor(roots), rtol=0.0, atol=0.02)
        torch.testing.assert_close(head.bias[:, critic].flatten(), torch.zeros(3), rtol=0.0, atol=1e-3)


@pytest.mark.slow
def test_the_policys_value_is_a_lower_bound_on_box_actions(make_population: Any):
    """One state, for ever; the data, most of them at −½, have rewards 4a in [−½, ½], and beyond it is −4, which nobody
    has tried. Without α the critic believes its own extrapolation.
    """
    actions = torch.linspace(0.0, 1.0, 64).square() - 0.5
    options = {"gamma": 0.5, "tau": 0.05, "hidden_sizes": (32, 32), "n_sampled_actions": 8}
    steps = {"critic_lr": 5e-3, "actor_lr": 5e-3, "temperature_lr": 5e-3}
    members = ({"cql_alpha": alpha, **options, **steps} for alpha in (0.0, 1.0, 3.0))
    population = bandit(make_population, actions, 4.0 * actions, 0.0, *members)
    population.update(250)
    networks, here = population.networks, torch.zeros(3, 1, 1)
    moments = (values.unsqueeze(2) for values in networks.actor(here))
    samples, _ = squashed_sample(*moments, torch.randn(3, 1, 10_000, 1, generator=torch.Generator().manual_seed(0)))
    estimate = networks.critic(here, samples)[0].mean((1, 2, 3))
    rewards = torch.where(samples.abs() <= 0.5, 4.0 * samples, -4.0).mean((1, 2, 3))
    true = rewards / (1.0 - 0.5)  # the same policy for ever
    assert estimate[0] > true[0] + 5.0
    assert (estimate[1:] < true[1:] - 0.5).all()
    assert (true[1:] > true[0] + 5.0).all()
