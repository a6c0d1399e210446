"""Dropout in the critic."""

from dataclasses import dataclass

import torch
from torch import nn

from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.stochastic import Dropout
from dr3_ray.options import Number, Options, largest, number
from dr3_ray.regularizers.spec import Regularizer, encoders_of


@dataclass(frozen=True)
class CriticDropout(Options):
    """The share of activations that a step leaves out."""

    critic_dropout: Number = number(
        0.0, "share of the critic's activations, φ among them, that a step sets to 0 (arXiv 2109.10813)", 0.0, 0.95
    )


def change(critic: nn.Module, options: CriticDropout, generators: Generators) -> None:
    """Put dropout behind every hidden layer."""
    if largest(options.critic_dropout) > 0.0:
        for encoder in encoders_of(critic):
            encoder.dropout = Dropout(torch.as_tensor(options.critic_dropout))


REGULARIZER = Regularizer("dropout", CriticDropout, change=change)
