"""Uniform sampling with replacement, for every member on its own.

A member's indices and noise depend on its seed alone, not on its pack; two members of equal seed see equal batches. On
a CPU they come from torch's generators, on a GPU they are counted: the numbers of one are not those of the other.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dr3_ray.data.philox import integers, normal, uniform, words
from dr3_ray.data.subsets import best_order, holders, rows_of
from dr3_ray.types import Noise

Draws = tuple[Tensor, dict[str, Tensor]]  # indices and noise


def generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator that depends on a member's seed and on its purpose ("init", "sampler", "probe")."""
    first, second = key(seed, stream)
    return torch.Generator(device).manual_seed(first << 32 | second)


def key(seed: int, stream: str) -> list[int]:
    """Return two words of 32 bits that depend on a member's seed and on their purpose."""
    words: list[int] = np.random.SeedSequence([seed, *stream.encode()]).generate_state(2, np.uint32).tolist()
    return words


def best_first(episodes: Mapping[str, Any], shares: Sequence[float]) -> tuple[Tensor, list[int]]:
    """Return all rows, episodes of highest return first, and for each share the number of rows to draw from.

    A share of the rows is held by the fewest best episodes that have so many rows, each of them whole (Chen et al.,
    arXiv 2106.01345, "%BC"). `episodes` has `offsets`, `lengths` and `returns`, one an episode.
    """
    best = best_order(np.asarray(episodes["returns"]))
    lengths, offsets = np.asarray(episodes["lengths"])[best], np.asarray(episodes["offsets"])[best]
    ends = lengths.cumsum()
    return torch.from_numpy(rows_of(offsets, lengths)), [int(ends[holders(ends, share) - 1]) for share in shares]


def best_of_each(
    episodes: Mapping[str, Any], parts: Sequence[int], shares: Sequence[float]
) -> tuple[Tensor, list[list[int]]]:
    """Return `best_first` of each part of the rows: all orders in one, and the numbers by share and part.

    `parts` are the numbers of rows of parts that lie one after the other, whole episodes each.
    """
    orders, numbers, start = [], [], 0
    for rows in parts:
        inside = (episodes["offsets"] >= start) & (episodes["offsets"] < start + rows)
        order, number = best_first({name: values[inside] for name, values in episodes.items()}, shares)
        orders.append(order)
        numbers.append(number)
        start += rows
    return torch.cat(orders), [list(row) for row in zip(*numbers, strict=True)]


class Sampler:
    """Row indices, below `rows[k]` for member k, and noise, from a generator for each member.

    Of a mixture `rows[k]` are bounds for each place in a batch, [B].
    """

    def __init__(
        self,
        rows: Sequence[int] | Tensor,
        batch_size: int,
        noise: Noise,
        seeds: Sequence[int],
        dtype: torch.dtype = torch.float32,
        stream: str = "sampler",
    ):
        self.rows, self.batch_size, self.noise, self.dtype, self._seeds = rows, batch_size, noise, dtype, seeds
        self.generators = [generator(seed, stream) for seed in seeds]

    def bound(self, rows: Tensor) -> None:
        """Draw below other `rows` [K, B] from now on."""
        self.rows = rows

    def draws(self, members: slice, n: int) -> Draws:
        """Draw the next `n` batches at once, each tensor of `draw` with a first dimension more: [n, K, B, …]."""
        return _stacked([self.draw(members) for _ in range(n)])

    def draw(self, members: slice) -> Draws:
        """Draw indices [K, B] and noise, each [K, B, *shape] or [K, *shape], of these members' next batch."""
        sources = zip(self.generators[members], self.rows[members], strict=True)
        return _stacked([self._draw_one(*source) for source in sources])

    def _draw_one(self, source: torch.Generator, rows: int | Tensor) -> Draws:
        if isinstance(rows, Tensor):  # 53 random bits, below 1 also when they are multiplied
            indices = (torch.rand(self.batch_size, dtype=torch.float64, generator=source) * rows).long()
        else:
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
        """Return the generators' states."""
        return {"generators": [generator.get_state() for generator in self.generators]}

    def load_state_dict(self, state: dict[str, Any], step: int) -> None:
        """Continue exactly where `state_dict` was taken, at this step; with other numbers than on a GPU."""
        if "generators" in state:
            for stream, saved in zip(self.generators, state["generators"], strict=True):
                stream.set_state(saved)
        else:
            self.generators = [generator(seed, f"sampler from {step}") for seed in self._seeds]


class CountingSampler:
    """A sampler without generators: its draws are a function of seed and step, on any device, in few operations."""

    def __init__(
        self,
        rows: Sequence[int] | Tensor,
        batch_size: int,
        noise: Noise,
        seeds: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        draw: Callable[..., Draws] | None = None,
    ):
        self.rows, self.batch_size, self.noise, self.dtype = rows, batch_size, noise, dtype
        self._draw = draw or counted
        self._blocks = torch.arange(-(-sum(sizes_of(noise, batch_size)) // 4), device=device)
        self._keys = torch.tensor([key(seed, "sampler") for seed in seeds], device=device)  # [K, 2]
        self._rows = torch.as_tensor(rows, device=device).view(len(seeds), -1)  # [K, 1], of a mixture [K, B]
        self._steps = torch.zeros(len(seeds), dtype=torch.int64, device=device)  # which a CUDA graph counts on

    def bound(self, rows: Tensor) -> None:
        """Draw below other `rows` [K, B], on the device, from now on."""
        self._rows = rows

    def draws(self, members: slice, n: int) -> Draws:
        """Draw indices [n, K, B] and noise, each [n, K, B, *shape] or [n, K, *shape], of the next `n` batches."""
        steps = self._steps[members] + torch.arange(n, device=self._steps.device).unsqueeze(1)
        keys, rows = self._keys[members], self._rows[members]
        indices, noise = self._draw(keys, steps, self._blocks, rows, self.batch_size, self.noise)
        self._steps[members] += n
        return indices, {name: values.to(self.dtype) for name, values in noise.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the arguments of the members' numbers, beside the step."""
        return {"keys": self._keys}

    def load_state_dict(self, state: dict[str, Any], step: int) -> None:
        """Continue exactly where `state_dict` was taken, at this step; with other numbers than on a CPU."""
        self._keys.copy_(state.get("keys", self._keys))
        self._steps.fill_(step)


def shapes_of(noise: Noise, batch_size: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each draw of noise for one batch."""
    per_row = {name: (batch_size, *shape) for name, shape in (noise.normal | noise.uniform).items()}
    return per_row | noise.uniform_per_step


def sizes_of(noise: Noise, batch_size: int) -> list[int]:
    """Return the numbers of words for a batch: for indices and each draw of noise, normal numbers in pairs."""
    return [batch_size, *(size + size % 2 for size in map(math.prod, shapes_of(noise, batch_size).values()))]


def counted(keys: Tensor, steps: Tensor, blocks: Tensor, rows: Tensor, batch_size: int, noise: Noise) -> Draws:
    """Draw indices [n, K, B] below `rows` [K, 1] or [K, B] and noise in float32, of keys [K, 2] at steps [n, K].

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
    """Stack indices and noise in a new first dimension."""
    return torch.stack([indices for indices, _ in draws]), {
        name: torch.stack([noise[name] for _, noise in draws]) for name in draws[0][1]
    }
