"""CQL on Box actions (Kumar et al., arXiv 2006.04779): SAC whose critics are lowered where the data have no actions.

Critics: Σ_c mean (Q_c(s, a) − y)² + α mean gap_c(s). The gap of `H` is T log Σ_n exp((Q(s, a_n) − log μ(a_n)) / T)
− Q(s, a_data) with a_n from the uniform distribution, π(·|s) and π(·|s'), all of them evaluated at s.
Actor: mean α_e log π(a|s) − min_c Q_c(s, a). Temperature: SAC's. Lagrange: α is α' learned by dual ascent.
Where public code disagrees (the authors' on one side; JaxCQL, CORL and d3rlpy on the other), an option names both.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import bc, dqn
from dr3_ray.algorithms.actor import ActorOptions
from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec, CriticOptions
from dr3_ray.losses import cql, soft_actor_critic, td
from dr3_ray.networks.actors import LogTemperature, SquashedGaussianActor, squashed_log_prob, squashed_sample
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.blocks import mean_in_blocks
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.members import frozen
from dr3_ray.networks.targets import target_of
from dr3_ray.observations import Observations
from dr3_ray.options import Number, choice, largest, number, per_row
from dr3_ray.types import Backup, Noise, Objective, Spaces, Terms, Transition

Form = Literal["H", "H_unweighted", "rho"]
MaxBackup = Literal["off", "max_min", "min_max"]
Lagrange = Literal["off", "authors", "common"]
LAGRANGE = ("authors", "common")
WIDE = 1e9  # a clip that never acts


@dataclass(frozen=True)
class ContinuousCQLOptions(ActorOptions, CriticOptions):
    """Options on Box actions; the defaults are those of the authors' D4RL code."""

    hidden_sizes: tuple[int, ...] = choice((256, 256, 256), "widths of the ReLU layers, critic and actor alike")
    cql_alpha: Number = number(5.0, "α, the weight of the conservative term (5 or 10: authors' code)", low=0.0)
    actor_lr: Number = number(1e-4, "Adam step size of the actor (1e-4 or 3e-5: authors' code)", low=0.0)
    temperature_lr: Number = number(1e-4, "Adam step size of log α_entropy (authors: the actor's)", low=0.0)
    target_entropy_scale: Number = number(1.0, "target entropy = −scale · |A| (1: SAC)", low=0.0)
    cql_temperature: Number = number(1.0, "T of the log-sum-exp", low=1e-6)
    bc_steps: Number = number(0.0, "first gradient steps in which the actor clones the data (40,000: authors)", low=0.0)
    n_sampled_actions: int = choice(10, "sampled actions from each of uniform, π(·|s) and π(·|s')")
    n_critics: int = choice(2, "critics, each with its own features; targets and actor take their minimum")
    cql_form: Form = choice(
        "H",
        "`H`: samples weighted by 1/μ (authors' version 3); `H_unweighted`: bare samples and the data's action (their "
        "version 2, which they call CQL(ρ)); `rho`: the paper's CQL(ρ), mean of Q under π(·|s) weighted by softmax Q",
        ("H", "H_unweighted", "rho"),
    )
    cql_clip_below: Number = number(WIDE, "the gap of a row is clipped at minus this (CORL: no clip)", low=0.0)
    cql_clip_above: Number = number(WIDE, "the gap of a row is clipped at this (CORL: no clip)", low=0.0)
    max_backup: MaxBackup = choice(
        "off",
        "target from the best of `n_sampled_actions` at s': `max_min` per critic, then the minimum (authors); "
        "`min_max` the minimum over critics, then the best (JaxCQL, CORL, d3rlpy)",
        ("off", "max_min", "min_max"),
    )
    entropy_backup: bool = choice(False, "the target has SAC's −α_e log π(a'|s'); authors and CORL: without")
    lagrange: Lagrange = choice(
        "off",
        "α' is learned so that the gap stays near the threshold τ: `authors` α' (α gap − τ), `common` α' α (gap − τ)",
        ("off", *LAGRANGE),
    )
    lagrange_threshold: Number = number(
        5.0, "τ of Lagrange (5: authors, antmaze)", low=0.0, needs={"lagrange": LAGRANGE}
    )
    lagrange_lr: Number = number(
        3e-4, "Adam step size of log α' (authors: the critic's)", low=0.0, needs={"lagrange": LAGRANGE}
    )


