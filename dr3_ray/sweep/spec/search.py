"""Searches in a specification: who proposes configurations, how many, and where they are kept."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from dr3_ray.errors import UserError, check_known
from dr3_ray.runs.places import absolute_study
from dr3_ray.sweep.search.methods import METHODS
from dr3_ray.sweep.spec.counts import Count
from dr3_ray.sweep.spec.space import Assignment, Choice, Range, names_of, space_of

if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[*METHODS]


class Search(BaseModel):
    """A search, which proposes configurations one after another, from the results of those before."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    method: Method = "tpe"
    """Who proposes configurations, by its name."""
    trials: Count
    """Configurations of each algorithm on each data set; each is trained with all seeds."""
    points: tuple[Assignment, ...] = ()
    """Configurations to try first. Options that a point does not name are drawn."""
    study: Annotated[str, AfterValidator(absolute_study)] | None = None
    """URL of a database for the studies, or the path of a journal file; None: SQLite in the run directory."""


def check_axes(search: Search | None, coefficients: Any, axes: Mapping[str, Any]) -> None:
    """Check that axes fit a search, or a sweep without one.

    Raises:
        UserError: a range does not say how many numbers to draw, or what only drawing needs is there in a search.
    """
    spaces = {f"axes.{name}": space_of(axis) for name, axis in axes.items()}
    for where, space in {"coefficients": space_of(coefficients), **spaces}.items():
        if search and isinstance(space, Range) and space.also:
            raise UserError(f"{where}: a search knows no `also`: give such numbers in search.points")
        if not search and isinstance(space, Range | Choice) and space.samples is None:
            raise UserError(f"{where}: samples is missing: say how many to draw, or give a search")
    if search is None:
        return
    known = {"dr3_coeff"}.union(*(names_of(name, axis) for name, axis in axes.items()))
    for point in search.points:
        check_known("axis in search.points", point, known)
    if len(search.points) > search.trials:
        raise UserError(f"search: {len(search.points)} points are more than {search.trials} trials: ask for more")
