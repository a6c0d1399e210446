"""BRAC's phases, and its losses against torch's distributions."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from dr3_ray.algorithms.registry import find
from dr3_ray.losses import divergence
from dr3_ray.training.population import Population

SPEC = find("DR3-BRAC", "continuous")


def test_the_behaviour_comes_first_and_alone(make_population: Any):
    population = make_population(SPEC, [{"behaviour_steps": 3}, {"behaviour_steps": 3, "seed": 1}])
    values = {name: part.values for name, part in population.steps.parts.items()}
    before = {name: value.clone() for name, value in values.items()}
    population.update(3)
    assert {name for name in values if not torch.equal(values[name], before[name])} == {"behaviour"}
    before = {name: value.clone() for name, value in values.items()}
    population.update(2)
    assert {name for name in values if not torch.equal(values[name], before[name])} == {"actor", "critic"}


def terms(population: Population, step: int) -> tuple[Any, dict[str, Tensor], Any]:
    """The losses of the next batch at a step, its noise and its rows."""
    indices, noise = population.steps.batches.sampler.draw(slice(0, 1))
    batch = population.steps.batches.gather(indices)
    found, _ = population.steps.views[0].base_objective(population.networks, batch, noise, step)
    return found, noise, batch


def policy(actor: Any, observations: Tensor) -> TransformedDistribution:
    mean, log_std = actor(observations)
    return TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), TanhTransform())  # type: ignore[no-untyped-call]


def sample(actor: Any, observations: Tensor, noise: Tensor) -> Tensor:
    """N samples at each state, before [K, B, A]."""
    mean, log_std = actor(observations)
    return torch.tanh(mean + log_std.exp() * noise.movedim(2, 0))


@pytest.mark.parametrize("value_penalty", [True, False], ids=["BRAC-v", "BRAC-p"])
@pytest.mark.parametrize("kind", ["kl", "mmd"])
def test_losses(value_penalty: bool, kind: str, make_population: Any):
    options = {
        "value_penalty": value_penalty, "divergence": kind, "brac_alpha": 0.6, "entropy_coeff": 0.2,
        "warm_start_steps": 5.0, "gamma": 0.9, **({"mmd_sigma": 0.7} if kind == "mmd" else {}),
    }  # fmt: skip
    population = make_population(SPEC, [options], dtype=torch.float64)
    networks: Any = population.networks
    found, noise, batch = terms(population, step=6)

    def distance(observations: Tensor, at: str) -> Tensor:
        actions = sample(networks.actor, observations, noise[f"policy_{at}"])
        pi, b = (policy(network, observations) for network in (networks.actor, networks.behaviour))
        if kind == "kl":
            return (pi.log_prob(actions) - b.log_prob(actions)).mean(0)
        theirs = sample(networks.behaviour, observations, noise[f"behaviour_{at}"])
        return divergence.mmd(actions.movedim(0, 2), theirs.movedim(0, 2), divergence.laplacian_kernel, 0.7)

    s, next_s = batch.observations, batch.next_observations
    next_actions, actions = (
        sample(networks.actor, observations, noise[name].unsqueeze(2))[0]
        for observations, name in ((next_s, "next_action"), (s, "action"))
    )
    value = networks.target_critic(next_s, next_actions)[0].amin(1)
    value = value - 0.2 * policy(networks.actor, next_s).log_prob(next_actions)
    if value_penalty:
        value = value - 0.6 * distance(next_s, "next_s")
    y = batch.rewards + 0.9 * (1.0 - batch.terminateds) * value
    q = networks.critic(s, batch.actions)[0]
    torch.testing.assert_close(found.losses["critic"], (q - y.unsqueeze(1)).square().mean(-1).sum(1))
    entropy = 0.2 * policy(networks.actor, s).log_prob(actions)
    actor = entropy + 0.6 * distance(s, "s") - networks.critic(s, actions)[0].amin(1)
    torch.testing.assert_close(found.losses["actor"], actor.mean(-1))
    nll = -policy(networks.behaviour, s).log_prob(batch.actions).mean(-1)
    torch.testing.assert_close(found.losses["behaviour"], nll)

    warming, noise, batch = terms(population, step=5)  # behaviour_steps is 1: the fifth step of the warm start
    s = batch.observations
    actions = sample(networks.actor, s, noise["action"].unsqueeze(2))[0]
    expected = (0.2 * policy(networks.actor, s).log_prob(actions) + 0.6 * distance(s, "s")).mean(-1)
    torch.testing.assert_close(warming.losses["actor"], expected)
