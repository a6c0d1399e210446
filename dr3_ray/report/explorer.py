"""The interactive part of the page: its data as JSON, and its scripts, which the page contains whole."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from dr3_ray.data.labels import dataset_labels
from dr3_ray.quantities import REPORTED, RETURN, quantity
from dr3_ray.report import tables
from dr3_ray.report.diagnosed import Diagnosed
from dr3_ray.report.judging import Judged
from dr3_ray.report.reader import COEFFICIENT, SEEM, Run

DRAWN = ("finished", "running", "cut", "diverged")
CURVES = 2_000  # members whose curves are on the page, those of the best tables first,
VALUES = 240_000  # with about so many values of all quantities together,
POINTS = (16, 200)  # and so many of each curve, at least and at most
_SHADES = {"light": (0.97, 0.12), "dark": (0.05, 0.9)}  # ends of viridis for low and high values: high ones stand out
RELATIONS = (
    (f"{RETURN}_final", "dot_product_final", "Dot product against return"),
    (f"{SEEM}_final", "dot_product_final", "Dot product against SEEM's eigenvalue"),
    (f"{RETURN}_final", "q_mean_final", "Calibration: mean Q against return"),
    (f"{RETURN}_best", f"{RETURN}_final", "Unlearning: final against best return"),
    (f"{RETURN}_final", "effective_rank_final", "Effective rank against return"),
)
"""Pairs of variables of runs that can be chosen by name: across, up, and the name."""


def page_data(
    run: Run,
    facets: Mapping[str, Judged],
    best_first: Sequence[tuple[Any, ...]],
    colours: dict[float, str],
    diagnosed: Sequence[Diagnosed] = (),
) -> Markup:
    """Return the JSON of the page, in which no markup can begin.

    Args:
        run: The run.
        facets: The tables of the page by their anchors.
        best_first: Their facets, those with the highest returns first.
        colours: The `palette` of the run.
        diagnosed: Members with spectra.
    """
    if not facets:
        return Markup("{}")
    members = pd.concat([judged.members for judged in facets.values()])
    names = [name for name in _shown() if name in run.histories and np.isfinite(run.histories[name]).any()]
    listed, curves, points = _curves(run, facets, best_first, names)
    order = list(colours)
    summary = pd.concat([judged.rows for judged in facets.values()])
    document = {
        "axes": ["algorithm", *run.facets[2:]],
        "labels": dataset_labels(run.members["dataset"].unique()),
        "coefficients": [
            {"value": c, "css": "--ink" if c == 0 else f"--c{order.index(c)}"} for c in sorted(run.coefficients)
        ],
        "scale": {scheme: _shades(*ends) for scheme, ends in _SHADES.items()},
        "quantities": [{"name": name, "label": quantity(name).label} for name in names],
        "variables": _variables(run, members, names),
        "relations": [{"x": x, "y": y, "label": label} for x, y, label in RELATIONS],
        "tables": listed,
        "members": {
            "member": members.index.tolist(),
            "seed": members["seed"].tolist(),
            "status": members["status"].tolist(),
            "coefficient": members[COEFFICIENT].tolist(),
            "counted": members["counted"].tolist(),
            "drawn": (members["status"].isin(DRAWN) & (members["counted"] | (members["status"] != "cut"))).tolist(),
        },
        "points": points,
        "curves": curves,
        "spectra": [
            {
                "member": diagnosis.member,
                "coefficient": diagnosis.coefficient,
                "seed": diagnosis.seed,
                "values": diagnosis.spectrum,
            }
            for diagnosis in diagnosed
            if diagnosis.spectrum
        ],
        "measures": _measures(summary),
        "settings": _settings(facets, summary),
    }
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _shown() -> list[str]:
    return list(dict.fromkeys([*(quantity.name for quantity in REPORTED), "td_error", "phi_norm", SEEM]))


def _curves(
    run: Run, facets: Mapping[str, Judged], best_first: Sequence[tuple[Any, ...]], names: list[str]
) -> tuple[list[dict[str, Any]], dict[str, str], int]:
    """Return the tables, the curves of their members in float32 and base64, and the points of each curve."""
    of_facet = dict(iter(run.histories.groupby(run.facets, sort=False)))
    sizes = run.members.groupby(run.facets, sort=False).size().to_dict()
    curved: set[tuple[Any, ...]] = set()
    total = 0
    for facet in best_first:
        if facet in of_facet and (not curved or total + sizes[facet] <= CURVES):
            curved.add(facet)
            total += sizes[facet]
    points = int(np.clip(VALUES // max(total * len(names), 1), *POINTS))
    listed: list[dict[str, Any]] = []
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    start = row = 0
    for anchor, judged in facets.items():
        facet = tuple(judged.rows[run.facets].iloc[0])
        about: dict[str, Any] = {"name": anchor, "heading": judged.heading, "dataset": facet[1]}
        about |= {"values": [facet[0], *facet[2:]], "start": start, "count": len(judged.members)}
        about |= {"row": None, "steps": []}
        if facet in curved:
            history = of_facet[facet]
            steps = np.unique(history["step"])
            steps = steps[np.unique(np.linspace(0, len(steps) - 1, min(points, len(steps))).round().astype(int))]
            about |= {"row": row, "steps": steps.tolist()}
            kept = history[history["step"].isin(steps)]
            at = judged.members.index.get_indexer(kept["member"]), np.searchsorted(steps, kept["step"])
            for name in names:
                values = np.full((len(judged.members), points), np.nan, dtype="<f4")
                values[at] = kept[name]
                parts[name].append(values)
            row += len(judged.members)
        start += len(judged.members)
        listed.append(about)
    encoded = {name: base64.b64encode(np.concatenate(own).tobytes()).decode() for name, own in parts.items() if own}
    return listed, encoded, points


def _variables(run: Run, members: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Return what runs can be compared by: each quantity at the last evaluation, on average, and the best return."""
    grouped = run.histories[["member", *names]].replace([np.inf, -np.inf], np.nan).groupby("member")
    last = grouped[names].last().reindex(members.index) if names else pd.DataFrame(index=members.index)
    axes = []
    for name in names:
        label = quantity(name).label
        axes.append((f"{name}_final", name, f"{label}, last evaluation", last[name]))
        key = next((key for key, column in tables.MEASURES.items() if column == name), None)
        if name == RETURN:
            axes.append((f"{name}_best", name, f"{label}, best evaluation", grouped[name].max().reindex(members.index)))
        if key:
            axes.append((f"{name}_average", name, f"{label}, average over training", members[f"{key}_average"]))
    return [
        {"key": key, "quantity": name, "label": label, "values": _numbers(values)} for key, name, label, values in axes
    ]


