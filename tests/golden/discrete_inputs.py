"""What the discrete golden files have in common: small networks, batches, and how they are written.

A file holds plain arrays in float64: `weights/NETWORK/N.weight` [out, in] and `.bias` of the N-th linear layer,
`batch/COLUMN`, `losses/NAME`, and `gradients/critic/N.weight` of the sum that trains the critic.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

OBSERVATION, ACTIONS, HIDDEN, BATCH = 5, 3, 8, 16
Layers = list[tuple[Any, Any]]  # (weight [out, in], bias [out]) of each linear layer


def layers(rng: np.random.Generator, heads: int = 1) -> Layers:
    """Two hidden layers and one output for each action and head, drawn wide enough that errors pass 1."""
    sizes = [OBSERVATION, HIDDEN, HIDDEN, ACTIONS * heads]
    return [
        (rng.normal(0.0, 1.5 / np.sqrt(n_in), (n_out, n_in)), rng.normal(0.0, 0.3, n_out))
        for n_in, n_out in itertools.pairwise(sizes)
    ]


def batch(rng: np.random.Generator) -> dict[str, Any]:
    """Rows of random transitions, every fourth of them terminal."""
    return {
        "observations": rng.normal(size=(BATCH, OBSERVATION)),
        "actions": rng.integers(ACTIONS, size=BATCH),
        "rewards": rng.normal(size=BATCH),
        "next_observations": rng.normal(size=(BATCH, OBSERVATION)),
        "terminateds": (np.arange(BATCH) % 4 == 3).astype(np.float64),
    }


def arrays(kind: str, network: str, values: Layers) -> dict[str, Any]:
    """`KIND/NETWORK/N.weight` and `.bias`."""
    found = {}
    for n, (weight, bias) in enumerate(values):
        found[f"{kind}/{network}/{n}.weight"] = np.asarray(weight)
        found[f"{kind}/{network}/{n}.bias"] = np.asarray(bias)
    return found


def save(name: str, online: Layers, target: Layers, columns: dict[str, Any], losses: dict[str, Any], gradients: Layers,
         **more: Any) -> None:  # fmt: skip
    """Write the file."""
    np.savez_compressed(
        Path(__file__).parent / f"{name}.npz",
        **arrays("weights", "critic", online),
        **arrays("weights", "target_critic", target),
        **{f"batch/{column}": values for column, values in columns.items()},
        **{f"losses/{each}": np.float64(value) for each, value in losses.items()},
        **arrays("gradients", "critic", gradients),
        **more,
    )
