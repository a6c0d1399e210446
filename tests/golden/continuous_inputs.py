"""What the continuous golden files have in common: random batches, gradients caught on their way, how they are written.

A file holds plain arrays: `weights/NETWORK/N.weight` [out, in] and `.bias` of the N-th linear layer, `batch/COLUMN`,
`noise/NAME`, `losses/NAME` and `gradients/NETWORK/N.weight`, the gradient of the loss that trains that network. All of
it in float64, with networks of two small layers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

OBSERVATION, ACTION, HIDDEN, BATCH, SAMPLES = 5, 3, 8, 16, 4


class Recorder(torch.optim.SGD):
    """Keeps the gradients that it is asked to step along, and stays where it is."""

    def __init__(self, network: nn.Module):
        super().__init__(network.parameters(), lr=0.0)
        self.network, self.gradients = network, dict[str, Tensor]()

    def step(self, closure: Any = None) -> None:
        self.gradients = {
            name: parameter.grad.clone()
            for name, parameter in self.network.named_parameters()
            if parameter.grad is not None
        }


def batch(rng: torch.Generator) -> dict[str, Tensor]:
    """Rows of random transitions, every fourth of them terminal."""
    return {
        "observations": torch.randn(BATCH, OBSERVATION, generator=rng),
        "actions": torch.rand(BATCH, ACTION, generator=rng) * 1.9 - 0.95,
        "rewards": torch.randn(BATCH, generator=rng),
        "next_observations": torch.randn(BATCH, OBSERVATION, generator=rng),
        "terminateds": (torch.arange(BATCH) % 4 == 3).double(),
        "next_actions": torch.rand(BATCH, ACTION, generator=rng) * 1.9 - 0.95,
    }


def scale(network: nn.Module, factor: float = 3.0) -> nn.Module:
    """Larger weights than the first ones, so that values and advantages are not all alike."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(factor)
    return network


def parameters(kind: str, network: str, values: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """`KIND/NETWORK/N.weight`, N counting the linear layers; other parameters keep the last part of their name."""
    layers: list[str] = []
    found = {}
    for name, value in values.items():
        path, _, last = name.rpartition(".")
        if last in ("weight", "bias"):
            if path not in layers:
                layers.append(path)
            last = f"{layers.index(path)}.{last}"
        found[f"{kind}/{network}/{last}"] = value.detach().numpy().copy()
    return found


def save(
    name: str, columns: dict[str, Tensor], noise: dict[str, Tensor], losses: dict[str, float], *arrays: Any
) -> None:
    """Write the file."""
    content = {f"batch/{column}": value.numpy() for column, value in columns.items()}
    content |= {f"noise/{each}": value.numpy() for each, value in noise.items()}
    content |= {f"losses/{each}": np.float64(value) for each, value in losses.items()}
    for each in arrays:
        content |= each
    np.savez_compressed(Path(__file__).parent / f"{name}.npz", **content)
