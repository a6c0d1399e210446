"""Successive halving (Jamieson & Talwalkar, arXiv 1502.07943): the worse configurations of a pack are cut out of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from dr3_ray import limits
from dr3_ray.errors import UserError
from dr3_ray.sweep.spec.counts import NO_FLAG, Count
from dr3_ray.sweep.spec.objective import Criterion


class Halving(BaseModel):
    """The choice of when configurations are cut, and how many."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    factor: Annotated[int, Field(ge=2, le=limits.COUNT), NO_FLAG] = 3
    """Of so many configurations of a pack one is kept at every cut."""
    first: Count = 2
    """Evaluations before the first cut; each further cut comes after `factor` times as many."""

    def rungs(self, evaluations: int) -> list[int]:
        """Return the evaluations after which there is a cut; none comes after the last."""
        rungs = [self.first]
        while rungs[-1] < evaluations:
            rungs.append(rungs[-1] * self.factor)
        return rungs[:-1]

    def kept(self, configurations: int) -> int:
        """Return how many of so many configurations a cut leaves."""
        return -(-configurations // self.factor)

    def share(self, configurations: int, evaluations: int) -> float:
        """Return the share of updates that is made, of those that so many configurations would get."""
        made, left, before = 0, configurations, 0
        for rung in (*self.rungs(evaluations), evaluations):
            made += left * (rung - before)
            left, before = self.kept(left), rung
        return made / (configurations * evaluations)

    def check_fits(self, evaluations: int, seeds: int, largest: int | None) -> None:
        """Check that configurations would be cut, and that `factor` of them with all seeds fit into the `largest` pack.

        Raises:
            UserError: nothing would be cut, or they do not fit.
        """
        if not self.rungs(evaluations):
            raise UserError(
                f"halving cuts for the first time after {self.first} evaluations, and there are {evaluations}: "
                "give it a smaller `first`, or more evaluations"
            )
        if largest is not None and (least := self.factor * seeds) > largest:
            raise UserError(
                f"halving by {self.factor} with {seeds} seeds needs packs of {least} members, and {largest} is the "
                "most: use fewer seeds, or pack: 1"
            )


def as_halving(given: Any) -> Any:
    """Return a number as the factor of a halving, and anything else as it is."""
    return {"factor": given} if type(given) is int else given


class Race(Halving):
    """Halving by an objective, as it stands in the configurations of members."""

    objective: Criterion
    """Which configurations are better."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self | None:
        """Return the race that a member takes part in; None without halving."""
        return cls(**config["halving"]) if "halving" in config else None

    def losers(self, configurations: Sequence[Sequence[int]], measured: Mapping[int, Mapping[str, Any]]) -> list[int]:
        """Return the places that a cut leaves out: all seeds of the worse configurations, and whatever diverged.

        `configurations` holds the places of each one's seeds, `measured` the last measurements at each place. A
        configuration comes after all that lost fewer of their seeds.
        """

        def rank(places: Sequence[int]) -> tuple[int, float]:
            seeds = [measured[place] for place in places]
            alive = [seed[self.objective.metric] for seed in seeds if not seed["diverged"]]
            score = self.objective.better(self.objective.score(alive)) if alive else math.nan
            return len(seeds) - len(alive), math.inf if math.isnan(score) else -score

        ranked = sorted(configurations, key=rank)
        best = {place for places in ranked[: self.kept(len(ranked))] for place in places}
        return sorted(place for place in measured if place not in best or measured[place]["diverged"])
