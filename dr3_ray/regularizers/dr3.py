"""DR3 (Kumar et al., arXiv 2112.04716, ICLR 2022): all there is to it.

L(θ) = L_base(θ) + c0 · mean_i φ(s_i, a_i) · φ(s'_i, a'_i)

φ is the input of the critic's last linear layer and a' the action of the Bellman backup. The online network stands on
both sides, gradient flows through both, and rows whose s' ends the episode stand in no backup and are left out. Options
name what public code does otherwise; docs/differences.md says which code is which.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dr3_ray.errors import UserError
from dr3_ray.losses.features import feature_dot
from dr3_ray.losses.td import masked_mean, mean_over_batch
from dr3_ray.networks.architecture import FLAT
from dr3_ray.networks.critics import next_features
from dr3_ray.options import Number, Options, choice, largest, number
from dr3_ray.regularizers.spec import Regularizer, encoders_of
from dr3_ray.types import Backup, Objective, Terms, Transition

ADAPTIVE = ("dot_product", "cosine")


@dataclass(frozen=True)
class DR3(Options):
    """The regulariser's options."""

    dr3_coeff: Number = number(
        0.03, "c0, the weight of the penalty; 0 is the base algorithm. Atari with CQL: 0.03", low=0.0
    )
    dr3_form: Literal["dot", "abs"] = choice(
        "dot", "`dot`: φ·φ' (the paper); `abs`: |φ·φ'| (Dopamine), for features that can be negative", ("dot", "abs")
    )
    dr3_features: Literal["penultimate", "encoder"] = choice(
        "penultimate",
        "what the penalty takes for φ: `penultimate`, the input of the last linear layer (the paper); `encoder`, the "
        "flattened output of the image encoders, before an action joins (arXiv 2109.10813's code, PTR)",
        ("penultimate", "encoder"),
    )
    dr3_stop_gradient: bool = choice(False, "no gradient through φ(s', a'); the paper found it slightly worse")
    dr3_mask_terminals: bool = choice(True, "leave out rows that stand in no Bellman backup")
    dr3_divisor: Literal["rows", "batch"] = choice(
        "rows",
        "the sum over rows with a backup is divided by their number (`rows`) or by that of the whole `batch` (PTR)",
        ("rows", "batch"),
    )
    dr3_match_actions: bool = choice(
        False,
        "multi-head Q only: count a row only where a = a', the dot product of the last layer's full gradients; "
        "Dopamine drops this indicator",
    )
    dr3_warmup_steps: Number = number(
        0.0, "gradient steps in which c0 rises linearly to its value; 0: constant (the paper)", low=0.0
    )
    dr3_adaptive: Literal["off", "dot_product", "cosine"] = choice(
        "off",
        "dual ascent on c0, which starts at dr3_coeff: the penalty, or the mean cosine of φ and φ', is held at "
        "dr3_threshold (ours, not the paper's)",
        ("off", *ADAPTIVE),
    )
    dr3_threshold: Number = number(
        0.5, "what adaptive c0 holds; a dot product has the scale of the features", needs={"dr3_adaptive": ADAPTIVE}
    )
    dr3_multiplier_lr: Number = number(
        1e-3, "Adam step size of log(c0 / dr3_coeff), if adaptive", low=0.0, needs={"dr3_adaptive": ADAPTIVE}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        threshold = self.dr3_threshold
        if self.dr3_adaptive == "cosine" and isinstance(threshold, float) and not -1.0 <= threshold <= 1.0:
            raise UserError(f"dr3_threshold = {threshold:g} is not a cosine: choose one from -1 to 1")

    @property
    def penalizes(self) -> bool:
        """Whether there is anything to add to a loss; else the penalty is only measured."""
        return largest(self.dr3_coeff) > 0.0


class LogMultiplier(nn.Module):
    """A parameter ρ = log(c0 / dr3_coeff), one a member, so that checkpoints hold it."""

    LIMIT = math.log(1e2)

    def __init__(self, members: int):
        super().__init__()
        self.log_multiplier = nn.Parameter(torch.zeros(members))

    def forward(self) -> Float[Tensor, "member"]:
        """Return ρ, [K]."""
        return self.log_multiplier

    def loss(self, violation: Float[Tensor, "member"]) -> Float[Tensor, "member"]:
        """Return −ρ · violation, violation without gradient: its descent is dual ascent.

        Nothing drives |ρ| past LIMIT, so that c0 stays near a hundredth to a hundred times dr3_coeff and soon returns.
        """
        rho = self.log_multiplier
        outwards = (rho.detach().abs() >= self.LIMIT) & (rho.detach() * violation > 0.0)
        return -rho * violation.detach().masked_fill(outwards, 0.0)


def dr3_penalty(
    phi: Float[Tensor, "member critic batch feature"],
    next_phi: Float[Tensor, "member critic batch feature"],
    mask: Float[Tensor, "member batch"],
    form: Literal["dot", "abs"] = "dot",
    divisor: Literal["rows", "batch"] = "rows",
) -> Float[Tensor, "member"]:
    """Return the mean of φ·φ' (or |φ·φ'|) over the rows of `mask`, then over the critics, each on its own features.

    With the divisor `batch` the rows of the mask are added up and divided by the number of all rows.
    """
    dots = feature_dot(phi, next_phi)
    rows, counted = dots.abs() if form == "abs" else dots, mask.unsqueeze(1)
    return (mean_over_batch(rows * counted) if divisor == "batch" else masked_mean(rows, counted)).mean(-1)


def features_of(
    options: DR3, critic: Any, batch: Transition, backup: Backup
) -> tuple[Float[Tensor, "member critic batch feature"], Float[Tensor, "member critic batch feature"]]:
    """Return the features of (s, a) and of (s', a') that the penalty takes."""
    if options.dr3_features == "encoder":
        return critic.encoded(batch.observations), critic.encoded(batch.next_observations)
    return backup.phi, next_features(critic, batch, backup)


def schedule(warmup_steps: Number, step: int) -> Tensor:
    """Return the share of c0 in gradient step `step` = 0, 1, …: min(1, (step + 1) / warm-up); 1 without a warm-up."""
    return ((step + 1) / torch.as_tensor(warmup_steps).clamp(min=1.0)).clamp(max=1.0)


def multiplier_networks(options: DR3, members: int) -> dict[str, nn.Module]:
    """Return the networks of adaptive c0: `dr3_multiplier`, trained with the step size `dr3_multiplier_lr`."""
    return {} if options.dr3_adaptive == "off" else {"dr3_multiplier": LogMultiplier(members)}


def check(options: DR3, beside: Mapping[str, Any], action_kind: str) -> None:
    """Check that the critic has the heads that an option asks for.

    Raises:
        UserError: it has not.
    """
    if options.dr3_match_actions and action_kind != "discrete":
        raise UserError("dr3_match_actions compares the heads of a discrete critic: leave it out")
    if options.dr3_match_actions and beside.get("critic_actions") == "input":
        raise UserError("dr3_match_actions compares heads, and critic_actions='input' has one for all: leave one out")
    if options.dr3_divisor == "batch" and not (options.dr3_mask_terminals or options.dr3_match_actions):
        raise UserError("dr3_divisor='batch' has no effect where all rows count: leave it out, or dr3_mask_terminals")
    if options.dr3_features == "encoder":
        encoder = beside["encoder"]
        if not any(name != FLAT for name in (encoder.values() if isinstance(encoder, dict) else [encoder])):
            raise UserError("dr3_features='encoder' takes what an image encoder gives, and there is none: set encoder")
        if options.dr3_match_actions:
            raise UserError("dr3_match_actions compares heads, which dr3_features='encoder' lies before: leave one out")


def warn_of_unbounded_penalty(networks: nn.Module, options: DR3) -> None:
    """Warn where DR3 minimises a dot product of features that can be negative: it has no lower bound."""
    unbounded = options.penalizes and options.dr3_form == "dot" and options.dr3_features == "penultimate"
    if unbounded and any(encoder.signed for encoder in encoders_of(networks.get_submodule("critic"))):
        warnings.warn(
            "the features of this critic can be negative, so that their dot product has no lower bound and minimising "
            "it can run away: use dr3_form='abs', or dr3_adaptive",
            stacklevel=4,
        )


def with_dr3(objective: Objective, options: DR3) -> Objective:
    """Return the objective plus `dr3_coeff` times the penalty on its critic's features."""
    warmup = largest(options.dr3_warmup_steps)
    penalizes = options.penalizes

    def regularized(
        networks: Any, batch: Transition, noise: dict[str, Tensor], step: int
    ) -> tuple[Terms, Backup | None]:
        """Add the weighted penalty to the terms, and the multiplier's loss if it is trained."""
        terms, backup = objective(networks, batch, noise, step)
        assert backup is not None and batch.next_observations is not None
        phi, next_phi = features_of(options, networks.critic, batch, backup)
        if options.dr3_stop_gradient:
            next_phi = next_phi.detach()
        mask = backup.in_backup if options.dr3_mask_terminals else backup.in_backup.new_ones(backup.in_backup.shape)
        if options.dr3_match_actions:
            mask = mask * (batch.actions == backup.next_actions)
        penalty = dr3_penalty(phi, next_phi, mask, options.dr3_form, options.dr3_divisor)
        coefficient = options.dr3_coeff
        if step < warmup:
            coefficient = coefficient * schedule(options.dr3_warmup_steps, step)
        losses, metrics = dict(terms.losses), terms.metrics | {"dr3_penalty": penalty.detach()}
        if options.dr3_adaptive != "off":
            multiplier: LogMultiplier = networks.dr3_multiplier
            coefficient = coefficient * multiplier().detach().exp()
            held = penalty
            if options.dr3_adaptive == "cosine":
                cosines = functional.cosine_similarity(phi, next_phi, dim=-1)
                held = masked_mean(cosines, mask.unsqueeze(1)).mean(-1)
            losses["dr3_multiplier"] = multiplier.loss((held - options.dr3_threshold).detach())
            metrics["dr3_weight"] = coefficient
        if penalizes:
            losses["dr3"] = coefficient * penalty
        else:  # not 0 times the penalty: without a weight it is a metric alone, which replayed steps leave out
            losses["dr3"] = torch.zeros(penalty.shape, dtype=penalty.dtype, device=penalty.device)
        return Terms(losses, metrics), backup

    return regularized


REGULARIZER = Regularizer(
    "dr3",
    DR3,
    with_dr3,  # also with a weight of 0, so that the penalty is measured
    networks=lambda options, members, generators: multiplier_networks(options, members),
    check=check,
    warn=warn_of_unbounded_penalty,
    looks_ahead=lambda options: options.penalizes and options.dr3_features == "penultimate",
)
