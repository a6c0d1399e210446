"""Observations minus their mean, over their standard deviation, both of the data.

The statistics are buffers of the networks, so that a checkpoint made for inference carries them. They are applied once
a batch, before any network or regulariser sees it.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

EPSILON = 1e-3  # added to the standard deviation, as in TD3+BC and CORL
ROWS_AT_ONCE = 65_536

Statistics = tuple[Tensor, Tensor]  # mean and standard deviation, each [*observation]


class Rows(Protocol):
    """What the statistics ask of a data set."""

    def __len__(self) -> int: ...

    def gather(self, indices: Tensor, columns: tuple[str, ...]) -> dict[str, Tensor]: ...


def observation_statistics(data: Rows) -> Statistics:
    """Mean and (population) standard deviation of every component over all rows, in float64."""
    parts = torch.split(torch.arange(len(data)), ROWS_AT_ONCE)

    def mean(of: Tensor | float, power: int) -> Tensor:
        sums = [
            (data.gather(part, ("observations",))["observations"].double() - of).pow(power).sum(0) for part in parts
        ]
        return torch.stack(sums).sum(0) / len(data)

    center = mean(0.0, 1)
    return center, mean(center, 2).sqrt()


def normalize_by(networks: nn.Module, statistics: Statistics) -> None:
    """From now on `normalized` of these networks uses the statistics."""
    mean, std = statistics
    networks.register_buffer("observation_mean", mean.to(torch.get_default_dtype()))
    networks.register_buffer("observation_scale", std.to(torch.get_default_dtype()) + EPSILON)


def normalized(networks: nn.Module, observations: Tensor) -> Tensor:
    """(s − mean) / (std + ε) where the networks have statistics, else s; observations [K, B, *observation]."""
    mean = getattr(networks, "observation_mean", None)
    if mean is None:
        return observations
    scale = networks.observation_scale
    return (observations - mean) / scale  # type: ignore[no-any-return]
