"""What a configuration is judged by."""

import math

import pytest

from dr3_ray.errors import UserError
from dr3_ray.sweep.spec.measured import check_measured
from dr3_ray.sweep.spec.objective import Criterion
from dr3_ray.sweep.spec.spec import SweepSpec


def test_a_name_a_mapping_and_a_list_are_accepted():
    less, more = Criterion(metric="dot_product", mode="min"), Criterion()
    assert SweepSpec(datasets=["d"]).objective == (more,)
    assert SweepSpec(datasets=["d"], objective="dot_product").objective == (less,)
    assert SweepSpec(datasets=["d"], objective={"metric": "dot_product"}).objective == (less,)
    both = SweepSpec(datasets=["d"], objective=["episode_return_mean", {"metric": "dot_product", "mode": "min"}])
    assert both.objective == (more, less)
    assert SweepSpec(**both.model_dump(mode="json")).objective == both.objective


def test_the_score_is_that_of_all_seeds():
    values = [0.0, 1.0, 2.0, 30.0]
    assert Criterion().score(values) == 1.5
    assert Criterion(over_seeds="mean").score(values) == 8.25
    assert Criterion().score([3.0]) == 3.0
    assert math.isnan(Criterion(over_seeds="mean").score([1.0, math.nan]))
    assert [Criterion(mode=mode).better(2.0) for mode in ("max", "min")] == [2.0, -2.0]


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("dot_prodcut", "objective.0.metric: unknown metric 'dot_prodcut': did you mean 'dot_product'?"),
        ({"metirc": "q_mean"}, "unknown key in objective.0 'metirc': did you mean 'metric'?"),
        ({"mode": "least"}, "objective.0.mode: it has to be 'max' or 'min', not 'least'"),
        ([], "objective: without a value"),
    ],
)
def test_mistakes_are_told_in_one_line(objective, message):
    with pytest.raises(UserError) as error:
        SweepSpec(datasets=["d"], objective=objective)
    assert message in str(error.value)


def test_what_is_not_measured_is_refused():
    silent = {"algorithm": "DR3-CQL", "dataset": "d", "environment": None}
    with pytest.raises(UserError, match="needs rollouts, and DR3-CQL on d has none"):
        check_measured([Criterion()], [silent])
    check_measured([Criterion(metric="q_mean")], [silent])
    with pytest.raises(UserError, match="BC has no critic, so that q_mean is not measured"):
        check_measured([Criterion(metric="q_mean")], [{"algorithm": "BC", "dataset": "d", "environment": "e"}])
