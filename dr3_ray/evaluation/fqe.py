"""What trained policies are worth, by the data alone.

Fitted Q evaluation (Le et al., arXiv 1903.08738; as a criterion for offline choices: Paine et al., arXiv 2007.09055):
a critic Q of its own for each policy π is fitted to y = r + γ Q̄(s', π(s')), and its mean at the data's start states
stands for the discounted return. It is no bound: where π leaves the data, Q says what the network makes up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import dqn
from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec, CriticOptions
from dr3_ray.errors import UserError
from dr3_ray.losses import td
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import DiscreteCritic
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.members import member_view
from dr3_ray.networks.targets import target_of
from dr3_ray.observations import Observations, each_part
from dr3_ray.options import per_row
from dr3_ray.training.member import Member
from dr3_ray.training.normalization import normalized
from dr3_ray.training.population import Population
from dr3_ray.types import Backup, Objective, Spaces, Terms, Transition

BLOCK = 256  # start states at a time
SAID_EVERY = 100  # steps between two words of progress


@dataclass(frozen=True)
class FQEOptions(CriticOptions):
    """Options of the fitted critic."""


class Policies(NamedTuple):
    """K trained policies of one structure: the algorithm, and its networks with their K members."""

    spec: AlgorithmSpec
    networks: nn.Module


class Fitted(NamedTuple):
    """Critics that were fitted to K policies, from S seeds each; those of one seed are together."""

    values: Tensor
    """V(π_k) at the data's start states by each critic, [S, K]; NaN where it diverged."""
    networks: nn.Module
    """`critic`, `target_critic` and `target_policy` of S · K members."""


def fit_critics(
    policies: Policies,
    data: Any,
    options: FQEOptions,
    steps: int,
    seeds: int = 1,
    execution: Any = "auto",
    say: Callable[[int], None] = lambda steps: None,
) -> Fitted:
    """Fit a critic to each of K policies from each of `seeds` seeds, all in one population.

    Critics of one seed have the same first weights and see the same minibatches, so that policies are compared on equal
    draws. `options.normalize_observations` has to be that of the policies. `say` is told of steps as they are made.

    Raises:
        UserError: the data have no start states.
    """
    count = n_members(policies)
    everybody = Policies(policies.spec, member_view(policies.networks, list(range(count)) * seeds))
    spec = _evaluation_of(everybody)
    start_rows(data)  # before anything takes its time
    members = [Member(options, seed) for seed in range(seeds) for _ in range(count)]
    device = next(policies.networks.parameters()).device
    population = Population.of(spec, members, data, data.spaces, execution, device)
    made = 0
    while made < steps:
        n = min(SAID_EVERY, steps - made)
        population.update(n)
        made += n
        say(n)
    networks = population.networks

    def values(seen: Observations) -> Tensor:
        actions = policies.spec.act(networks.target_policy, seen)  # type: ignore[misc]
        return played_value(networks.critic, seen, actions).amin(1)

    starts = _at_starts(data, networks, len(members), values)
    return Fitted(torch.where(population.diverged, torch.nan, starts).view(seeds, count), networks)


def fitted_q_evaluation(
    policies: Policies, data: Any, options: FQEOptions, steps: int, execution: Any = "auto"
) -> Tensor:
    """Estimate V(π_k) of K policies, [K]: the mean of Q_k(s, π_k(s)) at the data's start states.

    The critics are those of `fit_critics` from one seed. NaN where Q_k diverged.

    Raises:
        UserError: the data have no start states.
    """
    return fit_critics(policies, data, options, steps, execution=execution).values[0]


def own_start_value(policies: Policies, data: Any) -> Tensor:
    """Return what the policies' own critics promise, [K]: the mean of Q_k(s, π_k(s)) at the data's start states.

    The least of several critics, the mean of heads or quantiles; NaN for an algorithm without a critic. Of
    rewards as they were trained on (`reward_scale` and the options beside it).

    Raises:
        UserError: the data have no start states.
    """
    count = n_members(policies)
    if not policies.spec.has_critic:
        return torch.full((count,), torch.nan)
    critic = policies.networks.critic

    def values(seen: Observations) -> Tensor:
        actions = policies.spec.act(policies.networks, seen)  # type: ignore[misc]
        return played_value(critic, seen, actions).amin(1)

    return _at_starts(data, policies.networks, count, values)


