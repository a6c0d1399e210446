"""Policies of discrete actions by the weights of the data's episodes: a model of the behaviour, ratios, and values.

A greedy policy gives most actions no probability, so that hardly an episode would have a weight. What is evaluated is
π softened: its choice has the probability 1 − `SOFT`, and the others share the rest, as in the code of Tang and Wiens
(arXiv 2107.11003). Where few episodes follow π, the weights amount to one or two episodes, and the errors promise too
much: look at `effective` first.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dr3_ray.algorithms.bc import DISCRETE
from dr3_ray.errors import UserError
from dr3_ray.evaluation.fqe import BLOCK, Fitted, Policies, n_members
from dr3_ray.evaluation.importance import Valued, weighted_doubly_robust, weighted_importance_sampling
from dr3_ray.observations import each_part
from dr3_ray.training.member import Member
from dr3_ray.training.normalization import normalized
from dr3_ray.training.population import Population

SOFT = 0.01  # the probability of other choices in the policy that is evaluated: their ε
MOST_ROWS = 20_000  # of the episodes that are weighted


class Episodes(NamedTuple):
    """Whole episodes of a data set, padded to one length."""

    rows: Tensor
    """[episode, step] numbers of rows; 0 behind the end."""
    made: Tensor
    """[episode, step] whether the step was made."""
    log_probabilities: Tensor
    """[episode, step] log μ(a|s) of the data's actions, by a model of the behaviour; 0 behind the end."""


def clone_behaviour(data: Any, values: dict[str, Any], steps: int) -> nn.Module:
    """Return networks whose `actor` gives the logits of μ(a|s), fitted to the data's discrete actions.

    `values` are options of behaviour cloning.

    Raises:
        UserError: actions are not discrete.
    """
    if data.spaces.action_kind != "discrete":
        raise UserError("importance sampling needs the behaviour's probabilities, and has a model of discrete actions")
    member = Member.from_dict(DISCRETE, values)
    population = Population.of(DISCRETE, [member], data, data.spaces)
    population.update(steps)
    return population.networks


@torch.no_grad()
def whole_episodes(data: Any, behaviour: nn.Module, seed: int = 0, most_rows: int = MOST_ROWS) -> Episodes:
    """Return episodes drawn at random, of no more rows than that together, but one at least.

    Raises:
        UserError: the data have no whole episodes.
    """
    if data.mixing:
        raise UserError("the episodes of a mixture were made by several behaviours")
    if not data.manifest.complete_episodes:
        raise UserError("episodes have lost rows, so that their weights are not known")
    lengths = torch.as_tensor(data.episodes["lengths"])
    source = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lengths), generator=source)
    count = max(1, int((lengths[order].cumsum(0) <= most_rows).sum()))
    chosen = order[:count].sort().values
    steps = torch.arange(int(lengths[chosen].max()))
    made = steps < lengths[chosen].unsqueeze(1)
    rows = torch.where(made, torch.as_tensor(data.episodes["offsets"])[chosen].unsqueeze(1) + steps, 0)
    logs = torch.zeros(rows.shape, dtype=torch.float64)
    for place, columns in _blocks(data, rows[made], ("observations", "actions")):
        seen = normalized(behaviour, each_part(lambda part: part.unsqueeze(0), columns["observations"]))
        log_probs = behaviour.actor(seen)[0].double().log_softmax(-1)  # type: ignore[operator]
        logs[tuple(made.nonzero()[place].T)] = log_probs.gather(-1, columns["actions"].unsqueeze(-1)).squeeze(-1)
    return Episodes(rows, made, logs)


class _Looked(NamedTuple):
    """What policies and their critics say at the steps of episodes, each [policy, episode, step] in float64."""

    log_ratios: Tensor
    q: Tensor
    v: Tensor
    next_v: Tensor


