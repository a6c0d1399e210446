"""Uniform sampling with replacement, for every member on its own.

A member's indices and noise depend on its seed alone, not on its pack; two members of equal seed see equal batches. On
a CPU they come from torch's generators, on a GPU they are counted: the numbers of one are not those of the other.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dr3_ray.data.philox import integers, normal, uniform, words
from dr3_ray.types import Noise

Draws = tuple[Tensor, dict[str, Tensor]]  # indices and noise


def generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on a member's seed and on what it is for ("init", "sampler", "probe")."""
    first, second = key(seed, stream)
    return torch.Generator(device).manual_seed(first << 32 | second)


def key(seed: int, stream: str) -> list[int]:
    """Two words of 32 bits, of a member's seed and of what they are for."""
    found: list[int] = np.random.SeedSequence([seed, *stream.encode()]).generate_state(2, np.uint32).tolist()
    return found


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
    """Row indices, of the first `rows[k]` for member k, and noise, from a generator for each member."""

    def __init__(
        self,
        rows: Sequence[int],
        batch_size: int,
        noise: Noise,
        seeds: Sequence[int],
        dtype: torch.dtype = torch.float32,
        stream: str = "sampler",
    ):
        self.rows, self.batch_size, self.noise, self.dtype, self._seeds = rows, batch_size, noise, dtype, seeds
        self.generators = [generator(seed, stream) for seed in seeds]

    def draws(self, members: slice, n: int) -> Draws:
        """What `draw` returns, of the next `n` batches: [n, K, B, …]."""
        return _stacked([self.draw(members) for _ in range(n)])

    def draw(self, members: slice) -> Draws:
        """Indices [K, B] and noise, each [K, B, *shape] or [K, *shape], of these members' next batch."""
        sources = zip(self.generators[members], self.rows[members], strict=True)
        return _stacked([self._draw_one(*each) for each in sources])

    def _draw_one(self, source: torch.Generator, rows: int) -> Draws:
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

    def load_state_dict(self, state: dict[str, Any], step: int) -> None:
        """Continue exactly where `state_dict` was taken, at this step; with other numbers than on a GPU."""
        if "generators" in state:
            for each, saved in zip(self.generators, state["generators"], strict=True):
                each.set_state(saved)
        else:
            self.generators = [generator(seed, f"sampler from {step}") for seed in self._seeds]


class CountingSampler:
    """The same without generators: what is drawn is a function of seed and step. On any device, in few operations."""

    def __init__(
        self,
        rows: Sequence[int],
        batch_size: int,
        noise: Noise,
        seeds: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.rows, self.batch_size, self.noise, self.dtype = rows, batch_size, noise, dtype
        self.counted = counted
        self._blocks = torch.arange(-(-sum(sizes_of(noise, batch_size)) // 4), device=device)
        self._keys = torch.tensor([key(seed, "sampler") for seed in seeds], device=device)  # [K, 2]
        self._rows = torch.tensor(rows, device=device).unsqueeze(1)  # [K, 1]
        self._steps = torch.zeros(len(seeds), dtype=torch.int64, device=device)  # which a CUDA graph counts on

    def draws(self, members: slice, n: int) -> Draws:
        """Indices [n, K, B] and noise, each [n, K, B, *shape] or [n, K, *shape], of the next `n` batches."""
        steps = self._steps[members] + torch.arange(n, device=self._steps.device).unsqueeze(1)
        keys, rows = self._keys[members], self._rows[members]
        indices, noise = self.counted(keys, steps, self._blocks, rows, self.batch_size, self.noise)
        self._steps[members] += n
        return indices, {name: values.to(self.dtype) for name, values in noise.items()}

    def state_dict(self) -> dict[str, Any]:
        """What the members' numbers are functions of, beside the step."""
        return {"keys": self._keys}

    def load_state_dict(self, state: dict[str, Any], step: int) -> None:
        """Continue exactly where `state_dict` was taken, at this step; with other numbers than on a CPU."""
        self._keys.copy_(state.get("keys", self._keys))
        self._steps.fill_(step)


def shapes_of(noise: Noise, batch_size: int) -> dict[str, tuple[int, ...]]:
    """The shape of each draw of noise for one batch."""
    per_row = {name: (batch_size, *shape) for name, shape in (noise.normal | noise.uniform).items()}
    return per_row | noise.uniform_per_step


def sizes_of(noise: Noise, batch_size: int) -> list[int]:
    """Words that a batch takes: for its indices and for each draw of noise, normal numbers being made in pairs."""
    return [batch_size, *(size + size % 2 for size in map(math.prod, shapes_of(noise, batch_size).values()))]


def counted(keys: Tensor, steps: Tensor, blocks: Tensor, rows: Tensor, batch_size: int, noise: Noise) -> Draws:
    """Indices [n, K, B] below `rows` [K, 1] and noise in float32, of keys [K, 2] at steps [n, K].

    `blocks` count from 0, four words each; they are given because torch.compile would count them in 32 bits.
    """
    shapes, sizes = shapes_of(noise, batch_size), sizes_of(noise, batch_size)
    first, *parts = torch.split(words(keys, steps, blocks)[..., : sum(sizes)], sizes, dim=-1)
    drawn = {}
    for part, (name, shape) in zip(parts, shapes.items(), strict=True):
        values = normal(part) if name in noise.normal else uniform(part)
        drawn[name] = values[..., : math.prod(shape)].reshape(*values.shape[:-1], *shape)
    return integers(first, rows), drawn


def _stacked(draws: Sequence[Draws]) -> Draws:
    """Indices and noise side by side, in a new first dimension."""
    return torch.stack([indices for indices, _ in draws]), {
        name: torch.stack([noise[name] for _, noise in draws]) for name in draws[0][1]
    }
