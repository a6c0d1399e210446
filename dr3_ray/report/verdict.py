"""What a table of a sweep says, in words: which c₀ to take, whether DR3 helps, and what would tell more.

Settings are compared by the final returns of equal seeds: their mean paired difference has Student's t interval, of 95%
for all comparisons together. "For certain" means that 0 is outside of it. How good a choice is, is measured by seeds
that had no part in it. Returns on several data sets are never compared.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dr3_ray.report.answers import chosen_by_other_seeds
from dr3_ray.report.coadaptation import Reading, by_diagnostics, health_sentences, read_curves
from dr3_ray.report.reader import COEFFICIENT, STATUSES
from dr3_ray.report.tables import cell, decimals_of, number, pairable
from dr3_ray.runs.index import lost
from dr3_ray.stats import Estimate, bootstrap_estimate, paired_difference, paired_differences

ReturnsByPair = dict[tuple[int, int], float]  # by seed and last step

OUTCOME = "return_final"
SETTING = "setting"  # the column with the name of a setting
UNPLAYED = (
    "No c₀ can be called best, because no returns were measured: name an environment, or rank settings by the data "
    "alone with `dr3-ray select`."
)
NO_RUN = "No c₀ can be called best, because no run has a result ({}): `dr3-ray status` says why."
FEW = 5  # seeds that are advised where there is one
WORTH = 20  # seeds in all, beyond which more of them are no advice
POWER = 2.8  # standard errors from 0 at which a difference is told apart four times in five
NAMED = 6  # settings that a sentence names,
LONG = 200  # unless their names have more characters together


class Verdict(NamedTuple):
    """Sentences about one table, the first of them the answer, and the numbers behind them."""

    sentences: list[str]
    best: str = ""
    """The setting that is ahead; empty where nothing was played."""
    tied: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    """The settings that are worse for certain."""
    gain: Estimate | None = None
    """The difference that c₀ > 0 makes to c₀ = 0."""
    fair: Estimate | None = None
    """The return of settings that were chosen by the other seeds."""
    coadapts: str = "not measured"
    advised: float | None = None
    """The c₀ that the diagnostics alone speak for."""
    rivals: tuple[dict[str, Any], ...] = ()
    """The two settings that more seeds would tell apart, each with its axes."""
    seeds: int = 0
    """So many seeds in all would tell them apart; 0: none are missing, or too many."""

    @property
    def open(self) -> tuple[float, ...]:
        """The coefficients of the settings that more seeds would tell apart."""
        return tuple(rival[COEFFICIENT] for rival in self.rivals)


def judge(summary: pd.DataFrame, members: pd.DataFrame, axes: Sequence[str] = ()) -> Verdict:
    """Judge settings on one data set: rows of `tables.summarize`, and their members of `tables.outcomes`.

    A setting is a coefficient, with the values of further `axes` where several tables are judged together.
    """
    summary, members = (table.assign(**{SETTING: _names(table, axes)}) for table in (summary, members))
    curves, health = read_curves(members), health_sentences(members)
    interim = ["Runs are not finished: all of this is so far."] if summary["interim"].any() else []
    measured = summary[(summary[f"{OUTCOME}_n"] > 0) & ~summary["cut_short"]].set_index(SETTING)
    advice = by_diagnostics(members) if not axes else Reading([])
    if measured.empty:
        none = NO_RUN.format(told) if (told := lost(members["status"])) else UNPLAYED
        sentences = [none, *advice.sentences, *curves.sentences, *health, *interim]
        return Verdict(sentences, coadapts=curves.coadapts, advised=advice.advised)
    runs = members[members["counted"] & members[SETTING].isin(measured.index)]
    best = str(measured[OUTCOME].idxmax())
    beyond = {
        coefficient: _against(runs, best, coefficient, len(measured) - 1)
        for coefficient in measured.index
        if coefficient != best
    }
    worse = tuple(coefficient for coefficient, difference in beyond.items() if _above(difference))
    tied = tuple(coefficient for coefficient in beyond if coefficient not in worse)
    gain, helps = _base(summary, runs, measured)
    fair, expected = _fair(runs, len(measured))
    at = measured[COEFFICIENT]
    rivals = [
        best,
        *(tied and [min(tied, key=lambda coefficient: (at[coefficient] != 0, abs(beyond[coefficient].value)))]),
    ]
    rivals = sorted(rivals, key=lambda coefficient: at[coefficient])
    needed = _seeds_needed(runs, *rivals) if len(rivals) == 2 else 0
    more = []
    if needed > WORTH:
        names = " and ".join([_called(rivals[0], axes), rivals[1]])
        more = [
            f"To tell {names} apart would take more than {WORTH} seeds: their difference is small against that between "
            "seeds."
        ]
    lower = advice.sentences if advice.advised is not None else []
    choice = _choice(measured, best, tied, worse, axes)
    verdict = Verdict(
        [choice, *helps, *expected, *more, *curves.sentences, *lower, *health, *interim],
        *(best, tied, worse, gain, fair, curves.coadapts, advice.advised),
    )
    if not 0 < needed <= WORTH:
        return verdict
    open_ = tuple(measured.loc[coefficient, [*axes, COEFFICIENT]].to_dict() for coefficient in rivals)
    return verdict._replace(rivals=open_, seeds=needed)


def _names(table: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Return the name of each row's setting."""
    names = [f"{coefficient:g}" for coefficient in table[COEFFICIENT]]
    if not axes:
        return names
    values = [
        " · ".join(value if axis == "algorithm" else f"{axis} {value}" for axis, value in zip(axes, row, strict=True))
        for row in table[list(axes)].itertuples(index=False)
    ]
    return [f"{value} · c₀ = {name}" for value, name in zip(values, names, strict=True)]


