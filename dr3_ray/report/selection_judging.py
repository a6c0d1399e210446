"""What a table of candidates says: which configuration each criterion places first, and what its choices are worth."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dr3_ray.data.labels import dataset_labels
from dr3_ray.quantities import RETURN, quantity
from dr3_ray.report.reader import Run
from dr3_ray.runs.health import threshold
from dr3_ray.runs.workflow import fit_of
from dr3_ray.stats import (
    Band,
    Estimate,
    Quality,
    bootstrap_estimate,
    iqm,
    mean_rank,
    paired_difference,
    pooled_quality,
    selection_quality,
    tuning_curve,
)  # fmt: skip

CRITERIA = {
    "fqe": "fitted Q evaluation", "dr": "doubly robust", "wis": "importance sampling", "start_value": "own Q",
    "td_error_held_out": "held-out TD error", "td_error": "TD error", "q_held_out": "held-out data Q",
    "q_mean": "data Q", "dot_product": "dot product", "effective_rank": "effective rank", "seem_normalized": "SEEM",
    "mean_rank": "mean of all places",
}  # fmt: skip
"""Criteria and what people call them; the first one that is measured is the rule, unless the caller orders them."""
ACROSS = ("fqe", "dr", "wis")
"""Criteria that compare policies of several algorithms: values of the same rewards with the same discount."""
PULLS = 4  # for each configuration, up to which tuning online is followed


class Choice(NamedTuple):
    """What to take on one data set, or of one algorithm there, where the rule compares no others."""

    heading: str
    rule: str
    rows: pd.DataFrame
    """The configurations, the best first: `name`, `seeds`, `members`, a score for each criterion, and the return."""
    value: Estimate
    """The rule's number of the best one."""
    tied: list[str]
    """Others that are not below it for certain, by equal seeds; empty with one seed."""
    member: str
    """The member to use: the best seed of the best configuration, as `load_policy` takes it."""


class Measured(NamedTuple):
    """How well each criterion would have chosen in one table, and what tuning online would have cost."""

    heading: str
    quality: dict[str, Quality]
    ucb: Band | None
    random: Band | None
    episodes: int
    """Episodes of a pull, which is one seed's last evaluation."""
    said: dict[str, list[list[float]]]
    """What each criterion says of the seeds of each configuration, more being better."""
    returns: list[list[float]]


def judge_fit(tables: Run, candidates: pd.DataFrame) -> None:
    """Add what the workflow says of each member: by held-out rows where enough checkpoints stayed, else the probe."""
    histories = dict(list(tables.histories.groupby("member")))
    fits = {}
    for member, own in candidates.groupby(level=0):
        rows = histories[member]
        curves = {
            name: rows[name].to_numpy(float) for name in ("step", "q_mean", "td_error", "cql_gap") if name in rows
        }
        if "q_held_out" in own and own["q_held_out"].notna().sum() >= threshold("evaluations"):
            rows = own.sort_values("step")
            curves = {"step": rows["step"].to_numpy(float), "q_mean": rows["q_held_out"].to_numpy(float),
                      "td_error": rows["td_error"].to_numpy(float)}  # fmt: skip
        fits[member] = fit_of(curves) if {"q_mean", "td_error"} <= curves.keys() else None
    candidates["fit"] = [fit.answer if (fit := fits[member]) else "" for member in candidates.index]
    candidates["fit_peak"] = [fit.peak if (fit := fits[member]) else None for member in candidates.index]


def with_ranks(candidates: pd.DataFrame, order: Sequence[str]) -> list[str]:
    """Add the mean place over the other criteria, among candidates of the same seed; return what is measured."""
    others = [name for name in order if name != "mean_rank"]
    if "mean_rank" not in order or len(others) < 2:
        return others
    candidates["mean_rank"] = np.nan
    among = ["algorithm", "dataset", "seed"]
    number = candidates.groupby(among).ngroup()
    for group in number.unique():
        rows = candidates[number == group]
        candidates.loc[number == group, "mean_rank"] = mean_rank([_signed(name, rows[name]) for name in others])
    return list(order)


