"""The numbers of a sweep: one row per setting, for a file, the terminal and the page."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr3_ray.data.labels import dataset_labels
from dr3_ray.quantities import RETURN, quantity
from dr3_ray.report.reader import COEFFICIENT, STATUSES, Run
from dr3_ray.runs.histories import rows_are_lost
from dr3_ray.runs.identity import PARENT
from dr3_ray.stats import Estimate, bootstrap_band, mean, median, probability_of_improvement, training_average

MEASURES = {
    "return": RETURN,
    "dot_product": "dot_product",
    "effective_rank": "effective_rank",
    "q_mean": "q_mean",
    "td_error": "td_error",
}
"""What the summary holds, and the column of the histories it is made from."""
NAMED = 3  # parents of runs that a note names
SHOWN = 10  # settings of a table for the terminal that is not of all of them
_OUTCOMES = [f"{measure}_{when}" for measure in MEASURES for when in ("final", "average")]
_NOTHING = {
    f"{key}{bound}": 0 if bound == "_n" else np.nan for key in _OUTCOMES for bound in ("", "_low", "_high", "_n")
}


class Cell(NamedTuple):
    """One value as people read it, and how certain it is: an interval, or why there is none."""

    value: str
    detail: str = ""


def summarize(run: Run) -> pd.DataFrame:
    """Return one row per facet and coefficient.

    `members` are planned, counted again by status; `runs` of them make the numbers. These are the finished ones; while
    a setting has none, its running ones stand in with what they have measured so far (`interim`), and where halving cut
    all of it those that came furthest (`cut_short`). `step` is the last evaluation of the least advanced of them, in
    gradient updates.

    Every measure comes twice: `_final`, the last evaluation of each run, and `_average`, each run's average over its
    training (area under the curve by gradient updates). Over runs it is an interquartile mean, with the bounds `_low`
    and `_high` of its 95% interval, from `_n` finite values. Bounds are NaN where there is no interval. `improvement`
    is the probability that a run's final return beats that of coefficient 0 with the same seed at the same step.
    """
    rows: list[dict[str, Any]] = []
    members = outcomes(run)
    estimates = _estimates(members[members["counted"]], [*run.facets, COEFFICIENT])
    for facet, settings in members.groupby(run.facets, sort=False):
        baseline = pairable(settings[settings["counted"] & (settings[COEFFICIENT] == 0)])
        for coefficient, setting in settings.groupby(COEFFICIENT):
            runs = setting[setting["counted"]]
            row = dict(zip(run.facets, facet, strict=True)) | {COEFFICIENT: coefficient, "members": len(setting)}
            row |= {status: int((setting["status"] == status).sum()) for status in STATUSES}
            row |= {"runs": len(runs), "interim": bool((runs["status"] == "running").any())}
            row["cut_short"] = bool((runs["status"] == "cut").any())
            row["step"] = int(runs["last_step"].min()) if len(runs) else 0
            row |= estimates.get((*facet, coefficient), _NOTHING)
            finals = runs["return_final"][np.isfinite(runs["return_final"])]
            row |= {f"return_final_{f.__name__}": f(finals) if len(finals) else np.nan for f in (mean, median)}
            better = probability_of_improvement(pairable(runs), baseline if coefficient else {})
            rows.append(row | _flat("improvement", better))
    return pd.DataFrame(rows)


def outcomes(run: Run) -> pd.DataFrame:
    """Return the members with each measure's `_final` and `_average`, and whether they are `counted` in the summary.

    A NaN in a history is "not measured"; a member without a measurement has NaN.
    """
    starts = np.flatnonzero(~run.histories["member"].duplicated())
    steps = np.split(run.histories["step"].to_numpy(), starts[1:])
    measured = pd.DataFrame(np.nan, run.histories["member"].iloc[starts], _OUTCOMES)
    for measure, column in MEASURES.items():
        if column in run.histories:
            curves = np.split(run.histories[column].to_numpy(float), starts[1:])
            measured[f"{measure}_final"] = [_last(curve) for curve in curves]
            measured[f"{measure}_average"] = [training_average(*pair) for pair in zip(steps, curves, strict=True)]
    settings = [run.members[key] for key in (*run.facets, COEFFICIENT)]
    evaluated, counted = run.members["last_step"] > 0, run.members["status"] == "finished"
    for stand_in in ("running", "cut"):
        here = evaluated & (run.members["status"] == stand_in)
        furthest = run.members["last_step"].where(here).groupby(settings).transform("max")
        here &= (stand_in == "running") | (run.members["last_step"] == furthest)
        counted |= here & ~counted.groupby(settings).transform("any")
    return run.members.assign(counted=counted).join(measured)


def _last(curve: NDArray[np.float64]) -> float:
    measured = curve[~np.isnan(curve)]
    return float(measured[-1]) if measured.size else np.nan


def _estimates(runs: pd.DataFrame, setting: list[str]) -> dict[tuple[Any, ...], dict[str, float]]:
    """Return all outcomes of each setting over its runs: made together, which takes a fifth of the time."""
    if runs.empty:
        return {}
    number, names = pd.factorize(pd.MultiIndex.from_frame(runs[setting]))
    place = runs.groupby(number).cumcount().to_numpy()
    values = np.full((place.max() + 1, len(names), len(_OUTCOMES)), np.nan)
    values[place, number] = runs[_OUTCOMES]
    band = bootstrap_band(values.reshape(len(values), -1))
    table = pd.DataFrame(index=range(len(names)))
    for bound, numbers in zip(("", "_low", "_high", "_n"), (band.value, band.low, band.high, band.n), strict=True):
        table[[f"{key}{bound}" for key in _OUTCOMES]] = numbers.reshape(len(names), -1)
    return dict(zip(names, table.to_dict("records"), strict=True))


def columns(summary: pd.DataFrame) -> dict[str, str]:
    """Return which measures to show, with two-line titles: those about returns only where returns were measured."""
    returns = {
        "return_final": "IQM return\nfinal",
        "return_average": "IQM return\naverage",
        "improvement": "P(better)\nthan c₀ = 0",
    }
    features = {
        f"{measure}_final": quantity(column).short.replace(" ", "\n")
        for measure, column in MEASURES.items()
        if column != RETURN and quantity(column).short
    }
    shown = {key: title for key, title in returns.items() if (summary[f"{key}_n"] > 0).any()}
    return shown | features


def cell(row: pd.Series, key: str) -> Cell:
    """Return a measure of one row of the summary with its interval, both to the same number of decimals."""
    value, low, high, n = row[key], row[f"{key}_low"], row[f"{key}_high"], row[f"{key}_n"]
    if n == 0:
        return Cell("\N{EN DASH}")
    decimals = decimals_of(value or low or high) if value == 0 or 1e-3 <= abs(value) < 1e6 else None
    interval = f"[{number(low, decimals)},\N{NO-BREAK SPACE}{number(high, decimals)}]" if low == low else "1 run"
    runs = f" of {n:.0f} runs" if n != row["runs"] and n > 1 and key != "improvement" else ""
    return Cell(number(value, decimals), interval + runs)


def mark(row: pd.Series) -> str:
    """Return the mark of a setting whose numbers are not those of finished runs; `notes` says what it means."""
    return "*" * int(row["interim"]) + "\N{DAGGER}" * int(row["cut_short"])


def runs_cell(row: pd.Series) -> Cell:
    """Return how many of the planned runs count, and how the others ended."""
    others = [f"{row[status]} {status}" for status in STATUSES[1:] if row[status]]
    return Cell(f"{row['runs']}/{row['members']}", ", ".join(others))


def facets_of(run: Run, summary: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield `(heading, rows)` of every algorithm × data set × further axes."""
    labels = dataset_labels(run.members["dataset"].unique())
    for facet, rows in summary.groupby(run.facets, sort=False):
        algorithm, dataset, *values = facet
        further = [f"{axis} {value}" for axis, value in zip(run.facets[2:], values, strict=True)]
        yield " · ".join([algorithm, labels[dataset], *further]), rows