def _called(name: str, axes: Sequence[str]) -> str:
    return name if axes else f"c₀ = {name}"


def _choice(measured: pd.DataFrame, best: str, tied: Sequence[str], worse: Sequence[str], axes: Sequence[str]) -> str:
    """Say which setting to take, which are tied with it, and which are worse for certain."""
    value, detail = cell(measured.loc[best], OUTCOME)
    at, name = f"{value} {detail}" if detail.startswith("[") else f"{value} ({detail})", _called(best, axes)
    if not tied and not worse:
        return f"{name} returns {at}, and there is nothing to compare it with."
    if not tied:
        return f"Take {name}: it returns {at}, and all others are worse for certain."
    also = f"{_listed(tied)} tied with it"
    if worse:
        return f"Take {name}: it returns {at}; {also}, {_listed(worse)} worse for certain."
    ahead = (measured[OUTCOME] < measured.loc[best, OUTCOME]).sum() == len(measured) - 1
    returns = f"is ahead with {at}" if ahead else f"returns {at}"
    return f"No {'setting' if axes else 'c₀'} is better than another for certain: {name} {returns}, and {also}."


def _base(summary: pd.DataFrame, runs: pd.DataFrame, measured: pd.DataFrame) -> tuple[Estimate | None, list[str]]:
    """Say whether c₀ > 0, chosen by other seeds, is better than c₀ = 0."""
    unknown = "Whether DR3 helps cannot be told"
    rows = summary[summary[COEFFICIENT] == 0]
    if rows.empty:
        return None, [f"{unknown}: c₀ = 0 is not among the settings."]
    if not (measured[COEFFICIENT] == 0).any():
        became = ", ".join(f"{rows[status].sum()} {status}" for status in STATUSES if rows[status].any())
        return None, [f"{unknown}: c₀ = 0 has no run that counts ({became})."]
    others, base = runs[runs[COEFFICIENT] != 0], runs[runs[COEFFICIENT] == 0]
    if others.empty:
        return None, []
    several = others[SETTING].nunique() > 1
    treated, untreated = (
        chosen_by_other_seeds(runs, SETTING, OUTCOME) if runs[SETTING].nunique() > 1 else runs
        for runs in (others, base)
    )
    difference = paired_difference(pairable(treated), pairable(untreated))
    if not difference.has_interval:
        return None, [f"{unknown} from one seed."]
    how = "c₀ > 0, as the other seeds choose it" if several else f"c₀ = {others[COEFFICIENT].iloc[0]:g}"
    digits = decimals_of(max(abs(difference.low), abs(difference.high)))
    by = f"{difference.value:+.{digits}f} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"
    answer = "DR3 helps" if difference.low > 0 else "DR3 hurts" if difference.high < 0 else "Whether DR3 helps is open"
    return difference, [f"{answer}: {by} against c₀ = 0 with {how}, over {difference.n} seeds."]


def _fair(runs: pd.DataFrame, settings: int) -> tuple[Estimate | None, list[str]]:
    """Say what to expect of the choice: the returns of settings that were chosen by the other seeds."""
    if runs["seed"].nunique() < 2:
        return None, ["There is one seed: no interval, and nothing else to choose by. Train more seeds."]
    if settings < 2:
        return None, []
    estimate = bootstrap_estimate(chosen_by_other_seeds(runs, SETTING, OUTCOME)[OUTCOME])
    digits = decimals_of(estimate.value)
    between = f" [{number(estimate.low, digits)}, {number(estimate.high, digits)}]" if estimate.has_interval else ""
    return estimate, [
        f"Chosen by the other seeds, a setting returns {number(estimate.value, digits)}{between}: expect that, "
        "not more."
    ]


def _against(runs: pd.DataFrame, one: str, other: str, comparisons: int) -> Estimate:
    """Return the paired difference of two settings over equal seeds."""
    return paired_difference(*_returns(runs, one, other), comparisons)


def _returns(runs: pd.DataFrame, one: str, other: str) -> tuple[ReturnsByPair, ReturnsByPair]:
    """Return the final returns of two settings, which can be paired."""
    return pairable(runs[runs[SETTING] == one]), pairable(runs[runs[SETTING] == other])


def _above(difference: Estimate) -> bool:
    """Return whether a difference is above 0 for certain."""
    return difference.has_interval and difference.low > 0


def _seeds_needed(runs: pd.DataFrame, one: str, other: str) -> int:
    """Return how many seeds would tell two settings apart, if their difference and its spread stay as they are."""
    differences, _ = paired_differences(*_returns(runs, one, other))
    if len(differences) < 2:
        return FEW
    value, spread = abs(float(differences.mean())), float(differences.std(ddof=1))
    if value == 0:
        return WORTH + 1
    return max(len(differences) + 2, int(np.ceil(min((POWER * spread / value) ** 2, WORTH + 1))))


def _listed(settings: Sequence[str]) -> str:
    """Write `0.01 is`, `0.01 and 0.1 are`, `0, 0.01 and 0.1 are`; of many the first ones, of long names how many."""
    if sum(map(len, settings)) > LONG:
        return f"{len(settings)} settings are"
    if len(settings) > NAMED:
        return f"{', '.join(settings[:NAMED])} and {len(settings) - NAMED} more are"
    *first, last = settings
    return f"{', '.join(first)} and {last} are" if first else f"{last} is"
