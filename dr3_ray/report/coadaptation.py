"""What the curves of a table say without its returns: co-adaptation, health, and the c₀ that brings it down.

The rules are those of `dr3_ray.runs.health`, with all thresholds.
"""

from typing import NamedTuple, get_args

import numpy as np
import pandas as pd

from dr3_ray.report.reader import COEFFICIENT
from dr3_ray.runs.health import FlagName, threshold
from dr3_ray.stats import paired_difference


class Reading(NamedTuple):
    """What curves say in words, and the coefficient that they speak for."""

    sentences: list[str]
    coadapts: str = "not measured"
    """`yes`, `no`, `some runs`, or why it cannot be told; of c₀ = 0, or else of the smallest c₀."""
    advised: float | None = None
    """The c₀ that brings the dot product down most and leaves mean Q and the TD error alone."""


def read_curves(members: pd.DataFrame) -> Reading:
    """Say whether the critic co-adapts at the smallest c₀ of these members, and from which c₀ on it does not."""
    measured = members[members["counted"] & (members["coadapting"] != "not measured")]
    if measured.empty:
        return Reading([])
    least = measured[COEFFICIENT].min()
    runs = measured[measured[COEFFICIENT] == least]
    told = runs[runs["coadapting"].isin(["yes", "no"])]
    if told.empty:
        why = str(runs["coadapting"].mode()[0])
        remedy = {"too few evaluations": f"ask for {threshold('evaluations'):.0f} or more"}.get(why, "train longer")
        return Reading([f"Whether the critic co-adapts at c₀ = {least:g} cannot be told: {why}; {remedy}."], why)
    yes = told[told["coadapting"] == "yes"]
    count = f"{len(yes)} of {len(told)} runs"
    if yes.empty:
        said = f"The critic does not co-adapt at c₀ = {least:g} (0 of {len(told)} runs): {_numbers(told)}."
        return Reading([said], "no")
    verb = "co-adapts" if len(yes) == len(told) else "co-adapts in some runs"
    said = f"The critic {verb} at c₀ = {least:g} ({count}): {_numbers(yes)}.{_stopped_at(measured, least)}"
    return Reading([said], "yes" if len(yes) == len(told) else "some runs")


def by_diagnostics(members: pd.DataFrame) -> Reading:
    """Say which c₀ brings the dot product down for certain and leaves mean Q and the TD error as they are.

    The logarithms of the dot products are compared with those of c₀ = 0 over equal seeds, by Student's t interval for
    all comparisons together.
    """
    label = "By the diagnostics alone, which say nothing about returns: "
    runs = members[members["counted"] & (members["dot_product_final"] > 0)]
    base, others = runs[runs[COEFFICIENT] == 0], sorted(set(runs[COEFFICIENT]) - {0.0})
    if base.empty or not others:
        return Reading([])
    if base["seed"].nunique() < 2:
        return Reading([f"{label}one seed cannot tell which c₀ brings the dot product down. Train more seeds."])
    told, lower = {}, {}
    for coefficient in others:
        own = runs[runs[COEFFICIENT] == coefficient]
        change = paired_difference(_logarithms(own), _logarithms(base), len(others))
        if not (change.has_interval and change.high < np.log(threshold("lower"))):
            continue
        moved = _relative(own["q_mean_final"], base["q_mean_final"])
        errors = 1 + _relative(own["td_error_final"], base["td_error_final"])
        told[coefficient] = (
            f"brings the dot product to {np.exp(change.value):.2g} of that of c₀ = 0, moves mean Q by {moved:+.0%} and "
            f"the TD error to \N{MULTIPLICATION SIGN}{errors:.2g}"
        )
        if abs(moved) <= threshold("moved") and errors <= threshold("error"):
            lower[coefficient] = change.value
    if not told:
        return Reading([f"{label}no c₀ brings the dot product down to {threshold('lower'):.0%} for certain."])
    if not lower:
        least = min(told)
        return Reading(
            [f"{label}every c₀ that brings the dot product down moves mean Q or the TD error: {least:g} {told[least]}."]
        )
    best = min(lower, key=lambda name: lower[name])
    return Reading([f"{label}try c₀ = {best:g}, which {told[best]}."], advised=best)


def health_sentences(members: pd.DataFrame) -> list[str]:
    """Say how many members of a table have which flag, and at which c₀."""
    parts = []
    for name in get_args(FlagName):
        if name == "co-adapting":
            continue  # which has a sentence of its own
        ill = members[members["health"].str.contains(name, regex=False)]
        if len(ill):
            at = ", ".join(f"{c:g}" for c in sorted(ill[COEFFICIENT].unique()))
            parts.append(f"{name} in {len(ill)} of {len(members)} runs (c₀ = {at})")
    return [f"Not healthy: {'; '.join(parts)}."] if parts else []


def _numbers(runs: pd.DataFrame) -> str:
    """Write the medians over runs behind an answer."""
    growth, moved = runs["growth"].median(), runs["q_change"].median()
    return (
        f"since update {int(runs['settled_at'].median()):,}, when mean Q had settled, the dot product changed by "
        f"\N{MULTIPLICATION SIGN}{growth:.2g} and mean Q by {moved:+.0%}"
    )


def _stopped_at(measured: pd.DataFrame, least: float) -> str:
    """Say from which larger c₀ on no run co-adapts."""
    larger = measured[measured[COEFFICIENT] > least].groupby(COEFFICIENT)["coadapting"]
    for coefficient, answers in larger:
        if (answers == "no").all():
            return f" At c₀ = {coefficient:g} it does not."
    return " At no larger c₀ it is known to stop." if larger.ngroups else ""


def _logarithms(runs: pd.DataFrame) -> dict[int, float]:
    return dict(zip(runs["seed"], np.log(runs["dot_product_final"].to_numpy(float)), strict=True))


def _relative(values: pd.Series, base: pd.Series) -> float:
    """Return by which share of their magnitude there the mean over runs differs from that of the base."""
    there = float(base.mean())
    return float((values.mean() - there) / abs(there)) if there else np.nan