def _measures(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the columns of the overview, returns first where there are any."""
    shown = {f"{key}_{when}": column for key, column in tables.MEASURES.items() for when in ("final", "average")}
    shown = {key: column for key, column in shown.items() if key.endswith("final") or column == RETURN}
    return [
        {
            "key": key,
            "label": f"{quantity(column).short or key.rpartition('_')[0].replace('_', ' ')} {key.rpartition('_')[2]}",
            "better": quantity(column).better,
        }
        for key, column in shown.items()
        if np.isfinite(summary[key]).any()
    ]


def _settings(facets: Mapping[str, Judged], summary: pd.DataFrame) -> dict[str, Any]:
    measures = [measure["key"] for measure in _measures(summary)]
    first = measures[0] if measures else "return_final"
    return {
        "table": [place for place, judged in enumerate(facets.values()) for _ in range(len(judged.rows))],
        "coefficient": summary[COEFFICIENT].tolist(),
        "runs": [tables.runs_cell(row).value for _, row in summary.iterrows()],
        "mark": [tables.mark(row) for _, row in summary.iterrows()],
        "late": summary["cut_short"].astype(int).tolist(),
        "values": {key: _numbers(summary[key]) for key in measures},
        "low": _numbers(summary[f"{first}_low"]),
        "high": _numbers(summary[f"{first}_high"]),
    }


def _numbers(values: pd.Series) -> list[float | None]:
    """Return numbers of six significant digits; NaN and infinities are null."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.to_numpy(float)]


def _shades(low: float, high: float) -> list[str]:
    return [to_hex(colour) for colour in mpl.colormaps["viridis"](np.linspace(low, high, 8))]
