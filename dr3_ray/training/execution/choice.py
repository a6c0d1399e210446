"""Which way of carrying out steps is the faster one, by device and size, and the switch between two of them."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch

from dr3_ray.networks.architecture import FLAT
from dr3_ray.networks.products import ONEDNN_IS_FASTER
from dr3_ray.types import Noise

SMALL_ACTIVATION = 2**17  # floats; beyond, batched products were not faster on a CPU with 2 MiB of L2 cache
SMALL_COMPILED = 2**13  # floats; from there on, compiled steps of one member after the other were faster
Execution = Literal["auto", "in_turn", "stacked"]
Wrapper = Literal["recordings", "graphs", "compiler"]  # what carries steps out faster, where it serves


class Switch:
    """A switch between steps as they are and compiled ones, for every function that has both ways."""

    def __init__(self) -> None:
        self.on = False

    def choosing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, compiled whenever the switch is on."""
        compiled = torch.compile(function, dynamic=False)
        return lambda *arguments: (compiled if self.on else function)(*arguments)


def largest_activation(options: Any, noise: Noise, n_actions: int) -> float:
    """Return the floats in one member's widest layer: rows of the batch, with every action valued at each, by width.

    Without bound where there are convolutions, which were no faster stacked either.
    """
    if options.encoder != FLAT:
        return math.inf
    samples = sum(shape[0] for shape in (noise.normal | noise.uniform).values() if len(shape) == 2)
    if getattr(options, "critic_actions", "heads") == "input":
        samples += n_actions
    return float(options.batch_size * (1 + samples) * max(options.hidden_sizes, default=1))


def choose_execution(device: torch.device, activation: float, compiled: bool = False) -> Execution:
    """Choose `stacked` on a GPU, for small activations, and where oneDNN multiplies large ones network by network.

    Else `in_turn`: see benchmarks/pack.py. Compiled steps cost little to start, and are compiled once for all members
    that are walked in turn.
    """
    if device.type != "cpu":
        return "stacked"
    if not ONEDNN_IS_FASTER:
        return "stacked" if activation <= SMALL_ACTIVATION else "in_turn"
    return "stacked" if activation < (SMALL_COMPILED if compiled else math.inf) else "in_turn"
