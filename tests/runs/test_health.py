"""Health flags: right on curves whose answer is known, and the same whatever the units and the spacing are."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.runs.health import (
    NEEDED,
    THRESHOLDS,
    coadaptation,
    flag_sentences,
    flags_of,
    health_of,
    largest_q,
    overfit_since,
)  # fmt: skip

STEPS = np.arange(1, 21) * 500.0
DOCS = Path(__file__).parents[2] / "docs" / "report.md"


def curves(**changed):
    """Curves of a healthy critic: Q has settled at 1, the rest is level."""
    level = {"dot_product": 0.8, "phi_norm": 1.0, "effective_rank": 60.0, "q_mean": 1.0, "td_error": 0.1}
    return {"step": STEPS} | {name: np.full(20, value) for name, value in level.items()} | changed


def names(curves, bound=None, diverged=False):
    return [flag.name for flag in flags_of(curves, bound, diverged)]


def test_a_healthy_critic_has_no_flag():
    assert names(curves(), bound=100.0) == []


def test_a_dot_product_that_grows_while_q_does_not_is_co_adaptation():
    q = np.minimum(np.arange(1, 21) / 5, 1.0)  # settled within a fifth from the fourth evaluation on
    found = coadaptation(curves(q_mean=q, dot_product=0.5 * np.arange(1.0, 21.0)))
    assert (found.answer, found.since) == ("yes", 2_000)
    assert found.growth == pytest.approx(20 / 4) and found.moved == pytest.approx(0.25)
    (flag,) = flags_of(curves(q_mean=q, dot_product=0.5 * np.arange(1.0, 21.0)))
    assert str(flag) == "co-adapting since update 2,000 (dot product ×5.0, mean Q +25%)"


def test_a_dot_product_that_grows_with_q_is_undecided():
    rising = np.arange(1.0, 21.0)
    assert coadaptation(curves(q_mean=rising, dot_product=rising)).answer == "mean Q has not settled"
    short = {name: curve[:3] for name, curve in curves(dot_product=rising).items()}
    assert coadaptation(short).answer == "too few evaluations"
    assert coadaptation(curves(dot_product=np.full(20, np.nan))).answer == "not measured"


def test_growth_of_nothing_is_noise():
    """DR3 holds dot products next to 0, where they double and halve by chance."""
    assert coadaptation(curves(dot_product=np.geomspace(1e-6, 1e-3, 20))).answer == "no"
    assert names(curves(dot_product=-np.geomspace(0.1, 1, 20))) == []


@pytest.mark.parametrize("name", ["phi_norm", "effective_rank"])
def test_features_that_die_are_flagged_since_then(name):
    dying = np.where(STEPS < 5_000, 10.0, 0.0)
    (flag,) = flags_of(curves(**{name: dying}))
    assert (flag.name, flag.since) == ("dead features", 5_000)
    assert names(curves(**{name: dying[::-1]})) == []  # they came back


def test_q_beyond_all_returns_is_flagged():
    """Rewards from 0 to 1 and γ = 0.99: no return is above 100."""
    config = {"data_fingerprint": "f", "gamma": 0.99}
    bound = largest_q(config, {"f": 1.0})
    assert bound == pytest.approx(100.0)
    assert names(curves(q_mean=np.full(20, 3e8)), bound) == ["Q out of bounds"]
    assert names(curves(q_mean=np.full(20, -101.0)), bound) == ["Q out of bounds"]
    assert names(curves(q_mean=np.full(20, 99.0)), bound) == []
    for other in ({}, {"gamma": 1.0}, {"gamma": "x"}, {"gamma": 0.9, "entropy_backup": True}):
        assert largest_q({"data_fingerprint": "f"} | other, {"f": 1.0}) is None
    assert (
        largest_q(config, {}) is None and largest_q(config, {"f": "x"}) is None and largest_q(config, {"f": 0}) is None
    )


def test_targets_beyond_the_bins_are_flagged_beside_all_else():
    share = np.where(STEPS < 6_000, 0.0, 0.12)
    (flag,) = flags_of(curves(clipped_targets=share))
    assert str(flag) == "targets clipped since update 6,000 (12% lie beyond v_min and v_max)"
    assert names(curves(clipped_targets=share, dot_product=0.5 * np.arange(1.0, 21.0))) == [flag.name, "co-adapting"]
    assert names(curves(clipped_targets=share, phi_norm=np.zeros(20))) == ["dead features", flag.name]
    assert names(curves(clipped_targets=np.full(20, 0.01))) == names(curves(clipped_targets=np.full(20, np.nan))) == []


def test_divergence_is_flagged():
    infinite = np.where(STEPS < 8_000, 1.0, np.inf)
    (flag,) = flags_of(curves(td_error=infinite))
    assert (flag.name, flag.since) == ("diverged", 8_000)
    assert names(curves(), diverged=True) == ["diverged"]


def test_q_that_falls_with_the_error_is_overfitting():
    q = np.concatenate([np.linspace(0, 1, 10), np.linspace(1, 0.5, 10)])
    falling, level = np.geomspace(1, 0.01, 20), np.geomspace(0.01, 1, 20)
    assert overfit_since(curves(q_mean=q, td_error=falling)) == 5_500  # the peak of the average of three
    assert overfit_since(curves(q_mean=q, td_error=level)) is None  # the error rises: it is not fitted at all
    assert (
        overfit_since(curves(q_mean=np.linspace(0, -5, 20), td_error=falling)) is None
    )  # CQL's Q sinks from the start
    assert overfit_since(curves(q_mean=np.linspace(0, 1, 20), td_error=falling)) is None


CURVE = st.lists(st.floats(-1e6, 1e6) | st.just(np.nan) | st.just(np.inf), min_size=1, max_size=12)


@given(CURVE, CURVE, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_units_do_not_matter(dot, q, reward, feature):
    """Co-adaptation is the same in other units of reward, and of features."""
    n = min(len(dot), len(q))
    one = {name: curve[:n] for name, curve in curves(dot_product=np.array(dot[:n]), q_mean=np.array(q[:n])).items()}
    measured = one["dot_product"][np.isfinite(one["dot_product"])]
    if np.abs(measured[measured != 0]).min(initial=1) < 1e-3:
        return  # products of such numbers are rounded
    two = one | {
        "q_mean": one["q_mean"] * 2.0 ** np.round(np.log2(reward)),
        "dot_product": one["dot_product"] * 4.0 ** np.round(np.log2(feature)),
        "phi_norm": one["phi_norm"] * 2.0 ** np.round(np.log2(feature)),
    }
    assert coadaptation(one) == pytest.approx(coadaptation(two), nan_ok=True) or coadaptation(one) == coadaptation(two)


@given(st.dictionaries(st.sampled_from(NEEDED), CURVE), st.booleans())
def test_whatever_was_measured_there_is_an_answer(changed, diverged):
    n = min(map(len, changed.values()), default=20)
    some = {name: curve[:n] for name, curve in (curves() | {k: np.array(v) for k, v in changed.items()}).items()}
    for flag in flags_of(some, 100.0, diverged):
        assert flag.since in some["step"]


def test_members_are_told_apart_whatever_the_order_of_their_rows():
    healthy, dead = curves(), curves(phi_norm=np.zeros(20))
    rows = [
        {"member": member, "step": int(own["step"][place]), **{name: own[name][place] for name in NEEDED}}
        for member, own in (("a", healthy), ("b", dead))
        for place in range(20)
    ]
    np.random.default_rng(0).shuffle(rows)
    records = [{"member": name, "status": "finished", "config": {}} for name in "abc"]
    found = health_of(pa.Table.from_pylist(rows), records, {})
    assert {member: [flag.name for flag in each.flags] for member, each in found.items()} == {
        "a": [],
        "b": ["dead features"],
    }
    assert found["a"].coadaptation.answer == "no"
    (said,) = flag_sentences({member: each.flags for member, each in found.items()}, 3)
    assert said == "dead features: 1 of 3 members, the first since update 500 (b)"
    assert (
        health_of(pa.Table.from_pylist([], pa.schema({"member": pa.string(), "step": pa.int64()})), records, {}) == {}
    )


def test_the_documentation_has_every_threshold():
    listed = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", DOCS.read_text(), re.MULTILINE))
    assert listed == {name: f"{each.value:.3g}" for name, each in THRESHOLDS.items()}
