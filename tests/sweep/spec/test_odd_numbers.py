"""Odd numbers wherever a specification has one: it is a sweep that can be, or one line that names the field."""

import json
import math
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dr3_ray import limits
from dr3_ray.cli import app as cli
from dr3_ray.errors import UserError
from dr3_ray.sweep.spec.halving import Halving
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec

PLAIN: dict[str, Any] = {
    "datasets": ["embedded:breakout-replay"], "coefficients": [0], "seeds": 1, "steps": 60, "evaluations": 30,
    "environment": "none",
}  # fmt: skip
ODD = st.one_of(
    st.sampled_from(
        [0, -1, 1.5, math.nan, math.inf, -math.inf, 1e300, 5e-324, 10**9, 10**16, 2**63, 10**400, True, False, None, "",
         "nan", "inf", "1e99", "-3", "0x10", "1,5", "2 3", [], [1], [2, 1], {}, {"a": 1}]
    ),
    st.integers(), st.floats(), st.text(max_size=5),
)  # fmt: skip
FIELDS = {
    **{name: lambda odd, name=name: {name: odd} for name in (
        "steps", "evaluations", "evaluation_episodes", "budget", "sample_seed", "pack", "gpus", "cpus", "nodes",
        "patience", "concurrent", "retries", "checkpoint_every", "halving", "seeds", "coefficients",
    )},
    "seeds.0": lambda odd: {"seeds": [odd]},
    "coefficients.0": lambda odd: {"coefficients": [odd]},
    "factor": lambda odd: {"halving": {"factor": odd}},
    "first": lambda odd: {"halving": {"first": odd}},
    "trials": lambda odd: {"search": {"trials": odd}},
    "samples": lambda odd: {"coefficients": {"uniform": [0, 1], "samples": odd}},
    "also": lambda odd: {"coefficients": {"uniform": [0, 1], "samples": 1, "also": [odd]}},
    "low": lambda odd: {"coefficients": {"log_uniform": [odd, 1], "samples": 1}},
    "high": lambda odd: {"coefficients": {"uniform": [0, odd], "samples": 1}},
    "choice": lambda odd: {"axes": {"batch_size": {"choice": [32], "samples": odd}}},
    "axis": lambda odd: {"axes": {"batch_size": odd}},
    "option": lambda odd: {"options": {"critic_lr": odd}},
    "width": lambda odd: {"options": {"hidden_sizes": [odd]}},
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
@settings(max_examples=12, deadline=None)
@given(ODD)
@example(10**400)
def test_an_odd_number_is_taken_or_told_in_a_line(field, odd):
    assume(not (isinstance(odd, int | float) and 100 < odd <= limits.MEMBERS))  # a sweep that takes minutes to plan
    try:
        spec = SweepSpec(**PLAIN | FIELDS[field](odd))
        if spec.search is None:
            found = members(spec)
            json.dumps(list(found.values()), allow_nan=False)
            assert len(found) <= limits.MEMBERS
        assert SweepSpec(**json.loads(spec.model_dump_json(by_alias=True))) == spec
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 300


@given(st.integers(2, limits.COUNT), st.integers(1, limits.COUNT), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_halving_leaves_somebody_and_makes_no_more_than_all(factor, first, evaluations, configurations):
    halving = Halving(factor=factor, first=first)
    rungs = halving.rungs(evaluations)
    assert rungs == sorted(set(rungs)) and all(first <= rung < evaluations for rung in rungs)
    assert 1 <= halving.kept(configurations) <= configurations
    assert 0 < halving.share(configurations, evaluations) <= 1


@pytest.mark.parametrize("size", [1000, 10**6])
def test_more_members_than_can_be_told_apart_are_not_made(size):
    axes = {"batch_size": {"grid": [*range(1, 1 + size)]}, "critic_lr": [*(1 / (1 + n) for n in range(1001))]}
    with pytest.raises(
        UserError, match=rf"has {size * 1001:,} members with all combinations of axes, and 1,000,000 is"
    ):
        members(SweepSpec(**PLAIN | {"axes": axes}))


def test_more_memory_than_there_is_is_one_line(tmp_path, capsys):
    small = [
        "--steps",
        "20",
        "--seeds",
        "1",
        "--coefficients",
        "0",
        "--environment",
        "none",
        "--set",
        "hidden_sizes=[8]",
    ]
    with pytest.raises(SystemExit) as end:
        cli.main(
            ["sweep", "--dataset", "embedded:breakout-replay", *small, "--set", "batch_size=100000000000", "--dry-run",
             "--out", str(tmp_path / "run")]
        )  # fmt: skip
    said = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2 and said.startswith("error: out of memory (") and not list(tmp_path.iterdir())