def backup_of(
    options: ContinuousCQLOptions, networks: Any, batch: Transition, policy: tuple[Tensor, Tensor], noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (a' [K, B, A], V(s') [K, B]) with a' ~ π(·|s'), or the best of several."""
    mean, log_std = (values.unsqueeze(2) for values in policy)
    draws = noise.unsqueeze(2) if options.max_backup == "off" else noise
    actions, log_probs = squashed_sample(mean, log_std, draws)  # [K, B, N, A], N = 1 without max-backup
    q = networks.target_critic.values(batch.next_observations, actions)
    values, best = (cql.max_then_min if options.max_backup == "max_min" else cql.min_then_max)(q)
    if options.entropy_backup:
        alpha = networks.temperature().exp().unsqueeze(-1)
        values = values - alpha * log_probs.gather(2, best.unsqueeze(2)).squeeze(2)
    return actions.take_along_dim(best[..., None, None], dim=2).squeeze(2), values


def sampled_actions(
    policies: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]], noise: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return actions [K, B, N, A] and their log densities [K, B, N] from π(·|s), π(·|s') and the uniform distribution.

    Distributions without noise are left out. `policies` are mean and log_std at s and s'.
    """
    draws = (noise["sampled_at_s"], noise.get("sampled_at_next_s"))
    samples = [
        squashed_sample(mean.unsqueeze(2), log_std.unsqueeze(2), draw)
        for (mean, log_std), draw in zip(policies, draws, strict=True)
        if draw is not None
    ]
    if "sampled_uniform" in noise:
        uniform = noise["sampled_uniform"]
        samples.append((uniform, torch.full_like(uniform[..., 0], cql.uniform_log_density(uniform.shape[-1]))))
    actions, log_density = (torch.cat(parts, dim=2) for parts in zip(*samples, strict=True))
    return actions, log_density


def gap_of(
    options: ContinuousCQLOptions,
    critic: Any,
    observations: Observations,
    data_actions: Tensor,
    actions: Tensor,
    log_density: Tensor,
    returns: Tensor | None = None,
) -> Tensor:
    """Return the conservative gap of each row and critic, clipped, [K, C, B], from the samples at s.

    `returns` [K, B], of Cal-QL alone, are what Q of the policy's samples, the first ones, is raised to.
    """
    q = critic.values(observations, torch.cat([actions, data_actions.unsqueeze(2)], dim=2))
    if returns is not None:
        of_policy = options.n_sampled_actions * (1 if options.cql_form == "rho" else 2)
        raised = cql.calibrated(q[..., :of_policy], returns.unsqueeze(1))
        q = torch.cat([raised, q[..., of_policy:]], dim=-1)
    sampled_q, data_q = q[..., :-1], q[..., -1]
    temperature = torch.as_tensor(options.cql_temperature).view(-1, 1, 1, 1)
    if options.cql_form == "rho":
        gap = cql.rho_gap(sampled_q, data_q, temperature)
    elif options.cql_form == "H":
        gap = cql.continuous_gap(sampled_q, log_density.unsqueeze(1), data_q, temperature)
    else:
        gap = cql.continuous_gap(q, torch.zeros_like(q), data_q, temperature)
    below, above = (torch.as_tensor(bound).view(-1, 1, 1) for bound in (options.cql_clip_below, options.cql_clip_above))
    return gap.clamp(-below, above)


def conservative_terms(options: ContinuousCQLOptions, networks: Any, gap: Tensor) -> dict[str, Tensor]:
    """Return the losses `cql` and, with Lagrange, `lagrange`, from the mean gap of each critic [K, C]."""
    alpha = per_row(options.cql_alpha)
    if options.lagrange == "off":
        return {"cql": (alpha * gap).sum(1)}
    threshold = per_row(options.lagrange_threshold)
    excess = alpha * gap - threshold if options.lagrange == "authors" else alpha * (gap - threshold)
    multiplier = networks.lagrange().exp().clamp(max=1e6)
    return {"cql": multiplier.detach() * excess.sum(1), "lagrange": -multiplier * excess.detach().mean(1)}


