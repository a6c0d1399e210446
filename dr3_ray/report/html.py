"""The report of a sweep: one page that opens without a network, its figures as PNGs and its table as CSV beside it."""

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup
from rich.console import Group

from dr3_ray.data import load_dataset
from dr3_ray.data.cache import find_cached
from dr3_ray.errors import UserError
from dr3_ray.report import tables
from dr3_ray.report.figures import draw_facet, palette
from dr3_ray.report.reader import COEFFICIENT, STATUSES, Run, load_run
from dr3_ray.stores import is_uri, replace_file

DRAWN = 12  # tables come with their pictures, at most, which take seconds and half a megabyte each,
LISTED = 1000  # and so many runs stand on the page
_TROUBLE = ("diverged", "failed", "pending", "running", "cut", "finished")  # what needs attention comes first


class Report(NamedTuple):
    """Where the page of a run is, and its tables for the terminal."""

    page: Path
    table: Group


def write_report(run_dir: str | Path) -> Report:
    """Write `report/` of a run directory, also of a sweep that is still running.

    Beside `report.html`: `summary.csv`, the table at full precision, `runs.csv` with a row for each member, and each
    figure as PNG. Files are replaced one by one and never half-written. Of a large sweep the page has the figures of
    the `DRAWN` tables with the highest returns, and `LISTED` runs.

    Raises:
        UserError: it is not a run directory, one of its files is damaged, or the report cannot be written.
    """
    run = load_run(run_dir)
    out = run.path / "report"
    summary, outcomes = tables.summarize(run), tables.outcomes(run)
    colours = palette(run.coefficients)
    drawn = _drawn(run, summary)
    facets: list[dict[str, Any]] = []
    prefixes: set[str] = set()
    for heading, rows in tables.facets_of(run, summary):
        prefix = re.sub(r"[^a-z0-9.]+", "-", heading.lower()).strip("-")
        prefix += f"-{len(facets)}" * (prefix in prefixes)
        prefixes.add(prefix)
        pictures = []
        if tuple(rows[run.facets].iloc[0]) in drawn:
            pictures = draw_facet(prefix, _of(rows, run, run.histories), _of(rows, run, outcomes), rows, colours)
        for picture in pictures:
            _replace(out / f"{picture.name}.png", picture.png)
        figures = [{"svg": Markup(picture.svg), "file": f"{picture.name}.png"} for picture in pictures]
        facets.append(
            {"heading": heading, "finding": _finding(rows), "table": _table(rows, colours), "figures": figures}
        )
    _replace(out / "summary.csv", summary.to_csv(index=False).encode())
    _replace(out / "runs.csv", outcomes.drop(columns="counted").to_csv().encode())
    ordered = outcomes.sort_values("status", key=lambda status: status.map(_TROUBLE.index), kind="stable")
    finished = ordered["status"] == "finished"
    page = _template().render(
        run=run,
        facets=facets,
        colours=_css_colours(run.coefficients),
        counts={status: int((run.members["status"] == status).sum()) for status in STATUSES},
        notes=tables.notes(run, summary),
        left_out=len(facets) - len(drawn),
        trouble=_listed(run, ordered[~finished]),
        finished=_listed(run, ordered[finished]),
        axes=run.facets[2:],
        commands=_commands(run.info),
        versions=run.info.get("versions", {}),
        spec=json.dumps(run.info.get("spec", {}), indent=2, ensure_ascii=False),
        datasets={name: _provenance(run, name) for name in sorted(run.members["dataset"].unique())},
        created=_moment(run.info.get("created")),
        written=_moment(datetime.now(UTC).isoformat()),
    )
    return Report(_replace(out / "report.html", page.encode()), tables.summary_table(run, summary))


def _drawn(run: Run, summary: pd.DataFrame) -> set[tuple[Any, ...]]:
    """The facets with pictures: those whose best setting comes first on its data set, from every data set alike."""
    returns = summary["return_final"].where(~summary["cut_short"])
    best = returns.groupby([summary[facet] for facet in run.facets], sort=False).max()
    place = best.groupby(level="dataset").rank(method="first", ascending=False, na_option="bottom")
    return set(place.sort_values(kind="stable").index[:DRAWN])


def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("dr3_ray.report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2")


