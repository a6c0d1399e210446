"""Whole updates against loops of plain torch, written from the papers: nn.Linear, torch.optim.Adam, distributions.

Same first weights, same batches, same noise; everything in float64.
"""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform
from torch.nn import functional

from dr3_ray.algorithms.registry import find
from dr3_ray.data.sampler import Sampler
from dr3_ray.training.population import Population

STEPS, BATCH = 12, 16


def plain(encoder: Any, head: Any, critic: int) -> nn.Sequential:
    """The network of member 0 and one critic, as anybody would write it."""
    layers: list[nn.Module] = []
    for stacked in [*encoder.layers, head]:
        linear = nn.Linear(*stacked.weight.shape[-2:]).double()
        linear.weight.data.copy_(stacked.weight[0, critic].T)
        linear.bias.data.copy_(stacked.bias[0, critic, 0])
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def assert_same(stacked: Any, critic: int, network: nn.Sequential) -> None:
    """Ours and theirs after training, to 1e-9."""
    linears = [layer for layer in network if isinstance(layer, nn.Linear)]
    for ours, theirs in zip([*stacked.encoder.layers, stacked.head], linears, strict=True):
        torch.testing.assert_close(ours.weight[0, critic].T, theirs.weight, rtol=0.0, atol=1e-9)
        torch.testing.assert_close(ours.bias[0, critic, 0], theirs.bias, rtol=0.0, atol=1e-9)


def batches(population: Population, noise: Any) -> Any:
    """The rows and the noise that member 0 is about to see."""
    sampler = Sampler([len(population.data)], BATCH, noise, [population.members[0].seed], torch.float64)
    for _ in range(STEPS):
        indices, draws = sampler.draw(slice(0, 1))
        rows = {name: values[indices[0]] for name, values in population.data.columns.items()}  # type: ignore[attr-defined]
        for name, values in rows.items():
            if name.endswith("observations"):
                rows[name] = values.flatten(1).double()
            elif values.is_floating_point():
                rows[name] = values.double()
        yield rows, {name: values[0] for name, values in draws.items()}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DR3-DQN", {"dr3_coeff": 0.03}),
        ("DR3-DQN", {"dr3_coeff": 0.0, "double_q": True, "critic_lr": 0.03}),
        ("DR3-DQN", {"dr3_coeff": 0.5, "dr3_stop_gradient": True, "loss": "squared", "tau": 0.1, "target_period": 1}),
        ("DR3-CQL", {"dr3_coeff": 0.1, "cql_alpha": 2.0, "dr3_mask_terminals": False}),
        ("DR3-SARSA", {"dr3_coeff": 0.1, "dr3_match_actions": True}),
    ],
    ids=str,
)
def test_discrete(name: str, options: dict[str, Any], make_population: Any):
    spec = find(name, "discrete")
    population = make_population(spec, [options], dtype=torch.float64)
    chosen = population.members[0].options
    dr3 = population.members[0].regularizers["dr3"]
    critic = plain(population.networks.critic.encoder, population.networks.critic.head, 0)
    target = copy.deepcopy(critic)
    adam = torch.optim.Adam(critic.parameters(), lr=chosen.critic_lr, eps=chosen.adam_eps)

    for step, (row, _) in enumerate(batches(population, spec.noise(chosen, None))):
        phi, next_phi = critic[:-1](row["observations"]), critic[:-1](row["next_observations"])
        q, next_q, next_target = critic[-1](phi), critic[-1](next_phi), target(row["next_observations"])
        if name == "DR3-SARSA":
            next_actions = row["next_actions"]
            used = row["next_actions_valid"] | (row["terminateds"] == 1.0)
        else:
            next_actions = (next_q if getattr(chosen, "double_q", False) else next_target).argmax(-1)
            used = torch.ones(BATCH, dtype=torch.bool)
        y = torch.where(
            row["terminateds"] == 1.0,
            row["rewards"],
            row["rewards"] + chosen.gamma * next_target[torch.arange(BATCH), next_actions],
        ).detach()
        q_data = q[torch.arange(BATCH), row["actions"]]
        if chosen.loss == "huber":
            loss = functional.huber_loss(q_data[used], y[used])
        else:
            loss = functional.mse_loss(q_data[used], y[used])
        if name == "DR3-CQL":
            loss = loss + chosen.cql_alpha * functional.cross_entropy(q, row["actions"])
        counted = used & (row["terminateds"] == 0.0) if dr3.dr3_mask_terminals else torch.ones_like(used)
        if dr3.dr3_match_actions:
            counted = counted & (row["actions"] == next_actions)
        if counted.any():
            other = next_phi.detach() if dr3.dr3_stop_gradient else next_phi
            loss = loss + dr3.dr3_coeff * (phi * other).sum(-1)[counted].mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if (step + 1) % chosen.target_period == 0:
            for theirs, ours in zip(target.parameters(), critic.parameters(), strict=True):
                theirs.data = (1.0 - chosen.tau) * theirs.data + chosen.tau * ours.data

    population.update(STEPS)
    assert_same(population.networks.critic, 0, critic)
    assert_same(population.networks.target_critic, 0, target)


