"""What a run adds to a diagnosis: its curves, with the advice of its table, before what this moment says."""

from pathlib import Path

import pytest

from dr3_ray.diagnostics.diagnosis import TRAIN, Finding, Probe
from dr3_ray.policies.loading import Found
from dr3_ray.report.coadaptation import by_diagnostics
from dr3_ray.report.diagnosis import verdict_on
from dr3_ray.report.reader import read_tables
from dr3_ray.report.tables import outcomes
from dr3_ray.runs.index import read_index

NOW = {
    "effective_rank": 20.0, "stable_rank": 2.0, "dead_units": 0.1, "dormant_units": 0.6, "q_data": 3.0,
}  # fmt: skip
BACKUP = {"dot_product": 5.0, "cosine": 0.9, "phi_norm": 2.0, "seem_eigenvalue": -0.1, "seem_normalized": -0.01}
PROBES = {TRAIN: Probe(100, NOW, {"backup": BACKUP}, [2.0])}


def verdicts(run: Path, **values: float) -> list[Finding]:
    """What is said of the first member with these values."""
    record = next(each for each in read_index(run) if values.items() <= each["config"].items())
    return verdict_on(run, Found(None, 0, record["config"], "", record["member"]), PROBES, None)  # type: ignore[arg-type]


def test_a_run_that_co_adapts_is_told_so_with_the_coefficient_to_try(demo):
    advised = by_diagnostics(outcomes(read_tables(demo))).advised
    found = {finding.name: finding for finding in verdicts(demo, dr3_coeff=0.0, seed=0)}
    assert found["co-adapting"].wrong and "co-adaptation" not in found
    assert found["co-adapting"].sentence.startswith("co-adapting since update ")
    if advised is not None:
        assert found["co-adapting"].sentence.endswith(f"; try dr3_coeff {advised:g}")
    assert found["co-adapting"].rule.startswith("growth = 2: ")
    assert found["dormant units"].wrong  # of this moment
    assert found["table"].sentence.startswith("of all seeds and coefficients: ")


def test_a_run_that_does_not_says_by_how_much(demo):
    found = {finding.name: finding for finding in verdicts(demo, dr3_coeff=0.3, seed=0)}
    assert "co-adapting" not in found and not found["co-adaptation"].wrong
    assert "it is 5 at the backup's a', with a cosine of 0.90" in found["co-adaptation"].sentence


def test_flags_of_the_curves_stand_for_those_of_the_moment(new_run):
    run = new_run()
    steps = 21
    run.add(dr3_coeff=0.0, override={"effective_rank": [30.0] * 15 + [1.0] * (steps - 15)})
    dead = {TRAIN: PROBES[TRAIN]._replace(numbers=NOW | {"effective_rank": 1.0})}
    path = run.write()
    (record,) = [each for each in read_index(path)][:1]
    found = verdict_on(path, Found(None, 0, record["config"], "", record["member"]), dead, None)  # type: ignore[arg-type]
    assert [each.sentence for each in found if each.name == "dead features"] == ["dead features since update 15,000"]


@pytest.mark.parametrize("coefficient", [0.0, 0.3])
def test_every_sentence_of_the_table_is_there(demo, coefficient):
    sentences = [each.sentence for each in verdicts(demo, dr3_coeff=coefficient) if each.name == "table"]
    assert len(sentences) >= 2 and any("By the diagnostics alone" in each for each in sentences)
