"""DR3 (Kumar et al., arXiv 2112.04716, ICLR 2022): all there is to it.

L(θ) = L_base(θ) + c0 · mean_i φ(s_i, a_i) · φ(s'_i, a'_i)

φ is the input of the critic's last linear layer and a' the action of the Bellman backup. The online network stands on
both sides, gradient flows through both, and rows whose s' ends the episode stand in no backup and are left out.
"""

from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from dr3_ray.losses.td import masked_mean
from dr3_ray.networks.critics import Critic
from dr3_ray.options import Number, Options, choice, number
from dr3_ray.types import Backup, Objective, Terms, Transition


@dataclass(frozen=True)
class DR3(Options):
    """The regulariser's options."""

    dr3_coeff: Number = number(
        0.03, "c0, the weight of the penalty; 0 is the base algorithm. Atari with CQL: 0.03", low=0.0
    )
    dr3_form: Literal["dot", "abs"] = choice(
        "dot", "`dot`: φ·φ' (the paper); `abs`: |φ·φ'| (Dopamine), for features that can be negative", ("dot", "abs")
    )
    dr3_stop_gradient: bool = choice(False, "no gradient through φ(s', a'); the paper found it slightly worse")
    dr3_mask_terminals: bool = choice(True, "leave out rows that stand in no Bellman backup")
    dr3_match_actions: bool = choice(
        False,
        "multi-head Q only: count a row only where a = a', the dot product of the last layer's full gradients; "
        "Dopamine drops this indicator",
    )


def feature_dot(
    phi: Float[Tensor, "*member batch feature"], next_phi: Float[Tensor, "*member batch feature"]
) -> Float[Tensor, "*member batch"]:
    """φ(s, a) · φ(s', a'), row by row: no cosine, no norm, no γ."""
    return (phi * next_phi).sum(-1)


def dr3_penalty(
    phi: Float[Tensor, "member critic batch feature"],
    next_phi: Float[Tensor, "member critic batch feature"],
    mask: Float[Tensor, "member batch"],
    form: Literal["dot", "abs"] = "dot",
) -> Float[Tensor, "member"]:
    """The mean of φ·φ' (or |φ·φ'|) over the rows of `mask`, then over the critics, each on its own features."""
    dots = feature_dot(phi, next_phi)
    return masked_mean(dots.abs() if form == "abs" else dots, mask.unsqueeze(1)).mean(-1)


def with_dr3(objective: Objective, options: DR3) -> Objective:
    """The objective plus `dr3_coeff` times the penalty on its critic's features."""

    def regularized(
        networks: Any, batch: Transition, noise: dict[str, Tensor], step: int
    ) -> tuple[Terms, Backup | None]:
        terms, backup = objective(networks, batch, noise, step)
        assert backup is not None and batch.next_observations is not None
        critic: Critic = networks.critic
        next_phi = critic.features(batch.next_observations, backup.next_actions)
        if options.dr3_stop_gradient:
            next_phi = next_phi.detach()
        mask = backup.in_backup if options.dr3_mask_terminals else backup.in_backup.new_ones(backup.in_backup.shape)
        if options.dr3_match_actions:
            mask = mask * (batch.actions == backup.next_actions)
        penalty = dr3_penalty(backup.phi, next_phi, mask, options.dr3_form)
        losses = terms.losses | {"dr3": options.dr3_coeff * penalty}
        return Terms(losses, terms.metrics | {"dr3_penalty": penalty.detach()}), backup

    return regularized
