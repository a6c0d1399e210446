"""Uniform sampling with replacement, every member from its own generator.

A member's indices and noise depend on its seed alone, not on its pack; two members of equal seed see equal batches.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dr3_ray.types import Noise


def generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on a member's seed and on what it is for ("init", "sampler", "probe")."""
    words = np.random.SeedSequence([seed, *stream.encode()]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(words[0]) << 32 | int(words[1]))


def best_first(episodes: Mapping[str, Any], shares: Sequence[float]) -> tuple[Tensor, list[int]]:
    """All rows, those of the episodes of highest return first, and how many of them to draw from for each share.

    A share of the rows is held by the fewest best episodes, each of them whole, that have so many rows (Chen et al.,
    arXiv 2106.01345, "%BC"). `episodes` has `offsets`, `lengths` and `returns`, one an episode.
    """
    best = np.argsort(-np.asarray(episodes["returns"]), kind="stable")
    lengths, offsets = np.asarray(episodes["lengths"])[best], np.asarray(episodes["offsets"])[best]
    ends = lengths.cumsum()
    order = np.arange(ends[-1]) + np.repeat(offsets - (ends - lengths), lengths)
    wanted = [max(1, int(share * ends[-1])) for share in shares]
    return torch.from_numpy(order), ends[np.searchsorted(ends, wanted)].tolist()


class Sampler:
    """Row indices, of the first `rows[k]` for member k, and noise."""

    def __init__(
        self,
        rows: Sequence[int],
        batch_size: int,
        noise: Noise,
        seeds: Sequence[int],
        dtype: torch.dtype = torch.float32,
        stream: str = "sampler",
    ):
        self.rows, self.batch_size, self.noise, self.dtype = rows, batch_size, noise, dtype
        self.generators = [generator(seed, stream) for seed in seeds]

    def draw(self, members: slice) -> tuple[Tensor, dict[str, Tensor]]:
        """Indices [K, B] and noise, each [K, B, *shape] or [K, *shape], of these members' next batch."""
        draws = [self._draw_one(*each) for each in zip(self.generators[members], self.rows[members], strict=True)]
        return torch.stack([indices for indices, _ in draws]), {
            name: torch.stack([noise[name] for _, noise in draws]) for name in draws[0][1]
        }

    def _draw_one(self, source: torch.Generator, rows: int) -> tuple[Tensor, dict[str, Tensor]]:
        indices = torch.randint(rows, (self.batch_size,), generator=source)
        # noise is drawn in float32 and widened, so that a float64 run sees the same numbers
        noise = {
            name: torch.randn(self.batch_size, *shape, generator=source).to(self.dtype)
            for name, shape in self.noise.normal.items()
        }
        per_row = {name: (self.batch_size, *shape) for name, shape in self.noise.uniform.items()}
        for name, shape in (per_row | self.noise.uniform_per_step).items():
            noise[name] = torch.rand(*shape, generator=source).to(self.dtype) * 2.0 - 1.0
        return indices, noise

    def state_dict(self) -> dict[str, Any]:
        """The generators' states."""
        return {"generators": [each.get_state() for each in self.generators]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        for each, saved in zip(self.generators, state["generators"], strict=True):
            each.set_state(saved)
