"""Critics with the action as input: the loss and gradient of every discrete algorithm by plain torch, and training."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dr3_ray.algorithms.registry import find
from dr3_ray.errors import UserError
from dr3_ray.policies.policy import Policy
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from tests.algorithms.test_reference import plain
from tests.training.test_population import assert_equal, everything

N = 3  # actions
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("DR3-DQN", {}),
    ("DR3-DQN", {"double_q": True, "dr3_form": "abs", "loss": "squared"}),
    ("DR3-CQL", {"dr3_stop_gradient": True, "cql_alpha": 0.7}),
    ("DR3-CQL", {"double_q": True}),
    ("DR3-SARSA", {"dr3_mask_terminals": False}),
    ("DR3-TD", {"behaviour_steps": 0}),
    ("DR3-TD", {"behaviour_steps": 0, "td_actions": "sampled"}),
    ("DR3-MC", {}),
    ("DR3-REM", {"n_heads": 4}),
    ("DR3-QRDQN", {"n_quantiles": 4}),
    ("DR3-QRCQL", {"n_quantiles": 4, "double_q": True, "cql_alpha": 0.7}),
    ("DR3-IQL", {}),
    ("DR3-AWAC", {}),
]


class Plain:
    """One critic of the stack, by nn.Linear, with its values [B, N, H] and features [B, N, F]."""

    def __init__(self, critic: Any, place: int = 0):
        critic = getattr(critic, "critic", critic)
        self.network: nn.Sequential = plain(critic.encoder, critic.head, place)

    def phi(self, states: Tensor) -> Tensor:
        flat = states.flatten(1)
        chosen = [functional.one_hot(torch.full((len(flat),), action), N).double() for action in range(N)]
        return torch.stack([self.network[:-1](torch.cat([flat, each], dim=1)) for each in chosen], dim=1)

    def q(self, states: Tensor) -> Tensor:
        return self.network[-1](self.phi(states))  # type: ignore[no-any-return]


def at(values: Tensor, actions: Tensor) -> Tensor:
    return values[torch.arange(len(values)), actions]


def quantile_loss(found: Tensor, targets: Tensor) -> Tensor:
    """Of [B, H] quantiles against [B, H'] targets: the mean over rows and targets of the sum over quantiles."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(found.shape[1]):
        level = (i + 0.5) / found.shape[1]
        for j in range(targets.shape[1]):
            error = targets[:, j] - found[:, i]
            huber = functional.huber_loss(found[:, i], targets[:, j], reduction="none")
            total = total + ((level - (error < 0).double()).abs() * huber).mean() / targets.shape[1]
    return total


def plain_loss(name: str, population: Any, critics: list[Plain], row: dict[str, Any], noise: dict[str, Any]) -> Tensor:
    """The critics' losses with DR3's penalty, as the papers have them."""
    networks, [member] = population.networks, population.members
    chosen, dr3 = member.options, member.regularizers["dr3"]
    s, a, s2, ended = row["observations"], row["actions"], row["next_observations"], row["terminateds"]
    counted = 1.0 - ended
    usable = torch.ones_like(ended)
    target = Plain(networks.target_critic) if "target_critic" in dict(networks.named_children()) else critics[0]
    critic, total = critics[0], torch.zeros((), dtype=torch.float64)
    q, next_q = critic.q(s), target.q(s2).detach()
    online = (critic.q(s2) if getattr(chosen, "double_q", False) else next_q).detach().mean(-1)
    next_actions = online.argmax(-1)
    if name in ("DR3-SARSA", "DR3-MC", "DR3-IQL"):
        next_actions, known = row["next_actions"], row["next_actions_valid"].double()
        counted = counted * known
        usable = torch.maximum(known, ended) if name == "DR3-SARSA" else usable
    if name in ("DR3-TD", "DR3-AWAC"):
        law = (networks.behaviour if name == "DR3-TD" else networks.actor)(s2[None])[0].softmax(-1).detach()
        next_actions = (law.cumsum(-1) <= (noise["next_action"][:, None] + 1.0) / 2.0).sum(-1)
    error = functional.mse_loss if getattr(chosen, "loss", "squared") == "squared" else functional.huber_loss
    if name in ("DR3-QRDQN", "DR3-QRCQL"):
        y = row["rewards"][:, None] + chosen.gamma * (1.0 - ended)[:, None] * at(next_q, next_actions)
        total = quantile_loss(at(q, a), y)
        if name == "DR3-QRCQL":
            total = total + chosen.cql_alpha * functional.cross_entropy(q.mean(-1), a)
    elif name in ("DR3-IQL", "DR3-AWAC"):
        if name == "DR3-IQL":
            value = networks.value(s2[None])[0].detach()
        else:
            least = torch.minimum(*(Plain(networks.target_critic, place).q(s2)[..., 0] for place in range(2)))
            value = (law * least).sum(-1).detach()
        y = row["rewards"] + chosen.gamma * (1.0 - ended) * value
        total = sum(functional.mse_loss(at(each.q(s), a)[:, 0], y) for each in critics)  # type: ignore[assignment]
    else:
        q, next_q = q[..., 0] if name != "DR3-REM" else q, next_q[..., 0] if name != "DR3-REM" else next_q
        if name == "DR3-REM":
            weights = (noise["mixture"] + 1.0) / 2.0
            q, next_q = (each @ (weights / weights.sum()) for each in (q, next_q))
            next_actions = next_q.argmax(-1)
        value = at(next_q, next_actions)
        if name == "DR3-TD" and chosen.td_actions == "expected":
            value = (law * next_q).sum(-1)
        if name == "DR3-MC":
            y = row["monte_carlo_returns"]
        else:
            y = (row["rewards"] + chosen.gamma * (1.0 - ended) * value).detach()
        total = error(at(q, a)[usable > 0], y[usable > 0])
        if name == "DR3-CQL":
            total = total + chosen.cql_alpha * functional.cross_entropy(q, a)
    mask = counted if dr3.dr3_mask_terminals else torch.ones_like(counted)
    for each in critics:
        next_phi = at(each.phi(s2), next_actions)
        dots = (at(each.phi(s), a) * (next_phi.detach() if dr3.dr3_stop_gradient else next_phi)).sum(-1)
        dots = dots.abs() if dr3.dr3_form == "abs" else dots
        total = total + dr3.dr3_coeff * dots[mask > 0].mean() / len(critics)
    return total


@pytest.mark.parametrize(("name", "options"), ASKED, ids=str)
def test_loss_and_gradient_by_plain_torch(name: str, options: dict[str, Any], make_population: Any):
    asked = {"critic_actions": "input", "dr3_coeff": 0.1, "batch_size": 64, **options}
    population = make_population(find(name, "discrete"), [asked], dtype=torch.float64)
    if population.steps.parts["critic"].target_values is not None:  # or online and target critic agree
        population.steps.parts["critic"].target_values.mul_(0.8)
    [view] = population.steps.views
    batch, noise = next(population.steps.batches.stream(view.rows, 1))
    assert batch.terminateds is not None and batch.terminateds.any()
    terms, _ = view.objective(view.networks, batch, noise, 0)
    ours = sum(terms.losses[each] for each in terms.losses if each in ("critic", "cql", "dr3"))
    networks = getattr(view.networks.critic, "critic", view.networks.critic)
    critics = [Plain(networks, place) for place in range(networks.head.weight.shape[1])]
    row = {key: values[0] for key, values in batch._asdict().items() if values is not None}
    theirs = plain_loss(name, population, critics, row, {key: values[0] for key, values in noise.items()})
    torch.testing.assert_close(ours[0], theirs, rtol=0.0, atol=1e-8)  # type: ignore[index]
    layers = [*networks.encoder.layers, networks.head]
    found = torch.autograd.grad(ours[0], [weight for layer in layers for weight in (layer.weight, layer.bias)])  # type: ignore[index]
    for place, critic in enumerate(critics):
        wanted = torch.autograd.grad(theirs, list(critic.network.parameters()), retain_graph=True)
        for one, other in zip(found, wanted, strict=True):
            mine = one[0, place].T if other.ndim == 2 else one[0, place, 0]
            torch.testing.assert_close(mine, other, rtol=0.0, atol=1e-8)
        assert all(each.abs().max() > 0 for each in wanted)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(("name", "options"), [ASKED[2], ASKED[6], ASKED[8], ASKED[11]], ids=str)
def test_packs_recordings_and_checkpoints_change_nothing(name: str, options: dict[str, Any], make_population: Any):
    """A member of a pack that goes on from a checkpoint half-way, with replayed steps, is the member alone."""
    shared = {"critic_actions": "input", "behaviour_steps": 0, **options}
    shared = {each: value for each, value in shared.items() if each != "behaviour_steps" or name == "DR3-TD"}
    members = [shared | {"dr3_coeff": c0, "seed": seed} for seed, c0 in enumerate((0.0, 0.1))]
    spec = find(name, "discrete")
    together: Population = make_population(spec, members, "in_turn")
    together.record()
    together.update(7)
    saved = io.BytesIO()
    torch.save((together.networks.state_dict(), together.state_dict()), saved)
    saved.seek(0)
    going_on: Population = make_population(spec, members, "in_turn")
    going_on.record()
    networks, state = torch.load(saved, weights_only=False)
    going_on.networks.load_state_dict(networks)
    going_on.load_state_dict(state)
    going_on.update(7)
    assert going_on.recordings and all(going_on.recordings.replays)
    found = everything(going_on)
    for place, member in enumerate(members):
        alone: Population = make_population(spec, [member], "stacked")
        alone.compose(without=["recordings"])
        alone.update(7)
        alone.update(7)
        theirs = everything(alone)
        assert_equal({key: values[place : place + 1] for key, values in found.items()}, theirs)


def test_draws_of_sampled_td_are_each_members_own(make_population: Any):
    spec = find("DR3-TD", "discrete")
    metrics = make_population(spec, [{"td_actions": "sampled", "seed": seed} for seed in (0, 1, 0)]).update(3)
    assert metrics["target"][0] == metrics["target"][2] != metrics["target"][1]
    values = {
        each: make_population(spec, [{"td_actions": each}]).update(3)["target"].item()
        for each in ("expected", "sampled")
    }
    assert values["expected"] != values["sampled"]


def test_what_makes_no_sense_is_refused():
    dqn = find("DR3-DQN", "discrete")
    with pytest.raises(UserError, match="dr3_match_actions compares heads, and critic_actions='input' has one for all"):
        Member.from_dict(dqn, {"critic_actions": "input", "dr3_match_actions": True})
    with pytest.raises(UserError, match="critic_actions must be one of heads, input, not 'both'"):
        Member.from_dict(dqn, {"critic_actions": "both"})
    for name, kind, option in (
        ("DR3-IQL", "continuous", {"critic_actions": "input"}),
        ("DR3-TD", "continuous", {"td_actions": "sampled"}),
        ("DR3-SARSA", "discrete", {"td_actions": "sampled"}),
    ):
        with pytest.raises(UserError, match=f"unknown option '{next(iter(option))}'"):
            Member.from_dict(find(name, kind), option)
    with pytest.raises(UserError, match="unknown option 'critic_actions'"):
        Member.from_dict(find("BC", "discrete"), {"critic_actions": "input"})


@pytest.mark.parametrize("name", ["DR3-CQL", "DR3-QRDQN", "DR3-IQL"])
def test_a_policy_has_q_and_features_of_each_action(name: str):
    from tests.policies.test_policy import ACTIONS, PLAIN, untrained

    policy: Policy = untrained(find(name, "discrete"), PLAIN, ACTIONS["discrete"], critic_actions="input")
    seen = torch.randn(6, 3).clamp(-1, 1).numpy()
    q = [policy.q(seen, torch.full((6,), 2 + action).numpy()) for action in range(4)]
    phi = [policy.features(seen, torch.full((6,), 2 + action).numpy()) for action in range(4)]
    assert all((phi[0] != each).any() for each in phi[1:])
    if name != "DR3-IQL":  # whose actor acts
        best = np.stack(q).argmax(0) + 2
        assert policy.act(seen).tolist() == best.tolist()