def notes(run: Run, summary: pd.DataFrame) -> list[str]:
    """Say what one has to know to read the numbers, in one sentence or two each."""
    counts = summary["runs"][summary["runs"] > 0]
    how_many = "\N{EN DASH}".join(dict.fromkeys([str(counts.min()), str(counts.max())])) if len(counts) else "0"
    alone = len(counts) > 0 and counts.max() == 1
    how = f"Interquartile mean over {how_many} runs per setting, [95% interval] by percentile bootstrap over runs."
    how = "One run per setting, which has no interval." if alone else how
    said = [f"{how} Final: last evaluation of each run. Average: over its training."]
    if len(counts) and counts.min() < 4 and not alone:
        said.append(
            "Up to three runs the interval is no more than their range and promises too much; one run has no interval."
        )
    said += _without_returns(run, summary)
    said += _of_parents(run)
    if run.lacking:
        said.append(f"{rows_are_lost(run.lacking, run.path)}. Their numbers here are not those of their ends.")
    if lost := {status: int(summary[status].sum()) for status in ("diverged", "failed") if summary[status].any()}:
        parts = " and ".join(f"{count} {status}" for status, count in lost.items())
        said.append(f"{parts} of {len(run.members)} runs are left out, which flatters the settings that lost them.")
    cut = summary["cut"] - summary["runs"].where(summary["cut_short"], 0)
    if cut.any():
        said.append(f"{int(cut.sum())} runs that were cut are left out, which flatters the settings that lost them.")
    if summary["cut_short"].any():
        said.append(
            "Halving cut all runs of the settings marked \N{DAGGER}: their numbers are those of the last evaluation "
            "before, after fewer updates, and no match for those of finished runs."
        )
    if run.unfinished:
        still = f"{run.unfinished} of {len(run.members)} runs are not finished."
        interim = " Settings marked * show unfinished runs at their latest evaluation."
        said.append(still + (interim if summary["interim"].any() else ""))
    return said


