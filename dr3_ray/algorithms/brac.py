"""BRAC (Wu et al., arXiv 1911.11361), on SAC with a fixed entropy coefficient, as in the authors' `brac_primal`.

Behaviour, in the first `behaviour_steps`, alone: mean −log b(a|s).
Then critics: Σ_c mean (Q_c(s, a) − r − γ V(s'))², V(s') = min_c Q̄_c(s', a') − α_e log π(a'|s') − α D(s'), a' ~ π; D of
BRAC-v, none of BRAC-p. Actor: mean α_e log π(a|s) + α D(s) − min_c Q_c(s, a), without Q while it warms up.
D(s) = KL(π ‖ b) or MMD²(π, b), from samples.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dr3_ray.algorithms import bc, dqn
from dr3_ray.algorithms.actor import ActorOptions
from dr3_ray.algorithms.regression import regression
from dr3_ray.algorithms.spec import AlgorithmSpec, CriticOptions
from dr3_ray.losses import divergence, soft_actor_critic, td
from dr3_ray.networks.actors import SquashedGaussianActor, gaussian_log_prob, squashed_log_prob, squashed_sample
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.members import frozen
from dr3_ray.networks.targets import target_of
from dr3_ray.observations import Observations
from dr3_ray.options import Number, choice, number, per_row
from dr3_ray.types import Backup, Noise, Objective, Spaces, Terms, Transition

PolicyMoments = tuple[Tensor, Tensor]  # mean and log standard deviation before the tanh, each [K, B, A]


@dataclass(frozen=True)
class BRACOptions(ActorOptions, CriticOptions):
    """BRAC's options; the defaults are those of the authors' code and its README."""

    critic_lr: Number = number(1e-3, "Adam step size of the critic", low=0.0)
    actor_lr: Number = number(3e-4, "Adam step size of the policy", low=0.0)
    behaviour_lr: Number = number(5e-4, "Adam step size of the behaviour model", low=0.0)
    behaviour_steps: int = choice(300_000, "first gradient steps, which train the behaviour model alone", low=0)
    warm_start_steps: Number = number(20_000.0, "gradient steps after these in which the actor sees no Q", low=0.0)
    brac_alpha: Number = number(0.1, "α, the weight of the divergence", low=0.0)
    entropy_coeff: Number = number(0.0, "α_e, the weight of the entropy; not learned", low=0.0)
    value_penalty: bool = choice(True, "the divergence at s' lowers the target: BRAC-v; without it BRAC-p")
    divergence: Literal["kl", "mmd"] = choice("kl", "`kl` or `mmd`", ("kl", "mmd"))
    mmd_kernel: Literal["laplacian", "gaussian"] = choice(
        "laplacian",
        "kernel of `mmd`: `laplacian` or `gaussian`",
        ("laplacian", "gaussian"),
        needs={"divergence": ("mmd",)},
    )
    mmd_sigma: Number = number(20.0, "σ, width of the kernel of `mmd`", low=1e-6, needs={"divergence": ("mmd",)})
    n_divergence_samples: int = choice(4, "sampled actions at each state for the divergence")
    n_critics: int = choice(2, "critics, each with its own features; targets and actor take their minimum")


def objective(options: BRACOptions) -> Objective:
    """Return the losses above; those of children that a step does not train are without gradient."""

    def estimate(
        behaviour: nn.Module, observations: Observations, policy: PolicyMoments, noise: dict[str, Tensor], at: str
    ) -> Tensor:
        """Return D(s) between the policy of these moments and the behaviour model, [K, B]."""
        with frozen(behaviour):
            b_mean, b_log_std = (values.unsqueeze(2) for values in behaviour(observations))
        mean, log_std = (values.unsqueeze(2) for values in policy)
        draw = noise[f"policy_{at}"]
        if options.divergence == "mmd":
            actions, _ = squashed_sample(mean, log_std, draw)
            behaviour_actions, _ = squashed_sample(b_mean, b_log_std, noise[f"behaviour_{at}"])
            sigma = torch.as_tensor(options.mmd_sigma).view(-1, 1, 1, 1)
            return divergence.mmd(actions, behaviour_actions, divergence.KERNELS[options.mmd_kernel], sigma)
        # before the tanh, whose determinant is the same in both densities: nothing to clip, nothing to round
        u = mean + log_std.exp() * draw
        behaviour_log_probs = gaussian_log_prob((u - b_mean) * (-b_log_std).exp(), b_log_std)
        return divergence.kl_estimate(gaussian_log_prob(draw, log_std), behaviour_log_probs)

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Clone the behaviour in the first `behaviour_steps`; then train critics and actor beside that model."""
        assert batch.rewards is not None and batch.terminateds is not None and batch.next_observations is not None
        alpha, entropy = per_row(options.brac_alpha), torch.as_tensor(options.entropy_coeff).view(-1, 1)
        cloning = step < options.behaviour_steps
        with torch.set_grad_enabled(cloning):
            mean, log_std = networks.behaviour(batch.observations)
            nll = -squashed_log_prob(mean, log_std, batch.actions)
        with torch.no_grad():
            next_mean, next_log_std = networks.actor(batch.next_observations)
            next_actions, next_log_probs = squashed_sample(next_mean, next_log_std, noise["next_action"])
            next_values = networks.target_critic.values(batch.next_observations, next_actions).amin(1)
            next_values = next_values - entropy * next_log_probs
            if options.value_penalty:
                distance = estimate(
                    networks.behaviour, batch.next_observations, (next_mean, next_log_std), noise, "next_s"
                )
                next_values = next_values - alpha * distance
        targets = td.bellman_target(batch.rewards, batch.terminateds, next_values, per_row(options.gamma))
        with torch.set_grad_enabled(not cloning):
            outputs, phi, next_phi = networks.critic.along(batch, next_actions)
            fitted = regression(networks.critic, outputs, targets)
            mean, log_std = networks.actor(batch.observations)
            actions, log_probs = squashed_sample(mean, log_std, noise["action"])
            with frozen(networks.critic):
                value = networks.critic.values(batch.observations, actions).amin(1)
            seen = step - options.behaviour_steps >= torch.as_tensor(options.warm_start_steps).view(-1, 1)
            distance = estimate(networks.behaviour, batch.observations, (mean, log_std), noise, "s")
            actor = soft_actor_critic.actor_loss(log_probs, value * seen, entropy) + alpha * distance
        terms = Terms(
            fitted.losses
            | {
                "actor": td.mean_over_batch(actor),
                "behaviour": td.mean_over_batch(nll),
            },
            fitted.metrics
            | {
                "policy_divergence": td.mean_over_batch(distance.detach()),
                "entropy": -td.mean_over_batch(log_probs.detach()),
            },
        )
        return terms, Backup(phi, next_actions, 1.0 - batch.terminateds, next_phi)

    return loss