def policy(actor: nn.Sequential, observations: Tensor) -> tuple[Tensor, Tensor, TransformedDistribution]:
    mean, log_std = actor(observations).chunk(2, dim=-1)
    std = log_std.clamp(-20.0, 2.0).exp()
    squash = TanhTransform(cache_size=1)  # type: ignore[no-untyped-call]
    return mean, std, TransformedDistribution(Independent(Normal(mean, std), 1), squash)


@pytest.mark.parametrize(
    "options",
    [
        {"dr3_coeff": 0.03},
        {"dr3_coeff": 0.5, "dr3_form": "abs", "cql_temperature": 2.0, "cql_alpha": 1.0, "tau": 0.1},
        {"dr3_coeff": 0.03, "bc_steps": 7, "target_entropy_scale": 0.5, "gamma": 0.9, "n_critics": 3},
    ],
    ids=str,
)
def test_continuous_cql(options: dict[str, Any], make_population: Any):
    spec = find("DR3-CQL", "continuous")
    population = make_population(spec, [options], dtype=torch.float64)
    networks, member = population.networks, population.members[0]
    chosen, dr3 = member.options, member.regularizers["dr3"]
    n = chosen.n_sampled_actions
    critics = [plain(networks.critic.encoder, networks.critic.head, c) for c in range(chosen.n_critics)]
    targets = copy.deepcopy(critics)
    actor = plain(networks.actor.encoder, networks.actor.head, 0)
    log_alpha = torch.zeros((), dtype=torch.float64, requires_grad=True)
    adams = [
        torch.optim.Adam([weight for critic in critics for weight in critic.parameters()], lr=chosen.critic_lr),
        torch.optim.Adam(actor.parameters(), lr=chosen.actor_lr),
        torch.optim.Adam([log_alpha], lr=chosen.temperature_lr),
    ]

    shapes = spec.noise(chosen, type("Spaces", (), {"n_actions": 2}))
    for step, (row, noise) in enumerate(batches(population, shapes)):
        s, next_s = row["observations"], row["next_observations"]
        mean, std, pi = policy(actor, s)
        next_mean, next_std, next_pi = policy(actor, next_s)
        alpha = log_alpha.exp().detach()

        with torch.no_grad():
            next_actions = torch.tanh(next_mean + next_std * noise["next_action"])
            pair = torch.cat([next_s, next_actions], dim=-1)
            next_value = torch.stack([target(pair)[:, 0] for target in targets]).min(0).values
            y = row["rewards"] + chosen.gamma * (1.0 - row["terminateds"]) * next_value
            at_s = torch.tanh(mean + std * noise["sampled_at_s"].transpose(0, 1))  # [N, B, A]
            at_next_s = torch.tanh(next_mean + next_std * noise["sampled_at_next_s"].transpose(0, 1))
            uniform = noise["sampled_uniform"].transpose(0, 1)
            log_density = torch.cat(
                [
                    torch.full((n, BATCH), 2 * math.log(0.5), dtype=torch.float64),
                    pi.log_prob(at_s),
                    next_pi.log_prob(at_next_s),
                ]
            )
            sampled = torch.cat([uniform, at_s, at_next_s])

        critic_loss = torch.zeros((), dtype=torch.float64)
        for critic in critics:
            phi = critic[:-1](torch.cat([s, row["actions"]], dim=-1))
            next_phi = critic[:-1](torch.cat([next_s, next_actions], dim=-1))
            q = critic[-1](phi)[:, 0]
            sampled_q = critic(torch.cat([s.expand(3 * n, -1, -1), sampled], dim=-1))[..., 0]
            weighted = (sampled_q - log_density) / chosen.cql_temperature
            gap = chosen.cql_temperature * torch.logsumexp(weighted, 0) - q
            dots = (phi * next_phi).sum(-1)[row["terminateds"] == 0.0]
            dots = dots.abs() if dr3.dr3_form == "abs" else dots
            critic_loss = critic_loss + functional.mse_loss(q, y) + chosen.cql_alpha * gap.mean()
            critic_loss = critic_loss + dr3.dr3_coeff * dots.mean() / len(critics)

        actions = torch.tanh(mean + std * noise["action"])
        log_probs = pi.log_prob(actions)
        if step < chosen.bc_steps:
            value = pi.log_prob(row["actions"])
        else:
            value = torch.stack([critic(torch.cat([s, actions], dim=-1))[:, 0] for critic in critics]).min(0).values
        actor_loss = (alpha * log_probs - value).mean()
        temperature_loss = -(log_alpha * (log_probs - chosen.target_entropy_scale * 2).detach()).mean()

        for adam, loss in zip(adams, (critic_loss, actor_loss, temperature_loss), strict=True):
            weights = adam.param_groups[0]["params"]
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights, retain_graph=True), strict=True):
                weight.grad = gradient
        for adam in adams:  # all losses are of the same weights, so the steps come last
            adam.step()
        if (step + 1) % chosen.target_period == 0:
            for target, critic in zip(targets, critics, strict=True):
                for theirs, ours in zip(target.parameters(), critic.parameters(), strict=True):
                    theirs.data = (1.0 - chosen.tau) * theirs.data + chosen.tau * ours.data

    population.update(STEPS)
    for c, (critic, target) in enumerate(zip(critics, targets, strict=True)):
        assert_same(networks.critic, c, critic)
        assert_same(networks.target_critic, c, target)
    assert_same(networks.actor, 0, actor)
    torch.testing.assert_close(networks.temperature.log_alpha[0], log_alpha, rtol=0.0, atol=1e-9)


