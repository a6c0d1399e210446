"""What DR3 is compared with: penalties on the critic's features, and changes of the critic. They combine with DR3."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dr3_ray.errors import UserError
from dr3_ray.networks.encoders import MLP, Generators, SpectralLinear, StackedLayerNorm, UnitLength
from dr3_ray.networks.stochastic import Bottleneck, Dropout
from dr3_ray.options import Number, Options, choice, largest, number
from dr3_ray.types import Backup, Objective, Terms, Transition


@dataclass(frozen=True)
class Baselines(Options):
    """Weights of the penalties, 0 leaves one out; and what changes the critic."""

    srank_coeff: Number = number(
        0.0, "weight of σ_max² − σ_min² of the features (arXiv 2010.14498: 0.001), against the loss of rank", low=0.0
    )
    feature_l2_coeff: Number = number(0.0, "weight of the mean ‖φ(s, a)‖² (ours: the first term of R_TD)", low=0.0)
    critic_weight_decay: Number = number(
        0.0, "λ: a step of Adam also takes step size · λ of every parameter of the critic (AdamW)", low=0.0
    )
    critic_dropout: Number = number(
        0.0, "share of the critic's activations, φ among them, that a step sets to 0 (arXiv 2109.10813)", 0.0, 0.95
    )
    critic_bottleneck: bool = choice(
        False, "φ ~ N(mean, std²) of two linear outputs, a variational bottleneck (arXiv 2109.10813); φ can be negative"
    )
    bottleneck_coeff: Number = number(
        1e-3,
        "weight of the mean KL(φ's distribution ‖ N(0, 1)) of the bottleneck (ours; it has to be swept)",
        low=0.0,
        needs={"critic_bottleneck": (True,)},
    )
    critic_norm: Literal["none", "layer", "unit", "spectral"] = choice(
        "none",
        "`layer`: LayerNorm behind every ReLU of the critic, whose φ can then be negative; `unit`: φ / ‖φ‖, whose dot "
        "product is a cosine; `spectral`: the last hidden matrix over its largest singular value (arXiv 2105.05246)",
        ("none", "layer", "unit", "spectral"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.critic_bottleneck and self.critic_norm == "unit":
            raise UserError("critic_bottleneck and critic_norm='unit' both say what φ is: choose one of them")

    @property
    def seeks_rank(self) -> bool:
        """Whether any member has a weight on the srank penalty."""
        return largest(self.srank_coeff) > 0.0

    @property
    def penalizes(self) -> bool:
        """Whether any member has a weight on a penalty."""
        return self.critic_bottleneck or self.seeks_rank or largest(self.feature_l2_coeff) > 0.0


def change_critic(networks: nn.Module, options: Baselines, generators: Sequence[Generators]) -> None:
    """Put dropout, bottleneck and `critic_norm` into the critic and its target, both just built.

    `generators` gives the critic and its target one set each, in equal states.
    """
    children = [networks.get_submodule(name) for name in ("critic", "target_critic") if hasattr(networks, name)]
    for child, sources in zip(children, generators, strict=False):
        for encoder in [module for module in child.modules() if isinstance(module, MLP)]:
            _change(encoder, options, sources)
        if child is not children[0]:
            child.requires_grad_(False)


def _change(encoder: MLP, options: Baselines, generators: Generators) -> None:
    if largest(options.critic_dropout) > 0.0:
        encoder.dropout = Dropout(torch.as_tensor(options.critic_dropout))
    if options.critic_bottleneck:
        encoder.output = Bottleneck(generators, encoder.n_out, encoder.copies)
    if options.critic_norm == "layer":
        norms = [StackedLayerNorm(len(generators), n, encoder.copies) for n in encoder.hidden_sizes]
        encoder.norms = nn.ModuleList(norms)
    elif options.critic_norm == "unit":
        encoder.output = UnitLength()
    elif options.critic_norm == "spectral":
        if not encoder.hidden_sizes:
            raise UserError("critic_norm='spectral' needs a hidden layer: give hidden_sizes, or leave it out")
        encoder.layers[-1] = SpectralLinear(encoder.layers[-1])  # type: ignore[arg-type]


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


def bottleneck_kl(
    mean: Float[Tensor, "*member row feature"], log_std: Float[Tensor, "*member row feature"]
) -> Float[Tensor, "*member"]:
    """The mean over rows of KL(N(mean, std²) ‖ N(0, 1)) = Σ_f (mean² + std² − 1) / 2 − log std."""
    return ((mean.square() + (2.0 * log_std).exp() - 1.0) / 2.0 - log_std).sum(-1).mean(-1)


def with_baselines(objective: Objective, options: Baselines) -> Objective:
    """The objective plus each weight times its penalty, averaged over the critics, each on its own features."""
    seeks_rank = options.seeks_rank

    def regularized(
        networks: Any, batch: Transition, noise: dict[str, Tensor], step: int
    ) -> tuple[Terms, Backup | None]:
        terms, backup = objective(networks, batch, noise, step)
        assert backup is not None
        # eigenvalues take long, and on a GPU the host's help
        srank = srank_penalty(backup.phi).mean(-1) if seeks_rank else torch.zeros_like(backup.phi[:, 0, 0, 0])
        penalties = {
            "srank": options.srank_coeff * srank,
            "feature_l2": options.feature_l2_coeff * feature_l2(backup.phi).mean(-1),
        }
        if options.critic_bottleneck:
            posterior = networks.critic.posterior(batch.observations, batch.actions)
            penalties["bottleneck"] = options.bottleneck_coeff * bottleneck_kl(*posterior).mean(-1)
        return Terms(terms.losses | penalties, terms.metrics), backup

    return regularized
