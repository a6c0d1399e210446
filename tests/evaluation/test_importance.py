"""Importance sampling and doubly robust estimates, by hand and on a gridworld whose values are known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dr3_ray.evaluation.importance import doubly_robust, weighted_doubly_robust, weighted_importance_sampling
from tests.algorithms.gridworld import (
    ENDS,
    GAMMA,
    SKEWED,
    SLIPS,
    STATES,
    SURE,
    UNIFORM,
    dynamics,
    probabilities,
    q_of,
    step,
)  # fmt: skip

LONG = 60  # steps, after which γᵗ is 0.002 and hardly an episode is left


def test_two_episodes_by_hand() -> None:
    """Weights 2, 2 · 3 and 1, 1 · ½: r̄_0 = (2 · 1 + 1 · 4) / 3, r̄_1 = (6 · 10 + ½ · 2) / 6½."""
    log_ratios = torch.tensor([[2.0, 3.0], [1.0, 0.5]]).double().log()
    rewards = torch.tensor([[1.0, 10.0], [4.0, 2.0]]).double()
    found = weighted_importance_sampling(log_ratios, rewards, 0.5)
    assert found.value.item() == pytest.approx(2 + 0.5 * 61 / 6.5)
    assert found.effective.item() == pytest.approx(6.5**2 / (36 + 0.25))
    starts = torch.tensor([1.0, 3.0]).double()
    assert weighted_doubly_robust(log_ratios, rewards, starts, 0.5).value.item() == pytest.approx(4 + 0.5 * 61 / 6.5)
    plain = doubly_robust(log_ratios, rewards, starts, 0.5)
    each = [1 + 2 * 1 + 0.5 * 6 * 10, 3 + 1 * 4 + 0.5 * 0.5 * 2]
    assert plain.value.item() == pytest.approx(sum(each) / 2)
    assert plain.error.item() == pytest.approx(abs(each[0] - each[1]) / 2)


@given(st.lists(st.lists(st.floats(-400, 400), min_size=3, max_size=3), min_size=2, max_size=6), st.floats(0, 1))
def test_weights_of_any_size_give_a_mean_of_rewards(logs: list[list[float]], gamma: float) -> None:
    """A reward that is the same everywhere is the mean, whatever the weights; and nothing overflows."""
    log_ratios = torch.tensor(logs).double()
    found = weighted_importance_sampling(log_ratios, torch.full((len(logs), 3), 2.0).double(), gamma)
    assert found.value.item() == pytest.approx(2 * (1 + gamma + gamma**2))
    assert 1 - 1e-9 <= found.effective.item() <= len(logs) + 1e-9
    assert math.isfinite(found.error.item())


def episodes(behaviour: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, actions, rewards and whether a step was made, [episode, step], from field 0 on; and the states after."""
    transition, _ = dynamics()
    source = torch.Generator().manual_seed(0)
    ends = torch.tensor([ENDS.get(state, 0.0) for state in range(16)]).double()
    chances = torch.zeros(16, 4, 16).double()  # where an action leads, ends included
    for state in STATES:
        for action in range(4):
            for turn, times in SLIPS:
                chances[state, action, step(state, (action + turn) % 4)] += times / 4
    assert torch.equal(chances[..., [s for s in range(16) if s not in ENDS]].sum(-1), transition.sum(-1))
    here, going = torch.zeros(count, dtype=torch.int64), torch.ones(count, dtype=torch.bool)
    rows: list[tuple[Tensor, ...]] = []
    for _ in range(LONG):
        action = torch.multinomial(behaviour[here], 1, generator=source).squeeze(1)
        after = torch.multinomial(chances[here, action].clamp(min=1e-300), 1, generator=source).squeeze(1)
        rows.append((here, action, after, going))
        going = going & (ends[after] == 0)
        here = torch.where(going, after, torch.zeros_like(after))
    states, actions, after, made = (torch.stack(column, 1) for column in zip(*rows, strict=True))
    return states, actions, torch.where(made, ends[after], 0.0), torch.where(made, after, 16)


def test_estimates_on_a_gridworld_lie_within_five_of_their_errors() -> None:
    """π goes its way nine times in ten, μ is uniform; V of π is solved for."""
    behaviour = probabilities(UNIFORM)
    policies = torch.stack([0.9 * probabilities(SURE.roll(turn, 1)) + 0.1 * behaviour for turn in (1, 2)])
    states, actions, rewards, after = episodes(behaviour, 4_000)
    made = after < 16
    exact_q = torch.stack([q_of(policy) for policy in policies])
    exact_v = (policies * exact_q).sum(-1)
    ratios = (policies / behaviour).log()[:, states, actions] * made
    wis = weighted_importance_sampling(ratios, rewards, GAMMA)
    assert ((wis.value - exact_v[:, 0]).abs() < 5 * wis.error).all() and (wis.error < 0.2).all()

    def differences(q: Tensor) -> tuple[Tensor, Tensor]:
        v = (policies * q).sum(-1)
        goes_on = torch.cat([v, torch.zeros(2, 1).double()], 1).index_fill(1, torch.tensor(list(ENDS)), 0.0)
        found = rewards + GAMMA * goes_on[:, after] - q[:, states, actions]
        return found * made, v[:, states[:, 0]]

    for wrong in (0.0, 0.3):
        q = exact_q + wrong * torch.randn(exact_q.shape, generator=torch.Generator().manual_seed(1)).double()
        for estimator in (weighted_doubly_robust, doubly_robust):
            found = estimator(ratios, *differences(q), GAMMA)
            assert ((found.value - exact_v[:, 0]).abs() < 5 * found.error).all(), (wrong, estimator)


def test_the_behaviour_itself_is_worth_its_mean_return() -> None:
    """All ratios are 1: the estimate is the mean discounted return, with the error of that mean."""
    _, _, rewards, _ = episodes(probabilities(SKEWED), 200)
    found = weighted_importance_sampling(torch.zeros_like(rewards), rewards, GAMMA)
    returns = (rewards * GAMMA ** torch.arange(LONG)).sum(1)
    assert found.value.item() == pytest.approx(returns.mean().item())
    assert found.error.item() == pytest.approx(returns.std().item() / 200**0.5, rel=0.2)
    assert found.effective.item() == pytest.approx(200)