def _of_parents(run: Run) -> Iterator[str]:
    """Say from which members others go on."""
    parents = dict.fromkeys(filter(None, run.members[PARENT]))
    if parents:
        named = ", ".join(list(parents)[:NAMED]) + (f" and {len(parents) - NAMED} more" * (len(parents) > NAMED))
        children = int((run.members[PARENT] != "").sum())
        yield (
            f"{children} of {len(run.members)} runs go on from {len(parents)} trained ones ({named}), from whose ends "
            "their updates are counted."
        )


def _without_returns(run: Run, summary: pd.DataFrame) -> Iterator[str]:
    """Say why facets have no return: nothing was evaluated, nothing was played, or no return is a number."""
    why: dict[str, list[str]] = {}
    for heading, rows in facets_of(run, summary):
        if (rows["return_final_n"] > 0).any():
            continue
        members = run.members[(run.members[run.facets] == rows[run.facets].iloc[0]).all(axis=1)]
        history = run.histories[run.histories["member"].isin(members.index)]
        played = history["member"].isin(run.rolled_out)
        if "episodes" in history:
            played &= history["episodes"].fillna(0) > 0
        if history.empty:
            reason = "No returns, as no run was evaluated yet"
        elif not played.any():
            reason = "No returns, for want of rollouts in an environment"
        elif not np.isfinite(history[RETURN][played]).any():
            reason = f"No returns that are numbers, though episodes were played in {int(played.sum())} evaluations"
        else:
            reason = "No returns of runs that count, though episodes were played"
        why.setdefault(reason, []).append(heading)
    for reason, headings in why.items():
        yield f"{reason}: {'; '.join(headings)}."


def best_settings(rows: pd.DataFrame, most: int = SHOWN) -> pd.DataFrame:
    """Return the settings with the highest final returns, the best first; those that were cut short come last."""
    returns = rows["return_final"].where(~rows["cut_short"])
    return rows.loc[returns.sort_values(ascending=False, kind="stable", na_position="last").index[:most]]


def number(value: float, decimals: int | None = None) -> str:
    """Format three significant digits, or so many decimals; powers of ten only where digits would run away."""
    if not np.isfinite(value):
        return "\N{EN DASH}" if np.isnan(value) else str(value)
    if value != 0 and not 1e-3 <= abs(value) < 1e6 and decimals is None:
        return f"{value:.2g}"
    return f"{value:,.{decimals_of(value) if decimals is None else decimals}f}"


def decimals_of(value: float) -> int:
    """Return the decimals of three significant digits, at most five."""
    return 2 if value == 0 or np.isnan(value) else int(np.clip(2 - np.floor(np.log10(abs(value))), 0, 5))


def pairable(runs: pd.DataFrame) -> dict[tuple[int, int], float]:
    """Return final returns by seed and last step: only runs with equal ones are compared."""
    return dict(zip(zip(runs["seed"], runs["last_step"], strict=True), runs["return_final"], strict=True))


def _flat(key: str, estimate: Estimate) -> dict[str, float]:
    return {key: estimate.value, f"{key}_low": estimate.low, f"{key}_high": estimate.high, f"{key}_n": estimate.n}
