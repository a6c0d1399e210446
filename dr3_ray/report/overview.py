"""What a report says first: the verdict on each data set, its best settings, and where its tables are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from dr3_ray.report import tables
from dr3_ray.report.judging import Judged
from dr3_ray.report.printed import Fitted, best_table
from dr3_ray.report.reader import COEFFICIENT
from dr3_ray.report.searching import importances, selections


def terminal(datasets: Sequence[Judged]) -> Iterator[Text | Fitted]:
    """Yield the verdict on each data set and the best settings."""
    for judged in datasets:
        yield Text(judged.heading, style="bold")
        for place, sentence in enumerate(judged.verdict.sentences):
            yield Text(f"• {sentence}", style="bold" if place == 0 else "")
        yield best_table(judged.heading, judged.rows, judged.axes)


def for_page(datasets: Sequence[Judged], judged: Mapping[str, Judged]) -> list[dict[str, Any]]:
    """Return of each data set its verdict, best settings with links, tables, and what its settings say together.

    `judged` has the tables by link.

    A data set with one table has no settings here: that table has its verdict and all of them.
    """
    link = {at: name for name, table in judged.items() for at in table.rows.index}
    entries = []
    for dataset in datasets:
        own = [(table.heading, name) for name, table in judged.items() if table.rows.index[0] in dataset.rows.index]
        shown = tables.columns(dataset.rows)
        rows = [
            {
                "axes": [row[axis] for axis in dataset.axes],
                "coefficient": f"{row[COEFFICIENT]:g}",
                "mark": tables.mark(row),
                "runs": tables.runs_cell(row),
                "cells": [tables.cell(row, key) for key in shown],
                "link": link[at],
            }
            for at, row in (tables.best_settings(dataset.rows) if dataset.axes else dataset.rows[:0]).iterrows()
        ]
        searched = {"importances": importances(dataset), "selections": selections(dataset)}
        entries.append({"judged": dataset, "rows": rows, "titles": list(shown.values()), "tables": own, **searched})
    return entries
