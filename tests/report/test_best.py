"""The best configurations of a search."""

from dr3_ray.report.best import Ranked, pareto_front
from dr3_ray.sweep.spec.objective import Criterion


def found(*scores: tuple[float, float]) -> list[Ranked]:
    return [Ranked({}, {"episode_return_mean": high, "dot_product": low}, 3) for high, low in scores]


def test_the_front_is_what_nothing_else_is_better_than():
    """More return, less dot product; equal ones stay both."""
    objectives = [Criterion(), Criterion(metric="dot_product")]
    all_of_them = found((1, 5), (3, 9), (2, 5), (3, 8), (0, 6), (2, 5), (0, 1))
    front = pareto_front(all_of_them, objectives)
    assert [tuple(each.scores.values()) for each in front] == [(3, 8), (2, 5), (2, 5), (0, 1)]
    assert pareto_front([], objectives) == []
