"""What all settings on a data set say together: which axes matter, and what could have chosen without returns."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dr3_ray.quantities import QUANTITIES, RETURN, quantity
from dr3_ray.report import tables
from dr3_ray.report.judging import Judged
from dr3_ray.report.reader import COEFFICIENT, as_numbers
from dr3_ray.stats import Estimate, iqm, selection_quality

SETTINGS = 10  # settings that importance is told from, at least
INTERVALS = 100  # settings up to which a criterion has intervals: they take a second for every 200


class Importance(NamedTuple):
    """The share of an axis in what tells the best settings from the others."""

    axis: str
    share: float


class Selection(NamedTuple):
    """How well a quantity that needs no rollouts chooses among settings."""

    criterion: str
    correlation: tables.Cell
    regret: tables.Cell
    pick: str
    """The setting that it chooses; empty where it cannot."""


def importances(judged: Judged) -> list[Importance]:
    """Return the importance of each axis for final returns, the most important first, by Optuna's PED-ANOVA.

    It compares the best tenth of the settings with all of them (Watanabe et al., arXiv 2304.10255), and also takes
    settings that no search drew. Empty: fewer than `SETTINGS` settings with returns, or no two axes.
    """
    rows = judged.rows[np.isfinite(judged.rows["return_final"]) & ~judged.rows["cut_short"]]
    axes = [axis for axis in (*judged.axes, COEFFICIENT) if rows[axis].nunique() > 1]
    if len(rows) < SETTINGS or len(axes) < 2 or rows["return_final"].nunique() < 2:
        return []
    import optuna  # which takes half a second

    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    columns: dict[str, list[Any]] = {}
    for axis in axes:
        column = as_numbers(rows[axis])
        if pd.api.types.is_numeric_dtype(column):
            low, high = float(column.min()), float(column.max())
            distributions[axis] = optuna.distributions.FloatDistribution(low, high, log=low > 0 and high > 100 * low)
            columns[axis] = [float(value) for value in column]
        else:
            distributions[axis] = optuna.distributions.CategoricalDistribution(sorted(column.unique()))
            columns[axis] = column.tolist()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={axis: columns[axis][place] for axis in axes}, distributions=distributions, value=float(value)
            )
            for place, value in enumerate(rows["return_final"])
        ]
    )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    importances = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return [
        Importance("c₀" if axis == COEFFICIENT else axis, share)
        for axis, share in importances.items()
        if math.isfinite(share)
    ]


def selections(judged: Judged) -> list[Selection]:
    """Return, for each measure of the probe batch that has a better end, how it chooses among the settings."""
    counted = judged.members[judged.members["counted"] & (judged.members["status"] != "cut")]
    settings = [group for _, group in counted.groupby([*judged.axes, COEFFICIENT], sort=False)]
    more = {quantity.name: quantity.better == "more" for quantity in QUANTITIES if quantity.better}
    selections = []
    for measure, column in tables.MEASURES.items():
        if column == RETURN or column not in more:
            continue
        sign = 1.0 if more[column] else -1.0
        both = [
            [(scale * group[f"{name}_final"]).tolist() for group in settings]
            for scale, name in ((sign, measure), (1.0, "return"))
        ]
        middles = [[_middle(runs) for runs in kind] for kind in both]
        if any(len({middle for middle in kind if np.isfinite(middle)}) < 2 for kind in middles):
            continue  # all settings are level, or there are no returns
        if len(settings) > INTERVALS:
            both = [[[middle] for middle in kind] for kind in middles]
        quality = selection_quality(both[0], both[1])
        if quality.picks is not None:
            first = settings[quality.picks].iloc[0]
            named = [f"{axis} {first[axis]}" for axis in judged.axes] + [f"c₀ = {first[COEFFICIENT]:g}"]
            criterion = (
                f"{'highest' if more[column] else 'lowest'} {quantity(column).short or measure.replace('_', ' ')}"
            )
            selections.append(Selection(criterion, _cell(quality.correlation), _cell(quality.regret), ", ".join(named)))
    return selections


def _middle(runs: list[float]) -> float:
    finite = [value for value in runs if math.isfinite(value)]
    return float(iqm(finite)) if finite else math.nan


def _cell(estimate: Estimate) -> tables.Cell:
    decimals = tables.decimals_of(estimate.value)
    bounds = [tables.number(bound, decimals) for bound in (estimate.low, estimate.high)]
    return tables.Cell(tables.number(estimate.value, decimals), f"[{', '.join(bounds)}]" * estimate.has_interval)