def test_continuous_sarsa(make_population: Any):
    spec = find("DR3-SARSA", "continuous")
    population = make_population(spec, [{"dr3_coeff": 0.1}], dtype=torch.float64)
    networks, chosen = population.networks, population.members[0].options
    critics = [plain(networks.critic.encoder, networks.critic.head, c) for c in range(2)]
    targets = copy.deepcopy(critics)
    adam = torch.optim.Adam([weight for critic in critics for weight in critic.parameters()], lr=chosen.critic_lr)
    for step, (row, _) in enumerate(batches(population, spec.noise(chosen, None))):
        pair = torch.cat([row["observations"], row["actions"]], dim=-1)
        next_pair = torch.cat([row["next_observations"], row["next_actions"]], dim=-1)
        terminated, known = row["terminateds"] == 1.0, row["next_actions_valid"]
        next_value = torch.minimum(*(target(next_pair)[:, 0] for target in targets)).detach()
        y = torch.where(terminated, row["rewards"], row["rewards"] + chosen.gamma * next_value)
        loss = torch.zeros((), dtype=torch.float64)
        for critic in critics:
            loss = loss + functional.mse_loss(critic(pair)[:, 0][terminated | known], y[terminated | known])
            dots = (critic[:-1](pair) * critic[:-1](next_pair)).sum(-1)
            loss = loss + 0.1 * dots[known & ~terminated].mean() / 2.0
        adam.zero_grad()
        loss.backward()
        adam.step()
        if (step + 1) % chosen.target_period == 0:
            for target, critic in zip(targets, critics, strict=True):
                for theirs, ours in zip(target.parameters(), critic.parameters(), strict=True):
                    theirs.data = (1.0 - chosen.tau) * theirs.data + chosen.tau * ours.data
    population.update(STEPS)
    for c, critic in enumerate(critics):
        assert_same(networks.critic, c, critic)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_behaviour_cloning(kind: str, make_population: Any):
    spec = find("BC", kind)
    population = make_population(spec, [{"actor_lr": 1e-2}], dtype=torch.float64)
    actor = plain(population.networks.actor.encoder, population.networks.actor.head, 0)
    adam = torch.optim.Adam(actor.parameters(), lr=1e-2)
    for row, _ in batches(population, spec.noise(population.members[0].options, None)):
        if kind == "discrete":
            loss = functional.cross_entropy(actor(row["observations"]), row["actions"])
        else:
            loss = -policy(actor, row["observations"])[2].log_prob(row["actions"]).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    population.update(STEPS)
    assert_same(population.networks.actor, 0, actor)