def networks(options: BRACOptions, spaces: Spaces, generators: Generators) -> nn.Module:
    """Build `actor`, `critic`, `target_critic`, and `behaviour`, a squashed Gaussian like the actor."""
    sizes = (Architecture.of(options, spaces), spaces.n_actions)
    critic = ContinuousCritic(generators, *sizes, options.n_critics)
    return nn.ModuleDict(
        {
            "actor": SquashedGaussianActor(generators, *sizes),
            "critic": critic,
            "target_critic": target_of(critic),
            "behaviour": SquashedGaussianActor(generators, *sizes),
        }
    )


def noise(options: BRACOptions, spaces: Spaces) -> Noise:
    """Declare one draw for the actor, one for the backup, and N for the divergence at s and at s'.

    MMD takes N draws from b at each as well.
    """
    one, many = (spaces.n_actions,), (options.n_divergence_samples, spaces.n_actions)
    whose = ("policy", "behaviour") if options.divergence == "mmd" else ("policy",)
    where = ("s", "next_s") if options.value_penalty else ("s",)
    samples = {f"{policy}_{at}": many for policy in whose for at in where}
    return Noise(normal={"action": one, "next_action": one, **samples}, uniform={})


def active(options: BRACOptions, step: int) -> frozenset[str]:
    """Name the behaviour model alone at first, then everything else."""
    return frozenset({"behaviour"} if step < options.behaviour_steps else {"actor", "critic"})


BRAC = AlgorithmSpec(
    "DR3-BRAC", "continuous", BRACOptions, networks, objective, dqn.COLUMNS, bc.act, noise, active=active
)