def _of(rows: pd.DataFrame, run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """The part of another table that belongs to the facet of these rows of the summary."""
    return table[(table[run.facets] == rows[run.facets].iloc[0]).all(axis=1)]


def _table(rows: pd.DataFrame, colours: dict[float, str]) -> dict[str, Any]:
    shown = tables.columns(rows)
    order = list(colours)
    body = [
        {
            "coefficient": f"{row[COEFFICIENT]:g}",
            "colour": "--ink" if row[COEFFICIENT] == 0 else f"--c{order.index(row[COEFFICIENT])}",
            "mark": tables.mark(row),
            "runs": tables.runs_cell(row),
            "step": f"{row['step']:,}",
            "cells": [tables.cell(row, key) for key in shown],
        }
        for _, row in rows.iterrows()
    ]
    return {"titles": list(shown.values()), "body": body}


def _finding(rows: pd.DataFrame) -> str:
    """The best setting in words, with what has to be held against it."""
    measured = rows[(rows["return_final_n"] > 0) & ~rows["cut_short"]]
    if len(measured) < 2:
        return ""
    best = measured.loc[measured["return_final"].idxmax()]
    base = measured[measured[COEFFICIENT] == 0]
    text = "So far the highest" if rows["interim"].any() else "The highest"
    text += f" final return is at c₀ = {best[COEFFICIENT]:g}: {' '.join(tables.cell(best, 'return_final'))}"
    if len(base) and best[COEFFICIENT] != 0:
        text += f", against {' '.join(tables.cell(base.iloc[0], 'return_final'))} at c₀ = 0"
        if pairs := int(best["improvement_n"]):
            text += f"; better in {best['improvement'] * pairs:g} of {pairs} pairs of equal seeds"
    text += f". It was picked among {len(measured)} settings by these same runs: expect less from new seeds."
    return text.replace("c₀ = ", "c₀\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def _listed(run: Run, outcomes: pd.DataFrame) -> dict[str, Any]:
    rows = [_member(run, row) for _, row in outcomes[:LISTED].iterrows()]
    return {"rows": rows, "count": len(outcomes), "more": len(outcomes) - len(rows)}


def _member(run: Run, row: pd.Series) -> dict[str, Any]:
    return {
        "member": row.name,
        "coefficient": f"{row[COEFFICIENT]:g}",
        "last_step": f"{row['last_step']:,}",
        "return_final": tables.number(row["return_final"]),
        "axes": [row[axis] for axis in run.facets[2:]],
        **row[["status", "algorithm", "dataset", "seed", "error"]],
    }


def _provenance(run: Run, source: str) -> dict[str, str]:
    """What a data set is and where it comes from, if it is here and still the one that was trained on."""
    used = set(run.members.loc[run.members["dataset"] == source, "fingerprint"])
    facts = {"fingerprint": ", ".join(sorted(used))}
    try:
        if is_uri(source) and not find_cached(min(used)):  # it may be far away, and large
            raise UserError("this machine has no copy")
        dataset = load_dataset(f"{source}#{min(used)}" if is_uri(source) else source)
    except UserError as error:
        return facts | {"origin": f"unknown, as the data set cannot be opened here: {error}"}
    if used != {dataset.fingerprint}:
        return facts | {"origin": f"unknown, as other data lie there now, with fingerprint {dataset.fingerprint}"}
    manifest, origin = dataset.manifest, dataset.manifest.provenance
    facts |= {"name": manifest.name, "size": f"{manifest.counts.rows:,} steps of {manifest.counts.episodes:,} episodes"}
    facts |= {key: getattr(origin, key) for key in ("source", "version", "licence", "command", "created")}
    facts |= origin.details | {"notes": " ".join(origin.notes)}
    return {key: value for key, value in facts.items() if value}


def _commands(info: dict[str, Any]) -> list[str]:
    """Every command that worked on this run directory, in order and once."""
    argvs = [entry["command"] for entry in info.get("history", [])] or [info.get("command", [])]
    return list(dict.fromkeys(map(shlex.join, argvs)))


def _css_colours(coefficients: list[float]) -> dict[str, list[str]]:
    """Definitions of the variables that the figures use, for a light and for a dark page."""
    return {
        scheme: [
            f"--c{place}: {colour}"
            for place, (coefficient, colour) in enumerate(palette(coefficients, dark=scheme == "dark").items())
            if coefficient != 0
        ]
        for scheme in ("light", "dark")
    }


def _moment(iso: str | None) -> str:
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if iso else "at an unknown time"


def _replace(path: Path, content: bytes) -> Path:
    """Write a file as a whole or not at all; its path."""
    try:
        path.parent.mkdir(exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): make room or get the permission") from error
    return path