def objective(options: ContinuousCQLOptions, calibrated: bool = False) -> Objective:
    """Return the losses of critics, actor and temperatures, all at the same weights.

    `calibrated`: Q of the policy's actions is raised to the data's returns inside of the gap, as in Cal-QL.
    """
    warm_start = largest(options.bc_steps)

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Evaluate actor, critics and sampled actions once, and add up every loss from these values."""
        assert batch.rewards is not None and batch.terminateds is not None
        log_temperature = networks.temperature().unsqueeze(-1)
        mean, log_std = networks.actor(batch.observations)
        actions, log_probs = squashed_sample(mean, log_std, noise["action"])
        with torch.no_grad():
            next_policy = networks.actor(batch.next_observations)
            next_actions, next_values = backup_of(options, networks, batch, next_policy, noise["next_action"])
            samples = sampled_actions(((mean, log_std), next_policy), noise)
        targets = td.bellman_target(batch.rewards, batch.terminateds, next_values, per_row(options.gamma))
        outputs, phi, next_phi = networks.critic.along(batch, next_actions)
        fitted = regression(networks.critic, outputs, targets)
        returns = batch.monte_carlo_returns if calibrated else None
        columns = (batch.observations, batch.actions, *samples, *(() if returns is None else (returns,)))
        rows = partial(gap_of, options, networks.critic)
        gap = mean_in_blocks(rows, networks.critic, columns, evaluated=samples[0].shape[2] + 1)  # [K, C]

        with frozen(networks.critic):
            value = networks.critic.values(batch.observations, actions).amin(1)
        bounded = {} if returns is None else {"bound_rate": td.mean_over_batch((value < returns).to(value.dtype))}
        if step < warm_start:
            cloning = (step < torch.as_tensor(options.bc_steps)).view(-1, 1)
            value = torch.where(cloning, squashed_log_prob(mean, log_std, batch.actions), value)
        target_entropy = -torch.as_tensor(options.target_entropy_scale).view(-1, 1) * actions.shape[-1]
        terms = Terms(
            losses={
                **fitted.losses,
                **conservative_terms(options, networks, gap),
                **soft_actor_critic.policy_losses(log_probs, value, log_temperature, target_entropy),
            },
            metrics={
                **fitted.metrics,
                "cql_gap": gap.detach().mean(1),
                "entropy": -td.mean_over_batch(log_probs.detach()),
                "temperature": log_temperature.detach().exp().squeeze(-1),
                **bounded,
            },
        )
        return terms, Backup(phi, next_actions, 1.0 - batch.terminateds, next_phi)

    return loss


def networks(options: ContinuousCQLOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `critic`, `target_critic`, `actor`, `temperature` (log α_e) and, with Lagrange, `lagrange` (log α')."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions)
    critic = ContinuousCritic(generators, *sizes, options.n_critics)
    made: dict[str, nn.Module] = {
        "critic": critic,
        "target_critic": target_of(critic),
        "actor": SquashedGaussianActor(generators, *sizes),
        "temperature": LogTemperature(len(generators)),
    }
    if options.lagrange != "off":
        made["lagrange"] = LogTemperature(len(generators))
    return nn.ModuleDict(made)


def noise(options: ContinuousCQLOptions, spaces: Spaces) -> Noise:
    """Declare one draw for the actor, one or N for the backup, and N for each distribution of sampled actions."""
    one, many = (spaces.n_actions,), (options.n_sampled_actions, spaces.n_actions)
    backup: tuple[int, ...] = one if options.max_backup == "off" else many
    normal: dict[str, tuple[int, ...]] = {"action": one, "next_action": backup, "sampled_at_s": many}
    if options.cql_form == "rho":
        return Noise(normal, {})
    return Noise(normal | {"sampled_at_next_s": many}, {"sampled_uniform": many})


CONTINUOUS = AlgorithmSpec(
    "DR3-CQL", "continuous", ContinuousCQLOptions, networks, objective, dqn.COLUMNS, bc.act, noise
)
