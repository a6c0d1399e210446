"""What DR3 is compared with: penalties on φ(s, a) alone, and normalisation in the critic. They combine with DR3."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dr3_ray.networks.encoders import MLP, StackedLayerNorm
from dr3_ray.options import Number, Options, choice, number
from dr3_ray.types import Backup, Objective, Terms, Transition


@dataclass(frozen=True)
class Baselines(Options):
    """Weights of the penalties, 0 leaves one out; and what normalises the critic."""

    srank_coeff: Number = number(
        0.0, "weight of σ_max² − σ_min² of the features (arXiv 2010.14498: 0.001), against the loss of rank", low=0.0
    )
    feature_l2_coeff: Number = number(0.0, "weight of the mean ‖φ(s, a)‖² (ours: the first term of R_TD)", low=0.0)

    critic_norm: Literal["none", "layer", "unit"] = choice(
        "none",
        "`layer`: LayerNorm behind every ReLU of the critic, whose φ can then be negative; `unit`: φ / ‖φ‖, whose dot "
        "product is a cosine",
        ("none", "layer", "unit"),
    )

    @property
    def penalizes(self) -> bool:
        """Whether any member has a weight."""
        return any(float(torch.as_tensor(getattr(self, name)).max()) > 0.0 for name in self.numbers())


def normalize_critic(networks: nn.Module, options: Baselines, members: int) -> None:
    """Put `critic_norm` into the critic and its target, both just built."""
    for name, child in networks.named_children():
        for module in child.modules() if name in ("critic", "target_critic") else ():
            if isinstance(module, MLP) and options.critic_norm == "layer":
                norms = [StackedLayerNorm(members, n, module.copies) for n in module.hidden_sizes]
                module.norms = nn.ModuleList(norms).requires_grad_(name == "critic")
            elif isinstance(module, MLP):
                module.unit_output = options.critic_norm == "unit"


def srank_penalty(phi: Float[Tensor, "*member row feature"]) -> Float[Tensor, "*member"]:
    """σ_max(Φ)² − σ_min(Φ)², Φ the features of the batch (Kumar et al., arXiv 2010.14498, section 5).

    The squares are the extreme eigenvalues of ΦΦᵀ or ΦᵀΦ, whichever is smaller. NaN where an entry is not finite.
    """
    gram = phi @ phi.mT if phi.shape[-2] <= phi.shape[-1] else phi.mT @ phi
    finite = gram.isfinite().all(-1).all(-1)
    eigenvalues = torch.linalg.eigvalsh(torch.where(finite[..., None, None], gram, torch.zeros_like(gram)))
    return torch.where(finite, eigenvalues[..., -1] - eigenvalues[..., 0], torch.nan)


def feature_l2(phi: Float[Tensor, "*member row feature"]) -> Float[Tensor, "*member"]:
    """The mean over rows of ‖φ‖²."""
    return phi.square().sum(-1).mean(-1)


def with_baselines(objective: Objective, options: Baselines) -> Objective:
    """The objective plus each weight times its penalty, averaged over the critics, each on its own features."""

    def regularized(
        networks: Any, batch: Transition, noise: dict[str, Tensor], step: int
    ) -> tuple[Terms, Backup | None]:
        terms, backup = objective(networks, batch, noise, step)
        assert backup is not None
        penalties = {
            "srank": options.srank_coeff * srank_penalty(backup.phi).mean(-1),
            "feature_l2": options.feature_l2_coeff * feature_l2(backup.phi).mean(-1),
        }
        return Terms(terms.losses | penalties, terms.metrics), backup

    return regularized
