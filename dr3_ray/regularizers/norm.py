"""Normalisation in the critic: of its activations, of φ's length, or of its last hidden matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from dr3_ray.errors import UserError
from dr3_ray.networks.encoders import MLP, Generators, SpectralLinear, UnitLength
from dr3_ray.options import Options, choice
from dr3_ray.regularizers.spec import Regularizer, encoders_of


@dataclass(frozen=True)
class CriticNorm(Options):
    """The choice of what is normalised in the critic."""

    critic_norm: Literal["none", "layer", "unit", "spectral"] = choice(
        "none",
        "`layer`: LayerNorm behind every ReLU of the critic, whose φ can then be negative; `unit`: φ / ‖φ‖, whose dot "
        "product is a cosine; `spectral`: the last hidden matrix over its largest singular value (arXiv 2105.05246)",
        ("none", "layer", "unit", "spectral"),
    )


def check(options: CriticNorm, beside: Mapping[str, Any], action_kind: str) -> None:
    """Check that φ is normalised in one way only, and that there is a matrix for a spectral norm.

    Raises:
        UserError: two options ask for different ones, or there is no hidden layer.
    """
    if options.critic_norm == "spectral" and not beside["hidden_sizes"]:
        raise UserError("critic_norm='spectral' needs a hidden layer: give hidden_sizes, or leave it out")
    if options.critic_norm == "unit" and beside["critic_bottleneck"]:
        raise UserError("critic_bottleneck and critic_norm='unit' both say what φ is: choose one of them")


def change(critic: nn.Module, options: CriticNorm, generators: Generators) -> None:
    """Put `critic_norm` into every stack of hidden layers."""
    for encoder in encoders_of(critic):
        _normalize(encoder, options.critic_norm)


def _normalize(encoder: MLP, norm: str) -> None:
    if norm == "layer":
        encoder.normalize_layers()
    elif norm == "unit":
        encoder.output = UnitLength()
    elif norm == "spectral":
        encoder.layers[-1] = SpectralLinear(encoder.layers[-1])  # type: ignore[arg-type]


REGULARIZER = Regularizer("norm", CriticNorm, change=change, check=check)
