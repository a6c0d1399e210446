"""Random numbers by counting: word i of a key at a step is a function of (key, step, i), on every device the same.

Nothing has a state, so that a GPU draws for all members and many steps in one batch, within a CUDA graph as well.
"""

import math
from typing import Any

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
MULTIPLIERS, WEYL, ROUNDS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 10


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four words of 32 bits by Philox4x32-10.

    Words are int64 from 0 to 2³² − 1, tensors of shapes that broadcast or plain numbers. Salmon et al. 2011, "Parallel
    random numbers: as easy as 1, 2, 3".
    """
    (a, b, c, d), (left, right) = counter, key
    for _ in range(ROUNDS):
        # products of 64 bits; torch has signed ones only, so that shifted words are masked
        first, second = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (second >> 32 & WORD) ^ b ^ left, second & WORD, (first >> 32 & WORD) ^ d ^ right, first & WORD
        left, right = (left + WEYL[0]) & WORD, (right + WEYL[1]) & WORD
    return a, b, c, d


def words(keys: Tensor, steps: Tensor, blocks: Tensor) -> Tensor:
    """Return four words for each of the blocks [n], of each key [K, 2] at its steps [S, K]: [S, K, 4 n]."""
    steps = steps.unsqueeze(-1)
    left, right = keys.unbind(1)
    four = philox((blocks, 0, steps & WORD, steps >> 32), (left.view(-1, 1), right.view(-1, 1)))
    return torch.stack(four, dim=-1).flatten(2)


def integers(words: Tensor, below: Tensor) -> Tensor:
    """Return integers from 0 to `below` − 1, which is less than 2³¹."""
    return words * below >> 32


def uniform(words: Tensor) -> Tensor:
    """Return floats in [−1, 1), multiples of 2⁻²³."""
    return (words >> 8).float() * 2.0**-23 - 1.0


def normal(words: Tensor) -> Tensor:
    """Return one normal number for each word in the last dimension, an even number of them (Box and Muller 1958)."""
    first, second = words.float().mul(2.0**-32).chunk(2, dim=-1)
    radius = (-2.0 * (first + 2.0**-33).clamp(max=1.0).log()).sqrt()  # never the logarithm of zero
    angle = 2.0 * math.pi * second
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)
