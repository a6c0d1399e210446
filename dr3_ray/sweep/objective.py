"""What a configuration is judged by: one number of its seeds at their last evaluation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.errors import UserError
from dr3_ray.stats import iqm, mean
from dr3_ray.sweep.mistakes import check_known

RETURN: Final = "episode_return_mean"
Metric = Literal[
    "episode_return_mean",
    "dot_product", "dot_product_abs", "cosine", "phi_norm", "effective_rank", "q_mean", "td_error",
]  # fmt: skip
LESS_IS_BETTER = ("dot_product", "dot_product_abs", "cosine", "phi_norm", "td_error")


def _known(metric: Any) -> Any:
    check_known("metric", [metric], get_args(Metric))
    return metric


class Objective(BaseModel):
    """A measurement that makes one configuration better than another."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metric: Annotated[Metric, BeforeValidator(_known)] = RETURN
    """A column of the histories that every algorithm has: the return, or a diagnostic of the critic."""
    mode: Literal["max", "min"] = Field(
        default_factory=lambda given: "min" if given.get("metric") in LESS_IS_BETTER else "max"
    )
    """What is better; by default less of dot products, cosine, feature norm and TD error, more of all others."""
    over_seeds: Literal["iqm", "mean"] = "iqm"
    """One number for all seeds of a configuration: the interquartile mean, or the mean."""

    def score(self, values: Sequence[float]) -> float:
        """The number of a configuration from those of its seeds; NaN if one of them is."""
        return float({"iqm": iqm, "mean": mean}[self.over_seeds](values))

    def better(self, score: float) -> float:
        """The score, or its negative: so that more is better."""
        return score if self.mode == "max" else -score


def as_objectives(given: Any) -> Any:
    """One objective, a metric's name, or a list of these."""
    listed = given if isinstance(given, list | tuple) else [given]
    return [{"metric": each} if isinstance(each, str) else each for each in listed]


def check_measured(objectives: Iterable[Objective], configs: Iterable[Mapping[str, Any]]) -> None:
    """UserError: one of these configurations is not measured by all of the objectives."""
    played = {(config["algorithm"], config["dataset"], bool(config["environment"])) for config in configs}
    for objective in objectives:
        for algorithm, dataset, environment in sorted(played):
            if objective.metric == RETURN:
                if not environment:
                    raise UserError(
                        f"objective {RETURN} needs rollouts, and {algorithm} on {dataset} has none: "
                        "give an environment, or objective td_error or another diagnostic"
                    )
            elif not any(form.has_critic for form in kinds_of(algorithm).values()):
                raise UserError(
                    f"{algorithm} has no critic, so that {objective.metric} is not measured: leave it out, "
                    f"or use objective {RETURN}"
                )
