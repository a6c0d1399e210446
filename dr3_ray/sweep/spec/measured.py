"""Whether what configurations are judged by is measured of them."""

from collections.abc import Iterable, Mapping
from typing import Any

from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.errors import UserError
from dr3_ray.quantities import RETURN
from dr3_ray.sweep.spec.objective import Criterion


def check_measured(objectives: Iterable[Criterion], configs: Iterable[Mapping[str, Any]]) -> None:
    """Check that all of the objectives are measured of each of these configurations.

    Raises:
        UserError: one is not.
    """
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
