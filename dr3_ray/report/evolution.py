"""The schedule of a population: what every member trained with and when, and whom it was copied from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from dr3_ray.evolution.schedule import known
from dr3_ray.quantities import RETURN
from dr3_ray.report.answers import answer_table
from dr3_ray.report.tables import number
from dr3_ray.stores import inside, replacing

MEASURED = {RETURN: "return", "dot_product": "dot_product"}


def read_schedule(run: Path, numbers: list[str]) -> pd.DataFrame:
    """Return one row for each member and interval, in order.

    `member`, `step` (updates), `return`, `dot_product`, `copied_from` (the member whose weights this interval began
    with, or nothing) and the numbers it trained with; `numbers` are columns even where no row has them. An interval
    that was trained again, after the run was killed, counts as it was trained last.
    """
    rows: list[dict[str, Any]] = []
    for result in known(run):
        measured = {name: result["measured"].get(column) for column, name in MEASURED.items()}
        rows.append({name: result[name] for name in ("member", "step", "copied_from")} | measured | result["numbers"])
    schedule = pd.DataFrame(rows)
    schedule[[name for name in numbers if name not in schedule]] = np.nan
    return schedule.drop_duplicates(["member", "step"], keep="last").sort_values(["member", "step"], ignore_index=True)


def write_schedule(run: Path, numbers: list[str]) -> list[Path]:
    """Write `schedule.csv`, `schedule.parquet` and a picture of the `numbers` that changed; return their paths."""
    schedule = read_schedule(run, numbers)
    files = [inside(run, f"schedule.{kind}") for kind in ("csv", "parquet", "png")]
    writers: list[Callable[[Path], object]] = [
        lambda path: schedule.to_csv(path, index=False),
        lambda path: pq.write_table(pa.Table.from_pandas(schedule, preserve_index=False), path),
        lambda path: draw(schedule, numbers).savefig(path, dpi=150, format="png"),
    ]
    for file, write in zip(files, writers, strict=True):
        with replacing(file) as partial:
            write(partial)
    return files


def draw(schedule: pd.DataFrame, numbers: list[str]) -> Figure:
    """Draw returns, and each number below them, against updates: a line a member, dotted from its source."""
    panels = ["return", *numbers]
    figure = Figure(figsize=(6.4, 1.9 * len(panels)), layout="constrained")
    each_axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
    members = sorted(schedule["member"].unique())
    colours = dict(zip(members, mpl.colormaps["viridis"](np.linspace(0.05, 0.9, len(members))), strict=True))
    at = schedule.set_index(["member", "step"])
    steps = sorted(schedule["step"].unique())
    for axes, panel in zip(each_axes, panels, strict=True):
        for member, own in schedule.groupby("member"):
            axes.plot(own["step"], own[panel], marker="o", markersize=2.5, linewidth=1.2, color=colours[member])
        for _, row in schedule[schedule["copied_from"] != ""].iterrows():
            before = steps[max(steps.index(row["step"]) - 1, 0)]
            if (row["copied_from"], before) in at.index:
                ends = [at.loc[(row["copied_from"], before), panel], row[panel]]
                axes.plot([before, row["step"]], ends, ":", linewidth=0.8, color=colours[row["copied_from"]])
        if panel != "return" and (schedule[panel] > 0).all():
            axes.set_yscale("log")
        axes.set_ylabel(panel)
        axes.spines[["top", "right"]].set_visible(False)
    each_axes[-1].set_xlabel("gradient updates; dotted: weights copied")
    return figure


def schedule_table(schedule: pd.DataFrame, numbers: list[str]) -> Any:
    """Return the members by their last return, each with the numbers that it ended with and its first ancestor."""
    last = schedule.groupby("member").last().sort_values("return", ascending=False)
    copies = schedule[schedule["copied_from"] != ""].groupby("member").size()
    rows = [
        [
            *(member, number(row["return"]), number(row["dot_product"])),
            *(f"{row[name]:.4g}" for name in numbers),
            *(str(copies.get(member, 0)), ancestor(schedule, str(member))),
        ]
        for member, row in last.iterrows()
    ]
    title = f"{len(last)} members, {schedule['step'].max():,} updates"
    columns = ["member", "return", "dot\nproduct", *numbers, "copies", "descends\nfrom"]
    return answer_table(title, columns, rows)


def ancestor(schedule: pd.DataFrame, member: str) -> str:
    """Return the member that a member's weights began with."""
    copied = schedule[schedule["copied_from"] != ""].set_index(["member", "step"])["copied_from"]
    for step in sorted(schedule["step"].unique(), reverse=True):
        member = str(copied.get((member, step), member))
    return member
