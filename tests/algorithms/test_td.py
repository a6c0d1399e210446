"""Expected TD and Monte-Carlo regression by their definitions, and which network hears of which loss."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dr3_ray.algorithms.registry import find
from dr3_ray.networks.actors import squashed_log_prob, squashed_sample
from dr3_ray.types import Backup, Terms, Transition


def evaluated(population: Any) -> tuple[Transition, dict[str, Tensor], Terms, Backup]:
    """The terms of the first batch, without DR3."""
    view = population.steps.views[0]
    indices, noise = population.steps.batches.sampler.draw(view.rows)
    batch = population.steps.batches.gather(indices)
    return batch, noise, *view.base_objective(view.networks, batch, noise, 0)


def test_discrete_td_by_definition(make_population: Any):
    population = make_population(find("DR3-TD", "discrete"), [{"gamma": 0.9}], dtype=torch.float64)
    networks = population.networks
    batch, noise, terms, backup = evaluated(population)
    probabilities = torch.softmax(networks.behaviour(batch.next_observations), -1)[0]
    next_q = networks.target_critic(batch.next_observations)[0][0, 0]
    assert batch.rewards is not None and batch.terminateds is not None
    y = batch.rewards[0] + 0.9 * (1.0 - batch.terminateds[0]) * (probabilities * next_q).sum(-1)
    q = networks.critic(batch.observations)[0][0, 0].gather(-1, batch.actions[0, :, None])[:, 0]
    torch.testing.assert_close(terms.losses["critic"][0], functional.huber_loss(q, y.detach()))
    torch.testing.assert_close(terms.metrics["target"][0], y.mean().detach())
    logits = networks.behaviour(batch.observations)[0]
    torch.testing.assert_close(terms.losses["behaviour"][0], functional.cross_entropy(logits, batch.actions[0]))
    below = (probabilities.cumsum(-1) <= (noise["next_action"][0, :, None] + 1.0) / 2.0).sum(-1)
    assert torch.equal(backup.next_actions[0], below)


def test_continuous_td_by_definition(make_population: Any):
    members = [{"gamma": 0.9, "n_sampled_actions": 4}]
    population = make_population(find("DR3-TD", "continuous"), members, dtype=torch.float64)
    networks = population.networks
    batch, noise, terms, backup = evaluated(population)
    mean, log_std = networks.behaviour(batch.next_observations)
    values = []
    for n in range(4):
        sample, _ = squashed_sample(mean, log_std, noise["next_actions"][:, :, n])
        values.append(networks.target_critic(batch.next_observations, sample)[0].amin(1)[0])
        if n == 0:
            torch.testing.assert_close(backup.next_actions, sample.detach())
    assert batch.rewards is not None and batch.terminateds is not None
    y = (batch.rewards[0] + 0.9 * (1.0 - batch.terminateds[0]) * torch.stack(values).mean(0)).detach()
    q = networks.critic(batch.observations, batch.actions)[0][0]
    torch.testing.assert_close(terms.losses["critic"][0], functional.mse_loss(q[0], y) + functional.mse_loss(q[1], y))
    nll = -squashed_log_prob(*networks.behaviour(batch.observations), batch.actions).mean()
    torch.testing.assert_close(terms.losses["behaviour"][0], nll)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_each_network_hears_of_its_own_loss(kind: str, make_population: Any):
    population = make_population(find("DR3-TD", kind))
    _, _, terms, _ = evaluated(population)
    view = population.steps.views[0].networks
    for loss, other in (("critic", "behaviour"), ("behaviour", "critic")):
        for child, hears in ((loss, True), (other, False)):
            parameters = list(view.get_submodule(child).parameters())
            gradients = torch.autograd.grad(terms.losses[loss][0], parameters, retain_graph=True, allow_unused=True)
            assert all((gradient is not None) == hears for gradient in gradients), (loss, child)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_the_behaviour_model_may_go_first(kind: str, make_population: Any):
    population = make_population(find("DR3-TD", kind), [{"behaviour_steps": 4}])
    before = {name: part.values.clone() for name, part in population.steps.parts.items()}
    population.update(4)
    assert torch.equal(population.steps.parts["critic"].values, before["critic"])
    assert not torch.equal(population.steps.parts["behaviour"].values, before["behaviour"])
    trained = population.steps.parts["behaviour"].values.clone()
    population.update(1)
    assert not torch.equal(population.steps.parts["critic"].values, before["critic"])
    assert not torch.equal(population.steps.parts["behaviour"].values, trained)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_monte_carlo_by_definition(kind: str, make_population: Any):
    population = make_population(find("DR3-MC", kind))
    batch, _, terms, backup = evaluated(population)
    returns = batch.monte_carlo_returns
    assert returns is not None and batch.next_actions is not None and batch.next_actions_valid is not None
    if kind == "discrete":
        q = population.networks.critic(batch.observations)[0][0, 0].gather(-1, batch.actions[0, :, None])[:, 0]
        expected = functional.huber_loss(q, returns[0])
    else:
        values = population.networks.critic(batch.observations, batch.actions)[0][0]
        expected = functional.mse_loss(values[0], returns[0]) + functional.mse_loss(values[1], returns[0])
    torch.testing.assert_close(terms.losses["critic"][0], expected)
    # DR3's pair is the data's next one, which the last step of an episode lacks
    assert torch.equal(backup.next_actions, batch.next_actions)
    assert torch.equal(backup.in_backup.bool(), batch.next_actions_valid)