def measure(candidates: pd.DataFrame, order: Sequence[str], top: int) -> list[Measured]:
    """Measure criteria by returns, in every table that has some."""
    labels = dataset_labels(candidates["dataset"].unique())
    tables = []
    for (algorithm, dataset), rows in _groups(candidates, ["algorithm", "dataset"]):
        if not np.isfinite(rows[RETURN].astype(float)).any():
            continue
        said, returns = _runs(rows, order)
        quality = {name: selection_quality(said[name], returns, top) for name in order}
        noisy = max(map(len, returns)) > 1 and len(returns) > 1
        pulls = PULLS * len(returns)
        ucb, random = (
            (tuning_curve(returns, pulls, "ucb"), tuning_curve(returns, pulls, "random")) if noisy else (None, None)
        )
        played = rows["episodes"].max() if "episodes" in rows else np.nan
        episodes = int(played) if np.isfinite(played) else 0
        tables.append(Measured(f"{algorithm} on {labels[dataset]}", quality, ucb, random, episodes, said, returns))
    return tables


def pooled(measured: Sequence[Measured], top: int) -> dict[str, Quality]:
    """Return how each criterion would have chosen, over several tables."""
    names = dict.fromkeys(name for table in measured for name in table.said)
    return {
        name: pooled_quality([(table.said[name], table.returns) for table in measured if name in table.said], top)
        for name in names
    }


def _runs(rows: pd.DataFrame, order: Sequence[str]) -> tuple[dict[str, list[list[float]]], list[list[float]]]:
    """Return what each criterion says of the seeds of each configuration, more being better, and their returns."""
    groups = [group for _, group in rows.groupby("configuration", sort=False)]
    said = {name: [_signed(name, group[name]).tolist() for group in groups] for name in order}
    return said, [group[RETURN].astype(float).tolist() for group in groups]


def choose(candidates: pd.DataFrame, order: Sequence[str]) -> list[Choice]:
    """Return what to take, on each data set, or of each algorithm there where the rule compares no others."""
    labels = dataset_labels(candidates["dataset"].unique())
    choices = []
    for (dataset,), here in _groups(candidates, ["dataset"]):
        measured = [name for name in order if known(here, name)]
        if not measured:
            continue
        rule = measured[0]
        several = here["algorithm"].nunique() > 1
        named = several and rule in ACROSS
        for (algorithm,), rows in [(("",), here)] if named else _groups(here, ["algorithm"]):
            heading = " on ".join(filter(None, [algorithm, labels[dataset]]))
            if known(rows, rule):
                choices.append(_choice(heading, rule, rows, order, named))
    return choices


def _choice(heading: str, rule: str, rows: pd.DataFrame, order: Sequence[str], named: bool) -> Choice:
    groups = []
    for (algorithm, name), group in _groups(rows, ["algorithm", "configuration"]):
        entry: dict[str, Any] = {"name": f"{algorithm}, {name}" if named else name, "algorithm": algorithm}
        entry |= {"seeds": len(group), "members": group.index.tolist(), "step": int(group["step"].iloc[0])}
        entry |= {name: _score(group[name]) for name in (*order, RETURN)}
        by_seed = dict(zip(group["seed"], _signed(rule, group[rule]), strict=True))
        entry |= {"fit": group["fit"].tolist(), "by_seed": by_seed, "values": group[rule].astype(float).tolist()}
        groups.append(entry)
    table = pd.DataFrame(groups)
    table["order"] = -_signed(rule, table[rule])
    table = table.sort_values("order", kind="stable", na_position="last").reset_index(drop=True)
    best = table.iloc[0]
    tied = []
    for _, other in table.iloc[1:].iterrows():
        difference = paired_difference(best["by_seed"], other["by_seed"], len(table) - 1)
        if difference.n > 1 and not difference.low > 0:
            tied.append(str(other["name"]))
    seeds = best["by_seed"]
    place = list(seeds).index(max(seeds, key=lambda seed: -np.inf if np.isnan(seeds[seed]) else seeds[seed]))
    last = int(rows["step"].max()) == best["step"]
    member = best["members"][place] + ("" if last else f"@{best['step']}")
    return Choice(heading, rule, table, bootstrap_estimate(best["values"]), tied, member)


def known(candidates: pd.DataFrame, name: str) -> bool:
    """Return whether a criterion was measured of any candidate."""
    return name in candidates and bool(np.isfinite(candidates[name].astype(float)).any())


def _signed(name: str, values: pd.Series) -> pd.Series:
    """Return the values, negative where less is better."""
    return -values.astype(float) if quantity(name).better == "less" else values.astype(float)


def _score(values: pd.Series) -> float:
    finite = values.astype(float)[np.isfinite(values.astype(float))]
    return float(iqm(finite)) if len(finite) else np.nan


def _groups(rows: pd.DataFrame, by: list[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    return list(rows.groupby(by, sort=False))
