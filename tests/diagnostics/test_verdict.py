"""Each rule of one moment on both sides of its threshold, and what a verdict looks like."""

import json
import math
from typing import Any

import pytest

from dr3_ray.diagnostics.diagnosis import HELD_OUT, TRAIN, Diagnosis, Finding, Probe
from dr3_ray.diagnostics.verdict import RULES, findings_of, nothing_wrong, one_moment
from dr3_ray.runs.health import THRESHOLDS, threshold

NUMBERS = {
    "effective_rank": 20.0, "stable_rank": 2.0, "dead_units": 0.1, "dormant_units": 0.2, "q_data": 3.0, "q_std": 1.0,
    "q_random": 2.0, "random_above": 0.4, "td_error": 0.1, "overestimation": 0.5, "return_std": 1.0,
}  # fmt: skip
BACKUP = {"dot_product": 5.0, "cosine": 0.9, "phi_norm": 2.0, "seem_eigenvalue": -0.1, "seem_normalized": -0.01}


def probe(**changed: float) -> Probe:
    numbers = NUMBERS | {name: value for name, value in changed.items() if name not in BACKUP}
    return Probe(100, numbers, {"backup": BACKUP | {k: v for k, v in changed.items() if k in BACKUP}}, [2.0, 1.0])


def names(bound: float | None = None, held_out: Probe | None = None, **changed: float) -> list[str]:
    probes = {TRAIN: probe(**changed)} | ({HELD_OUT: held_out} if held_out else {})
    return [finding.name for finding in findings_of(probes, bound)]


def test_a_healthy_critic_has_no_finding():
    assert names(bound=100.0, held_out=probe()) == []


@pytest.mark.parametrize(
    ("finding", "at", "below"),
    [
        ("dormant units", {"dormant_units": threshold("idle")}, {"dormant_units": 0.49}),
        ("self-exciting", {"seem_normalized": threshold("seem")}, {"seem_normalized": 0.0009}),
        ("over-estimating", {"overestimation": 2.1, "return_std": 2.0}, {"overestimation": 2.0, "return_std": 2.0}),
        ("prefers random actions", {"random_above": threshold("random")}, {"random_above": 0.59}),
        ("dead features", {"effective_rank": float(threshold("rank"))}, {"effective_rank": 2.0}),
        ("dead features", {"phi_norm": threshold("norm")}, {"phi_norm": 0.01}),
    ],
)
def test_each_rule(finding: str, at: dict[str, float], below: dict[str, float]):
    assert names(**at) == [finding] and names(**below) == []


def test_rules_with_a_bound_and_with_held_out_rows():
    assert names(bound=2.9) == ["Q out of bounds"] and names(bound=3.1) == []
    assert names(held_out=probe(td_error=0.2)) == ["overfit to its rows"]
    assert names(held_out=probe(td_error=0.19)) == []
    assert names(q_data=math.nan, random_above=1.0) == ["diverged"]
    assert names(td_error=math.inf) == ["diverged"]


def test_what_was_not_measured_is_no_finding():
    bare = {name: value for name, value in NUMBERS.items() if name not in ("td_error", "overestimation", "return_std")}
    assert findings_of({TRAIN: probe()._replace(numbers=bare), HELD_OUT: probe()}) == []


def test_a_verdict_says_so_first_where_nothing_is_wrong():
    quiet = one_moment(probe())
    assert [each.name for each in nothing_wrong([quiet])] == ["healthy", "co-adaptation"]
    loud = Finding("dead features", "dead features")
    assert nothing_wrong([quiet, loud]) == [loud, quiet]
    assert Diagnosis({}, [quiet, loud]).wrong == ["dead features"]
    assert "5 at the backup's a', with a cosine of 0.90" in quiet.sentence


def test_rules_are_thresholds_of_the_one_table():
    for finding in findings_of({TRAIN: probe(**{"dormant_units": 1.0, "seem_normalized": 1.0, "random_above": 1.0})}):
        assert finding.thresholds and all(f"{name} = " in finding.rule for name in finding.thresholds)
    assert {name for rule in RULES.values() for name in rule} <= THRESHOLDS.keys()


def test_text_and_json_have_everything():
    finding = findings_of({TRAIN: probe(dormant_units=0.75)})[0]
    changed = probe(stable_rank=math.nan, td_error=math.inf)
    shown = Diagnosis({TRAIN: probe(), HELD_OUT: changed}, [finding], ["a note"], {"seed": 1})
    text = str(shown)
    assert text.startswith("verdict") and text.endswith("a note")
    assert "dormant units: 75% of the features are dormant, 10% are 0 at every row (by idle 0.5, dormant 0.025)" in text
    assert "Stable rank of the features" in text and "held-out" in text and "\N{EN DASH}" in text
    document: Any = json.loads(json.dumps(shown.to_dict(), allow_nan=False))
    assert document["about"] == {"seed": 1} and document["notes"] == ["a note"]
    assert document["probes"][HELD_OUT]["numbers"]["stable_rank"] is None
    assert document["probes"][HELD_OUT]["numbers"]["td_error"] is None
    assert document["probes"][TRAIN]["pairs"]["backup"] == BACKUP
    assert document["verdict"][0]["thresholds"]["idle"]["value"] == threshold("idle")
