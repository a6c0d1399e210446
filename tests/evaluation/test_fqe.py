"""Fitted Q evaluation where the values of policies are known in closed form."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dr3_ray import UserError
from dr3_ray.algorithms.registry import find
from dr3_ray.evaluation.fqe import (
    FQEOptions,
    Policies,
    fit_critics,
    fitted_q_evaluation,
    own_start_value,
    start_rows,
)  # fmt: skip
from dr3_ray.training.member import Member, build_networks
from dr3_ray.types import Spaces
from tests.algorithms import gridworld as grid
from tests.algorithms.test_closed_form import GAMMA, SPACES, N, chain
from tests.conftest import TableData

EXACT = FQEOptions(hidden_sizes=(), gamma=GAMMA, batch_size=64, critic_lr=0.02, tau=0.2)

pytestmark = pytest.mark.usefixtures("without_shape_checks")


class Started(TableData):
    """A table whose rows of these numbers begin episodes."""

    def __init__(self, columns: dict[str, Tensor], spaces: Spaces, starts: list[int]):
        super().__init__(columns | {"timesteps": torch.ones(len(columns["actions"]), dtype=torch.int64)})
        self.spaces, self.starts = spaces, torch.tensor(starts)
        self.columns["timesteps"][self.starts] = 0

    @property
    def episodes(self) -> dict[str, Tensor]:
        return {"offsets": self.starts, "lengths": torch.full_like(self.starts, 1)}


class EveryStart(grid.EveryRow):
    """A gridworld: every minibatch is the whole of it, and two rows begin episodes."""

    fields = torch.tensor([0, 12])

    def __init__(self, columns: dict[str, Tensor]):
        super().__init__(columns)
        self.spaces, states = grid.SPACES, columns["observations"].argmax(-1)
        self.rows = torch.stack([(states == field).nonzero()[0, 0] for field in self.fields])
        self.episodes = {"offsets": self.rows, "lengths": torch.ones(2, dtype=torch.int64)}

    def gather(self, indices: Tensor, columns: Any) -> dict[str, Tensor]:
        if indices.ndim == 1:
            known = self.columns | {"timesteps": torch.zeros(len(self), dtype=torch.int64)}
            return {name: known[name][indices] for name in columns}
        return super().gather(indices, columns)


def greedy(tables: list[list[list[float]]], spaces: Spaces = SPACES) -> Policies:
    """DQNs whose Q(s, ·) are these tables [K, states, actions]."""
    spec = find("DR3-DQN", "discrete")
    members = [Member.from_dict(spec, {"hidden_sizes": ()}) for _ in tables]
    networks = build_networks(spec, spaces, members)
    with torch.no_grad():
        networks.critic.head.weight.copy_(torch.tensor(tables).view_as(networks.critic.head.weight))
        networks.critic.head.bias.zero_()
    return Policies(spec, networks)


LEFT, RIGHT = [1.0, 0.0], [0.0, 1.0]


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["in_turn", "stacked"])
def test_policies_on_a_chain_have_the_values_that_the_bellman_equation_gives(execution: str) -> None:
    """Always right: γ^(steps to the end); always left: nothing; left of state 2 only: nothing from state 1."""
    policies = greedy([[RIGHT] * N, [LEFT] * N, [LEFT, LEFT, RIGHT, RIGHT, RIGHT]])
    data = Started(chain(), SPACES, starts=[10, 30])  # ten rows a state: states 1 and 3
    values = fitted_q_evaluation(policies, data, EXACT, 2_000, execution)
    expected = [(GAMMA**3 + GAMMA) / 2, 0.0, GAMMA / 2]
    assert values.tolist() == pytest.approx(expected, abs=2e-3)


def test_on_all_rows_of_a_gridworld_the_critic_finds_the_exact_values() -> None:
    """Two policies, two seeds, fields 0 and 12: V from the linear equations, to a thousandth."""
    sure = torch.stack([torch.nn.functional.one_hot(torch.full((16,), way), 4).float() for way in (1, 2)])
    policies = greedy(sure.tolist(), grid.SPACES)
    rows = grid.rows(grid.UNIFORM, next_behaviour=grid.SURE)
    every = EveryStart({name: part.float() if part.is_floating_point() else part for name, part in rows.items()})
    options = FQEOptions(hidden_sizes=(), gamma=grid.GAMMA, batch_size=len(every), critic_lr=0.01, tau=0.5)
    said: list[int] = []
    found = fit_critics(policies, every, options, 1_500, seeds=2, say=said.append)
    exact = torch.stack([grid.q_of(policy.double()) for policy in sure])
    values = (sure * exact).sum(-1)[:, every.fields].mean(1)
    assert found.values.shape == (2, 2) and sum(said) == 1_500
    assert (found.values - values).abs().max() < 1e-3
    table = found.networks.critic(torch.eye(16).expand(4, -1, -1))[0].squeeze(1).detach()
    assert (table - exact.repeat(2, 1, 1))[:, grid.STATES].abs().max() < 1e-3


def test_seeds_of_fitted_critics_differ_and_policies_of_a_seed_see_the_same() -> None:
    twice = greedy([[RIGHT] * N, [RIGHT] * N])
    data = Started(chain(), SPACES, starts=[10])
    found = fit_critics(twice, data, FQEOptions(hidden_sizes=(8,), gamma=GAMMA, batch_size=8), 5, seeds=3).values
    assert torch.equal(found[:, 0], found[:, 1])
    assert len(set(found[:, 0].tolist())) == 3
    alone = fitted_q_evaluation(twice, data, FQEOptions(hidden_sizes=(8,), gamma=GAMMA, batch_size=8), 5)
    assert torch.allclose(alone, found[0])


def test_what_a_critic_promises_of_itself_is_its_greedy_value_at_the_start() -> None:
    policies = greedy([[[0.1, 0.4]] * N, [[0.3, 0.2], [0.5, -1.0], *[[7.0, 7.0]] * 3]])
    data = Started(chain(), SPACES, starts=[0, 10])
    assert own_start_value(policies, data).tolist() == pytest.approx([0.4, (0.3 + 0.5) / 2])


@pytest.mark.parametrize("name", ["DR3-DQN", "DR3-QRDQN", "DR3-IQL"])
def test_policies_whose_critics_take_the_action_as_input(name: str) -> None:
    spec = find(name, "discrete")
    members = [Member.from_dict(spec, {"hidden_sizes": (8,), "critic_actions": "input", "seed": k}) for k in (0, 1)]
    policies = Policies(spec, build_networks(spec, SPACES, members))
    data = Started(chain(), SPACES, starts=[0, 10])
    seen = data.gather(torch.tensor([0, 10]), ("observations",))["observations"].expand(2, -1, -1)
    q = policies.networks.critic(seen)[0]  # type: ignore[operator]
    q = q.mean(-1) if name == "DR3-QRDQN" else q.amin(1)
    assert spec.act
    taken = q.gather(-1, spec.act(policies.networks, seen).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(own_start_value(policies, data), taken.mean(-1).detach())
    options = FQEOptions(hidden_sizes=(8,), gamma=GAMMA, batch_size=8)
    assert fit_critics(policies, data, options, 5).values.isfinite().all()


@pytest.mark.slow
def test_continuous_policies_whose_reward_is_their_action() -> None:
    """Two steps, r = a in both: V(s0) = π(s0) + γ π(s1), and a linear critic on [s, a] can say so."""
    spaces = Spaces((2,), "continuous", 1)
    spec = find("DR3-TD3BC", "continuous")
    networks = build_networks(
        spec, spaces, [Member.from_dict(spec, {"hidden_sizes": (), "normalize_observations": False})] * 2
    )
    wanted = torch.tensor([[0.5, -0.25], [-0.5, 0.75]])  # π_k(s0), π_k(s1)
    actor: Any = networks.actor
    layer = [each for each in actor.modules() if hasattr(each, "weight")][-1]
    with torch.no_grad():
        layer.weight.copy_(torch.atanh(wanted).view_as(layer.weight))
        layer.bias.zero_()
    actions = torch.linspace(-1, 1, 50).repeat(2).unsqueeze(-1)
    state = torch.arange(100) // 50
    columns = {
        "observations": torch.eye(2)[state],
        "actions": actions,
        "rewards": actions[:, 0],
        "next_observations": torch.eye(2)[torch.ones_like(state)],
        "terminateds": state.float(),
    }
    values = fitted_q_evaluation(Policies(spec, networks), Started(columns, spaces, [0]), EXACT, 2_000)
    assert values.tolist() == pytest.approx([0.5 - 0.25 * GAMMA, -0.5 + 0.75 * GAMMA], abs=2e-3)


def test_data_without_a_start_and_algorithms_without_a_policy_are_refused() -> None:
    lost = Started(chain(), SPACES, [0])
    lost.columns["timesteps"][0] = 4
    with pytest.raises(UserError, match="no first row of an episode"):
        start_rows(lost)
    sarsa = find("DR3-SARSA", "continuous")
    networks = build_networks(sarsa, Spaces((2,), "continuous", 1), [Member.from_dict(sarsa, {})])
    with pytest.raises(UserError, match="DR3-SARSA on continuous actions has no policy to evaluate"):
        fitted_q_evaluation(Policies(sarsa, networks), lost, EXACT, 1)