def valued_by_episodes(
    policies: Policies, fitted: Fitted | None, data: Any, episodes: Episodes, gamma: float, soft: float = SOFT
) -> dict[str, Valued]:
    """Return `wis`, and with fitted critics `dr`, of K policies that were softened by `soft`, each [K].

    Q of the doubly robust estimate is the mean of a policy's fitted critics, and V its mean over the softened policy.
    """
    looked = _look(policies, fitted, data, episodes, soft)
    rewards = torch.zeros(episodes.rows.shape, dtype=torch.float64)
    rewards[episodes.made] = data.gather(episodes.rows[episodes.made], ("rewards",))["rewards"].double()
    values = {"wis": weighted_importance_sampling(looked.log_ratios, rewards, gamma)}
    if fitted is not None:
        differences = (rewards + gamma * looked.next_v - looked.q) * episodes.made
        values["dr"] = weighted_doubly_robust(looked.log_ratios, differences, looked.v[..., 0], gamma)
    return values


@torch.no_grad()
def _look(policies: Policies, fitted: Fitted | None, data: Any, episodes: Episodes, soft: float) -> _Looked:
    count, (n_episodes, n_steps), n_actions = n_members(policies), episodes.rows.shape, data.spaces.n_actions
    log_ratios, q, v, next_v = torch.zeros(4, count, n_episodes, n_steps, dtype=torch.float64)
    at = episodes.made.nonzero()
    for place, columns in _blocks(data, episodes.rows[episodes.made], ("observations", "actions")):
        probabilities, values = _policy_and_values(policies, fitted, n_actions, soft, columns["observations"])
        taken = columns["actions"].expand(count, -1).unsqueeze(-1)
        where = (slice(None), *at[place].T)
        logs = probabilities.gather(-1, taken).squeeze(-1).log()
        log_ratios[where] = logs - episodes.log_probabilities[tuple(at[place].T)]
        q[where], v[where] = values.gather(-1, taken).squeeze(-1), (probabilities * values).sum(-1)
    next_v[..., :-1] = v[..., 1:]  # 0 behind a terminal step; a truncated episode goes on where it was cut
    last = episodes.made.sum(1) - 1
    ends = episodes.rows[torch.arange(n_episodes), last]
    for place, columns in _blocks(data, ends, ("next_observations", "terminateds")):
        probabilities, values = _policy_and_values(policies, fitted, n_actions, soft, columns["next_observations"])
        goes_on = (probabilities * values).sum(-1) * (1.0 - columns["terminateds"].double())
        next_v[:, torch.arange(n_episodes)[place], last[place]] = goes_on
    return _Looked(log_ratios, q, v, next_v)


def _policy_and_values(
    policies: Policies, fitted: Fitted | None, n_actions: int, soft: float, observations: Any
) -> tuple[Tensor, Tensor]:
    """Return π(·|s) softened and Q(s, ·), each [policy, row, action]; Q is 0 without critics."""
    count = n_members(policies)
    seen = each_part(lambda part: part.expand(count, *part.shape), observations)
    actions = policies.spec.act(policies.networks, normalized(policies.networks, seen))  # type: ignore[misc]
    greedy = nn.functional.one_hot(actions.clamp(min=0), n_actions).double()
    probabilities = (1 - soft) * greedy + soft / max(n_actions - 1, 1) * (1 - greedy)
    if fitted is None:
        return probabilities, torch.zeros_like(probabilities)
    critics = fitted.networks
    seen = each_part(lambda part: part.expand(fitted.values.numel(), *part.shape), observations)
    values = critics.critic(normalized(critics, seen))[0].amin(1).double()  # type: ignore[operator]
    return probabilities, values.view(len(fitted.values), count, *values.shape[1:]).mean(0)


def _blocks(data: Any, rows: Tensor, columns: tuple[str, ...]) -> Iterator[tuple[slice, dict[str, Any]]]:
    for start in range(0, len(rows), BLOCK):
        place = slice(start, start + BLOCK)
        yield place, data.gather(rows[place], columns)
