"""Cal-QL: which Q is raised to which returns, beyond what is compared with CORL."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset, monte_carlo_returns
from dr3_ray.errors import UserError
from dr3_ray.training.member import Member, check_members
from dr3_ray.training.population import Population
from dr3_ray.training.returns import check_returns
from dr3_ray.training.rewards import with_rewards
from tests.conftest import SPACES, TableData, random_data
from tests.training.test_population import assert_equal, everything

SPEC, CQL = find("DR3-CalQL", "continuous"), find("DR3-CQL", "continuous")
PENDULUM = "embedded:pendulum-replay"
KINDS = st.tuples(st.sampled_from([0.5, 0.9]), st.sampled_from([0.0, -1.0, 0.5]), st.floats(0.1, 9))
pytestmark = pytest.mark.usefixtures("without_shape_checks")


def data_of(gamma: float | None = None, returns: Any = None) -> TableData:
    """Ten rows an episode, with the returns of their rewards, or others; without a discount none are known."""
    data = random_data("continuous")
    if gamma is not None:
        data.gamma, own = gamma, returns_of(data, gamma)  # type: ignore[attr-defined]
        data.columns["monte_carlo_returns"] = own if returns is None else torch.full_like(own, returns)
    return data


def returns_of(data: TableData, gamma: float, shift: float = 0.0) -> torch.Tensor:
    episodes = (data.columns["rewards"] + shift).numpy().reshape(-1, 10)
    return torch.from_numpy(np.concatenate([monte_carlo_returns(each, gamma) for each in episodes]))


def trained(make_population: Any, spec: Any, options: dict[str, Any], data: TableData, steps: int = 3) -> Population:
    population: Population = make_population(spec, [options], data=data)
    population.update(steps)
    return population


@pytest.mark.parametrize("form", ["H", "H_unweighted", "rho"])
def test_returns_below_all_q_change_nothing(form: str, make_population: Any):
    low = data_of(0.99, -1e6)
    ours, theirs = (everything(trained(make_population, spec, {"cql_form": form}, low)) for spec in (SPEC, CQL))
    assert ours.pop("bound_rate").tolist() == [0.0]
    assert_equal(ours, theirs)


def test_above_all_q_the_policys_actions_are_not_lowered(make_population: Any):
    """Of CQL(ρ), which samples the policy alone, Q(s, a_data) is left, which rises by α / rows of the minibatch."""
    high = make_population(SPEC, [{"cql_form": "rho"}], data=data_of(0.99, 1e6))
    indices, noise = high.steps.batches.sampler.draw(slice(0, 1))
    batch, networks = high.steps.batches.gather(indices), high.networks
    terms, _ = high.steps.views[0].base_objective(networks, batch, noise, 0)
    found = torch.autograd.grad(terms.losses["cql"].sum(), list(networks.critic.parameters()))
    data_q = -5.0 * networks.critic.values(batch.observations, batch.actions).mean(-1).sum()
    for ours, theirs in zip(found, torch.autograd.grad(data_q, list(networks.critic.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert terms.metrics["bound_rate"].tolist() == [1.0]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(KINDS, min_size=2, max_size=3),
    st.sampled_from([None, 0.9]),
    st.sampled_from(["in_turn", "stacked"]),
)
def test_returns_are_those_of_the_rewards_that_a_member_learns(
    make_population: Any, kinds: list[tuple[float, float, float]], stored: float | None, execution: str
):
    """G′ = scale · Σ γ^k (r + shift), whether the data have such returns already, in part, or not."""
    names = ("gamma", "reward_shift", "reward_scale")
    members = [dict(zip(names, kind, strict=True)) for kind in kinds]
    population = make_population(SPEC, members, execution, data=data_of(stored))
    steps, data = population.steps, population.data
    for k, (gamma, shift, scale) in enumerate(kinds):
        wanted = scale * returns_of(data, gamma, shift)
        view = next(view for view in steps.views if k in view.members)
        indices, noise = steps.batches.sampler.draw(view.rows)
        members_of = SPEC.options.stack([member.options for member in population.members[view.rows]])
        batch = steps.batches.gather(indices, noise, view.rows)
        seen = with_rewards(lambda networks, batch, *_: batch, members_of, 1.0)(None, batch, {}, 0)
        row = k - view.members.start
        torch.testing.assert_close(seen.monte_carlo_returns[row], wanted[indices[row]], rtol=1e-5, atol=1e-5)
        probe, _ = steps.batches.probe()
        assert probe.monte_carlo_returns is not None and len(probe.monte_carlo_returns) in (1, len(kinds))
    assert all(values.isfinite().all() for values in population.probe().values())


def test_rows_of_a_subset_have_the_returns_of_the_whole():
    whole, part = load_dataset(PENDULUM), load_dataset(f"{PENDULUM}?take=uniform:0.25")
    assert not part.manifest.complete_episodes
    member = Member.from_dict(SPEC, {"hidden_sizes": [8], "batch_size": 32, "reward_scale": 2.0})
    population = Population.of(SPEC, [member], part, part.spaces)
    population.update(1)
    batch, _ = population.steps.batches.probe()
    indices, _ = population.steps.batches.probe_draw()
    rows = torch.as_tensor(part.rows)[indices]
    theirs = whole.gather(rows, ("monte_carlo_returns", "observations"))
    assert torch.equal(batch.monte_carlo_returns, theirs["monte_carlo_returns"])
    assert torch.equal(batch.observations, theirs["observations"])


def test_rows_of_a_mixture_have_the_returns_of_their_episodes():
    data = load_dataset(f"mix:{PENDULUM}?take=best:0.5=0.5,{PENDULUM}=0.5")
    options = {"hidden_sizes": [8], "batch_size": 32, "gamma": 0.9, "reward_shift": 1.0}
    population = Population.of(SPEC, [Member.from_dict(SPEC, options)], data, data.spaces)
    batch, _ = population.steps.batches.probe()
    indices, _ = population.steps.batches.probe_draw()
    rewards = data.gather(torch.arange(len(data)), ("rewards",))["rewards"].numpy() + 1.0
    episodes = np.split(rewards, np.asarray(data.episodes["offsets"])[1:])
    wanted = np.concatenate([monte_carlo_returns(episode, 0.9) for episode in episodes])
    np.testing.assert_array_equal(batch.monte_carlo_returns[0], wanted[indices[0]])


def test_returns_that_mean_nothing_are_refused_in_a_line():
    goals = SPACES["continuous"]._replace(observation_shape={"achieved_goal": (2,), "desired_goal": (2,)})
    for name, value in {"hindsight": "future", "reward_clip": 1.0}.items():
        members = [Member.from_dict(SPEC, {}), Member.from_dict(SPEC, {name: value})][name == "hindsight" :]
        with pytest.raises(UserError, match=f"DR3-CalQL compares Q with .* which {name} = {value} replaces: leave"):
            check_members(SPEC, goals, members)
    lacking = data_of(0.99)
    lacking.manifest = SimpleNamespace(complete_episodes=False)  # type: ignore[attr-defined]
    check_returns(SPEC.columns, [Member.from_dict(SPEC, {"reward_scale": 3.0})], lacking)
    for options in ({"gamma": 0.9}, {"reward_shift": 1.0}):
        with pytest.raises(UserError, match=r"lack rows, .* only at gamma = 0.99 without reward_shift .*: take whole"):
            check_returns(SPEC.columns, [Member.from_dict(SPEC, options)], lacking)
        check_returns(CQL.columns, [Member.from_dict(CQL, options)], lacking)
