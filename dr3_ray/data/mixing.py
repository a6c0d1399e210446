"""How the rows of a batch are dealt to the data sets of a mixture: fixed counts, in one order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dr3_ray.errors import UserError

if TYPE_CHECKING:  # as below: opening a mixture takes no torch
    from torch import Tensor


class Slots(NamedTuple):
    """Where each row of a batch of K members comes from."""

    rows: "Tensor"
    """[K, B], of how many rows one is drawn."""
    starts: "Tensor"
    """[K, B], the first of these rows."""


@dataclass(frozen=True)
class Mixing:
    """The parts of a mixture, whose rows lie one part after the other; the last is the target."""

    names: tuple[str, ...]
    """Of the parts, for people."""
    rows: tuple[int, ...]
    """How many each part has."""
    shares: tuple[tuple[Fraction, ...], ...]
    """Of the parts in a batch, which sum to 1: at first, and from update `since` on."""
    since: int | None = None

    @property
    def starts(self) -> list[int]:
        """The first row of each part."""
        return [sum(self.rows[:number]) for number in range(len(self.rows))]

    def phase(self, step: int) -> int:
        """Return which of the `shares` hold at an update."""
        return int(self.since is not None and step >= self.since)

    def until(self, step: int, end: int) -> int:
        """Return the update from which on other shares hold than at this one, or `end` if that comes first."""
        return end if self.since is None or step >= self.since else min(self.since, end)

    def counts(self, batch_size: int, phase: int, target_share: float = 0.0) -> list[int]:
        """Return how many rows of a batch come from each part; `target_share` is the target's last share, 0: as named.

        Raises:
            UserError: a part with a share would never be drawn from, or the others have none to divide.
        """
        shares = self.shares[phase]
        if target_share and phase == len(self.shares) - 1:
            shares = self._with_target(Fraction(str(target_share)))
        counts = largest_remainders(shares, batch_size)
        if lacking := [
            name for name, share, count in zip(self.names, shares, counts, strict=True) if share and not count
        ]:
            raise UserError(
                f"a batch of {batch_size} has no row of {lacking[0]} by its weight in the mixture: raise that, or "
                "batch_size"
            )
        return counts

    def slots(self, counts: Sequence[Sequence[int]], rows: Sequence[Sequence[int]] | None = None) -> Slots:
        """Return the slots of batches with these counts of each part, [K][parts], on the CPU.

        A part's rows are spread evenly over the batch, so that the shares of several learners have some of each.
        `rows` [K][parts] are how many of its first rows a part is drawn from.
        """
        import torch

        order = torch.tensor(np.stack([spread(count) for count in counts]))
        below = torch.tensor([list(before) for before in rows or [self.rows] * len(counts)])
        return Slots(below.gather(1, order), torch.tensor(self.starts)[order])

    def _with_target(self, share: Fraction) -> tuple[Fraction, ...]:
        others = self.shares[-1][:-1]
        if share < 1 and not sum(others):
            raise UserError(
                f"target_share = {float(share):g} leaves a rest to data sets without a weight: leave it out"
            )
        rest = [(1 - share) * weight / sum(others) if share < 1 else Fraction(0) for weight in others]
        return (*rest, share)


def largest_remainders(shares: Sequence[Fraction], total: int) -> list[int]:
    """Divide a number of rows by shares that sum to 1: each gets the whole part, the largest remainders one more.

    Of equal remainders the later one. Two shares so get ⌊w·B⌉ and the rest, as floor(0.9·B) and the rest in PTR
    (Kumar et al., arXiv 2210.05178).
    """
    counts = [math.floor(share * total) for share in shares]
    order = sorted(range(len(shares)), key=lambda part: (counts[part] - shares[part] * total, -part))
    for part in order[: total - sum(counts)]:
        counts[part] += 1
    return counts


def spread(counts: Sequence[int]) -> np.ndarray:
    """Return the part of each place in a batch, [sum of counts], the places of a part evenly apart."""
    parts = np.repeat(np.arange(len(counts)), counts)
    places = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
    order: np.ndarray = parts[np.argsort(places, kind="stable")]
    return order
