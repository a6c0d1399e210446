"""Subsets of a data set, as an address names them: `split=train&take=best:0.1`.

First the split, by episode, then what is taken of that part, in whatever order the words stand. Shares are of rows,
but that of a split, which is of episodes.
"""

import re
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Self

import numpy as np

from dr3_ray.data.columns import Columns
from dr3_ray.data.number_types import Array
from dr3_ray.errors import UserError, check_known

PARTS = ("train", "validation")
DRAWN = ("uniform", "episodes")  # ways to take that a seed decides
WAYS = ("uniform", "first", "best", "worst", "episodes")
NUMBER = re.compile(r"\d{1,18}")
LARGEST = 10**18 - 1  # NUMBER
SHARE = re.compile(r"(\d{1,18}|\d{0,18}\.\d{1,18})([eE]-?\d{1,2})?")


@dataclass(frozen=True)
class Subset:
    """Which rows of a data set are meant. `str` gives the one spelling, which leaves out what is as usual."""

    split: str | None = None
    """`train` or `validation`: a part of the episodes; the other part has all others."""
    validation: Decimal = Decimal("0.1")
    """The share of the episodes that are for validation."""
    split_seed: int = 0
    """What decides which."""
    take: str | None = None
    """`uniform`, `first`, `best` or `worst` and a share of the rows, or `episodes` and how many."""
    seed: int = 0
    """What decides which rows or episodes are drawn."""

    @classmethod
    def parse(cls, query: str) -> Self:
        """Read words and values, `split=train&take=best:0.1`.

        Raises:
            UserError: a word or a value is unknown, stands there twice, or changes nothing.
        """
        given: dict[str, Any] = {}
        for part in query.split("&"):
            word, _, value = part.partition("=")
            check_known("word for a subset", [word], WORDS)
            if word in given:
                raise UserError(f"{word} stands there twice: say it once")
            given[word] = _READ[word](part, value)
        subset = cls(**given)
        for word in ("validation", "split_seed") if subset.split is None else ():
            if word in given:
                raise UserError(f"{word} is of a split: add split=train or split=validation, or leave it out")
        if "seed" in given and subset.way not in DRAWN:
            raise UserError(
                "seed draws for take=uniform:… or take=episodes:…, and split_seed for a split: leave it out"
            )
        return subset

    def __str__(self) -> str:
        """Return what `parse` reads, in one spelling."""
        said = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return "&".join(f"{word}={value}" for word, value, usual in said if value != usual)

    @property
    def way(self) -> str:
        """How rows are taken: what stands before the colon of `take`, or nothing."""
        return (self.take or "").partition(":")[0]

    def rows(self, episodes: Columns, where: str) -> Array:
        """Return the rows meant, [R], ascending; `episodes` is the table of the data set at `where`.

        Raises:
            UserError: there are fewer episodes than it takes.
        """
        chosen = self._episodes(episodes, where)
        rows = rows_of(episodes["offsets"][chosen], episodes["lengths"][chosen])
        if self.way == "uniform":
            rows = rows[drawn(len(rows), at_least_one(self._amount, len(rows)), self.seed, "uniform")]
        return rows

    def _episodes(self, table: Columns, where: str) -> Array:
        """Return the episodes whose rows are meant, or drawn from; one without a row is none."""
        chosen = np.flatnonzero(table["lengths"])
        if self.split:
            chosen = self._part(chosen, where)
        if self.way == "episodes":
            if self._amount > len(chosen):
                where = f"the part {self.split} of {where}" if self.split else where
                raise UserError(f"{where} has {len(chosen)} episodes to take from, not {self._amount}: take fewer")
            return chosen[drawn(len(chosen), int(self._amount), self.seed, "episodes")]
        if self.way in ("first", "best", "worst"):
            returns = table["returns"][chosen]
            order = {"first": np.arange(len(chosen)), "best": best_order(returns), "worst": best_order(-returns)}
            chosen = chosen[order[self.way]]
            chosen = chosen[: holders(table["lengths"][chosen].cumsum(), self._amount)]
        return np.sort(chosen)

    def _part(self, episodes: Array, where: str) -> Array:
        """Return the episodes of the split, whose parts have one each at least."""
        count = at_least_one(self.validation, len(episodes))
        if count == len(episodes):
            raise UserError(
                f"{where} has {count} episodes, too few to hold out {self.validation} of them: do not split it"
            )
        held_out = np.zeros(len(episodes), bool)
        held_out[drawn(len(episodes), count, self.split_seed, "split")] = True
        part: Array = episodes[held_out == (self.split == "validation")]
        return part

    @property
    def _amount(self) -> Decimal:
        return Decimal((self.take or "").partition(":")[2])


