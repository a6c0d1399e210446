"""Tables for the terminal."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from dr3_ray.report.reader import COEFFICIENT, Run
from dr3_ray.report.tables import SHOWN, best_settings, cell, columns, facets_of, mark, notes, runs_cell

WIDEST = 10_000  # characters of a line that no terminal has


def summary_table(run: Run, summary: pd.DataFrame) -> Group:
    """Return the summary of a run for the terminal: a table per facet, and notes on how to read them."""
    tables = [Fitted(heading, rows) for heading, rows in facets_of(run, summary)]
    return Group(*tables, notes_text(run, summary))


def notes_text(run: Run, summary: pd.DataFrame) -> Group:
    """Return the notes for the terminal."""
    return Group(*(Text(f"• {note}", style="dim") for note in notes(run, summary)))


def best_table(heading: str, rows: pd.DataFrame, axes: Sequence[str]) -> "Fitted":
    """Return the best settings of several tables on one data set for the terminal, with their axes."""
    best = best_settings(rows) if axes or len(rows) > SHOWN else rows
    what = "highest final returns" if (rows["return_final_n"] > 0).any() else "first"
    title = f"{heading}: the {len(best)} {what} of {len(rows)} settings"
    return Fitted(title if len(rows) > len(best) else heading, best, axes)


class Fitted:
    """A table for the terminal, whose final intervals stand in lines of their own where it would be too wide."""

    def __init__(self, heading: str, rows: pd.DataFrame, axes: Sequence[str] = ()) -> None:
        self._about = heading, rows, axes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table."""
        wide = _terminal_table(*self._about, between=" ")
        needed = wide.__rich_measure__(console, options.update(max_width=WIDEST)).maximum
        yield wide if needed <= options.max_width else _terminal_table(*self._about, between="\n")


def _terminal_table(heading: str, rows: pd.DataFrame, axes: Sequence[str], between: str) -> Table:
    """Return a table narrow enough for 80 characters, but for axes: only returns come with their intervals.

    `between` stands between an estimate and its interval, which averages have only in the same line.
    """
    shown = {key: title for key, title in columns(rows).items() if key != "improvement"}
    padding = (0, 1) if between == " " else (0, 1, 0, 0)
    look: dict[str, Any] = {"title_justify": "left", "box": box.SIMPLE_HEAD, "pad_edge": False, "padding": padding}
    table = Table(title=Text(heading, style="bold"), **look)
    for axis in axes:
        table.add_column(axis, overflow="fold", vertical="middle")
    for title in ("c₀", "runs", *shown.values()):
        table.add_column(title.replace("effective", "eff."), justify="right", vertical="middle")
    numbered = table.columns[len(axes) :]
    for _, row in rows.iterrows():
        cells = {key: cell(row, key) for key in shown}
        with_interval = "return" if between == " " else "return_final"
        texts = [Text(between.join(t) if key.startswith(with_interval) else t.value) for key, t in cells.items()]
        numbers = [Text(f"{row[COEFFICIENT]:g}" + mark(row)), Text(runs_cell(row).value), *texts]
        for column, text in zip(numbered, numbers, strict=True):  # headings may break, numbers may not
            column.min_width = max(column.min_width or 0, *map(len, text.plain.split("\n")), 1)
        table.add_row(*(Text(row[axis]) for axis in axes), *numbers)
    return table
