"""The srank penalty (Kumar et al., arXiv 2010.14498, section 5): it holds the rank of the features up."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dr3_ray.options import Number, Options, largest, number
from dr3_ray.regularizers.spec import Regularizer, with_penalty
from dr3_ray.types import Backup, Objective, Transition


@dataclass(frozen=True)
class SRank(Options):
    """The weight of the srank penalty."""

    srank_coeff: Number = number(
        0.0, "weight of σ_max² − σ_min² of the features (arXiv 2010.14498: 0.001), against the loss of rank", low=0.0
    )


def srank_penalty(phi: Float[Tensor, "*member row feature"]) -> Float[Tensor, "*member"]:
    """Return σ_max(Φ)² − σ_min(Φ)², Φ the features of the batch (Kumar et al., arXiv 2010.14498, section 5).

    The squares are the extreme eigenvalues of ΦΦᵀ or ΦᵀΦ, whichever is smaller. NaN where an entry is not finite.
    """
    gram = phi @ phi.mT if phi.shape[-2] <= phi.shape[-1] else phi.mT @ phi
    finite = gram.isfinite().all(-1).all(-1)
    eigenvalues = torch.linalg.eigvalsh(torch.where(finite[..., None, None], gram, torch.zeros_like(gram)))
    return torch.where(finite, eigenvalues[..., -1] - eigenvalues[..., 0], torch.nan)


def wanted(options: SRank) -> bool:
    """Return whether any member has a weight on the penalty."""
    return largest(options.srank_coeff) > 0.0


def with_srank(objective: Objective, options: SRank) -> Objective:
    """Return the objective plus the weighted penalty, averaged over the critics, each on its own features."""
    seeks_rank = wanted(options)

    def penalty(networks: Any, batch: Transition, backup: Backup) -> Tensor:
        # eigenvalues take long, and on a GPU the host's help
        srank = srank_penalty(backup.phi).mean(-1) if seeks_rank else torch.zeros_like(backup.phi[:, 0, 0, 0])
        return options.srank_coeff * srank

    return with_penalty(objective, "srank", penalty)


REGULARIZER = Regularizer("srank", SRank, with_srank, wanted, needs_host=True)