def played_value(critic: Any, observations: Observations, actions: Tensor) -> Tensor:
    """Return Q(s, π(s)) [K, C, B], of heads or quantiles the mean (C = 1); NaN where the policy gave no action."""
    chosen = some_action(actions)
    values: Tensor = critic.values(observations, chosen)
    return values if chosen is actions else values.masked_fill((actions < 0).unsqueeze(1), torch.nan)


def some_action(actions: Tensor) -> Tensor:
    """Return the actions, with the first choice for −1, which is none."""
    return actions if actions.is_floating_point() else actions.clamp(min=0)


def n_members(policies: Policies) -> int:
    """Return the number K of policies."""
    return len(next(policies.networks.parameters()))


def start_rows(data: Any) -> Tensor:
    """Return the rows that begin an episode; of a mixture those of its target, in which policies act.

    Raises:
        UserError: there is none, in a subsample that has lost them all.
    """
    lengths = torch.as_tensor(data.episodes["lengths"])
    first = torch.as_tensor(data.episodes["offsets"])[lengths > 0]
    if mixing := getattr(data, "mixing", None):
        first = first[first >= mixing.starts[-1]]
    starts = first[data.gather(first, ("timesteps",))["timesteps"] == 0]
    if not len(starts):
        raise UserError("the data set has no first row of an episode, where a policy could be evaluated")
    return starts


@torch.no_grad()
def _at_starts(data: Any, networks: nn.Module, members: int, values: Any) -> Tensor:
    """Return the mean over start states of `values`, [K, B] of normalised observations [K, B, *observation]."""
    device = next(networks.parameters()).device
    starts = []
    for rows in torch.split(start_rows(data), BLOCK):
        observations = data.gather(rows, ("observations",))["observations"]
        seen = each_part(lambda part: part.to(device).expand(members, *part.shape), observations)
        starts.append(values(normalized(networks, seen)))
    return torch.cat(starts, dim=1).mean(1)


def _evaluation_of(policies: Policies) -> AlgorithmSpec:
    """Return FQE as an algorithm, with the policy among the networks as a target that nothing moves."""
    act = policies.spec.act
    if act is None:
        raise UserError(f"{policies.spec.name} on {policies.spec.action_kind} actions has no policy to evaluate")

    def build(options: FQEOptions, spaces: Spaces, generators: Generators) -> nn.Module:
        """Build a critic with its target, and put the frozen policies beside them as `target_policy`."""
        architecture = Architecture.of(options, spaces)
        if spaces.action_kind == "discrete":
            critic: nn.Module = DiscreteCritic(generators, architecture, spaces.n_actions)
        else:
            critic = ContinuousCritic(generators, architecture, spaces.n_actions, n_critics=1)
        # without the statistics of its own: a batch comes normalised
        policy = nn.ModuleDict(dict(policies.networks.named_children())).requires_grad_(False)
        return nn.ModuleDict({"critic": critic, "target_critic": target_of(critic), "target_policy": policy})

    def objective(options: FQEOptions) -> Objective:
        """Return the objective of fitted Q evaluation for these options."""

        def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup | None]:
            """Regress Q(s, a) on r + γ Q̄(s', π(s'))."""
            assert batch.rewards is not None and batch.terminateds is not None and batch.next_observations is not None
            with torch.no_grad():
                next_actions = act(networks.target_policy, batch.next_observations)
                next_values = played_value(networks.target_critic, batch.next_observations, next_actions).amin(1)
            targets = td.bellman_target(batch.rewards, batch.terminateds, next_values, per_row(options.gamma))
            outputs, phi, next_phi = networks.critic.along(batch, some_action(next_actions))
            terms = regression(networks.critic, outputs, targets)
            return terms, Backup(phi, next_actions, 1.0 - batch.terminateds, next_phi)

        return loss

    return AlgorithmSpec("FQE", policies.spec.action_kind, FQEOptions, build, objective, dqn.COLUMNS, None)
