"""What the tables of search scripts are made of: estimates as text, and fair choices among settings."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from dr3_ray.report.tables import decimals_of, number
from dr3_ray.stats import Estimate, iqm


def told(estimate: Estimate, percent: bool = False) -> str:
    """Format an estimate as `4.51` above `[4.10, 4.92]`; without an interval the value alone, else a dash."""
    if estimate.n == 0:
        return "\N{EN DASH}"
    if percent:
        value, low, high = (f"{100 * number:.0f}" for number in (estimate.value, estimate.low, estimate.high))
        return f"{value}%\n[{low}, {high}]"
    decimals = decimals_of(estimate.value)
    bounds = ", ".join(number(bound, decimals) for bound in (estimate.low, estimate.high))
    return number(estimate.value, decimals) + (f"\n[{bounds}]" if estimate.has_interval else "")


def answer_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table for the terminal: names to the left, numbers to the right."""
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def best_setting(runs: pd.DataFrame, setting: str, outcome: str) -> Hashable | None:
    """Return the value of the column `setting` whose runs have the highest interquartile mean of `outcome`."""
    scores = runs.dropna(subset=[outcome]).groupby(setting, sort=False)[outcome].agg(iqm)
    return scores.idxmax() if len(scores) else None


def chosen_by_other_seeds(runs: pd.DataFrame, setting: str, outcome: str) -> pd.DataFrame:
    """Return one run a seed: that of the setting which is best by all the other seeds.

    The runs by which a setting is chosen favour it; a seed that had no part in the choice does not. With one seed there
    is nothing else to choose by, and the frame is empty.
    """
    chosen = []
    for seed, own in runs.groupby("seed"):
        best = best_setting(runs[runs["seed"] != seed], setting, outcome)
        chosen.append(own[own[setting] == best])
    return pd.concat(chosen) if chosen else runs[:0]


def by_seed(runs: pd.DataFrame, outcome: str) -> dict[int, float]:
    """Return an outcome of each run, by its seed; NaN where it was not measured."""
    return dict(zip(runs["seed"], runs[outcome].astype(np.float64), strict=True))