WORDS = tuple(field.name for field in fields(Subset))


def drawn(n: int, count: int, seed: int, purpose: str) -> Array:
    """Draw `count` different numbers below `n`, ascending; a larger count has these and others.

    Only the raw numbers of a bit generator are the same in every version of numpy; a permutation need not be.
    """
    source = np.random.PCG64(np.random.SeedSequence([seed, *purpose.encode()]))
    rows: Array = np.sort(np.argpartition(source.random_raw(n), count - 1)[:count])
    return rows


def at_least_one(share: float | Decimal, n: int) -> int:
    """Return how many a share of n things are: rounded down, and 1 at least."""
    return max(1, int(share * n))


def holders(ends: Array, share: float | Decimal) -> int:
    """Count the fewest whole episodes, whose rows end at `ends` [E], that hold a share of all rows."""
    return int(np.searchsorted(ends, at_least_one(share, int(ends[-1])))) + 1


def best_order(returns: Array) -> Array:
    """Order episodes by their returns [E], highest first, equal ones as they are."""
    order: Array = np.argsort(-returns, kind="stable")
    return order


def rows_of(offsets: Array, lengths: Array) -> Array:
    """Return the rows of episodes that begin at `offsets` [E], one episode after the other."""
    ends = lengths.cumsum()
    rows: Array = np.arange(ends[-1]) + np.repeat(offsets - (ends - lengths), lengths)
    return rows


def table_of(episodes: Columns, rows: Array) -> Columns:
    """Return the table of episodes for these rows alone, ascending: of the episodes that have some, counted anew."""
    offsets, lengths = episodes["offsets"], episodes["lengths"]
    starts, ends = np.searchsorted(rows, offsets), np.searchsorted(rows, offsets + lengths)
    lengths = ends - starts
    some = lengths > 0
    return {name: values[some] for name, values in (episodes | {"offsets": starts, "lengths": lengths}).items()}


def _part(said: str, value: str) -> str:
    check_known("split", [value], PARTS)
    return value


def _seed(said: str, value: str) -> int:
    if not NUMBER.fullmatch(value):
        raise UserError(f"{said}: give a whole number from 0 to {LARGEST}")
    return int(value)


def _held_out(said: str, value: str) -> Decimal:
    share = _share(said, value)
    if share == 1:
        raise UserError(f"{said} leaves nothing for training: give a share below 1")
    return share


def _take(said: str, value: str) -> str:
    way, _, amount = value.partition(":")
    check_known("way to take rows", [way], WAYS)
    if way != "episodes":
        return f"{way}:{_share(said, amount)}"
    if not NUMBER.fullmatch(amount) or not int(amount):
        raise UserError(f"{said}: give a number of episodes, as in take=episodes:50")
    return f"{way}:{int(amount)}"


def _share(said: str, text: str) -> Decimal:
    share = Decimal(text) if SHARE.fullmatch(text) else Decimal(0)
    if not 0 < share <= 1:
        raise UserError(f"{said}: give a share of at most 1, such as 0.1")
    return share.normalize()


_READ = {"split": _part, "validation": _held_out, "split_seed": _seed, "take": _take, "seed": _seed}
