"""What a configuration is judged by: one number of its seeds at their last evaluation."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dr3_ray.errors import check_known
from dr3_ray.quantities import JUDGED, RETURN, quantity
from dr3_ray.stats import iqm, mean


def _known(metric: Any) -> Any:
    check_known("metric", [metric], JUDGED)
    return metric


class Criterion(BaseModel):
    """A measurement that makes one configuration better than another."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metric: Annotated[str, BeforeValidator(_known), Field(json_schema_extra={"enum": [*JUDGED]})] = RETURN
    """A column of the histories that every algorithm has: the return, or a diagnostic of the critic."""
    mode: Literal["max", "min"] = Field(
        default_factory=lambda given: "min" if quantity(given.get("metric", RETURN)).better == "less" else "max"
    )
    """What is better; by default what docs/development/quantities.md says of the metric."""
    over_seeds: Literal["iqm", "mean"] = "iqm"
    """One number for all seeds of a configuration: the interquartile mean, or the mean."""

    def score(self, values: Sequence[float]) -> float:
        """Return the number of a configuration from those of its seeds; NaN if one of them is."""
        return float({"iqm": iqm, "mean": mean}[self.over_seeds](values))

    def better(self, score: float) -> float:
        """Return the score, or its negative: so that more is better."""
        return score if self.mode == "max" else -score


def as_objectives(given: Any) -> Any:
    """Return one objective, a metric's name, or a list of these."""
    listed = given if isinstance(given, list | tuple) else [given]
    return [{"metric": objective} if isinstance(objective, str) else objective for objective in listed]
