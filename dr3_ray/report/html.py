"""The report of a sweep: one page that opens without a network, its figures as PNGs and its table as CSV beside it."""

import hashlib
import json
import re
import shlex
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup
from rich.console import Group
from rich.text import Text

from dr3_ray.data import load_dataset
from dr3_ray.data.cache import find_cached
from dr3_ray.data.mixture_names import is_mixture, names_in
from dr3_ray.errors import UserError, check_known
from dr3_ray.report import tables
from dr3_ray.report.diagnosed import read_diagnoses, titles
from dr3_ray.report.explorer import page_data
from dr3_ray.report.figures import Picture, draw_facet
from dr3_ray.report.files import write_whole
from dr3_ray.report.judging import Judged, judge_datasets, judge_tables
from dr3_ray.report.lines import palette
from dr3_ray.report.merged import read_merged
from dr3_ray.report.overview import for_page, terminal
from dr3_ray.report.pages import LIVE, PAGE, PLOTLY, scripts, template
from dr3_ray.report.papers import KINDS, captions, latex, markdown
from dr3_ray.report.printed import notes_text
from dr3_ray.report.ranked import FILE, read_ranked
from dr3_ray.report.reader import COEFFICIENT, STATUSES, Run, read_tables
from dr3_ray.runs.directory import moment
from dr3_ray.stores import inside
from dr3_ray.uris import is_uri

DRAWN = 4  # tables come with their pictures, at most, which take seconds and half a megabyte each,
LONGEST_NAME = 100  # characters, of the 255 bytes that a file system allows
LISTED = 1000  # and so many runs stand on the page
_TROUBLE = ("diverged", "failed", "pending", "running", "cut", "finished")  # what needs attention comes first


class Report(NamedTuple):
    """Where the page of a run is, and its tables for the terminal."""

    page: Path
    table: Group
    commands: list[str]
    """What would tell more about each data set."""


def write_report(*runs: str | Path, out: Path | None = None, also: Collection[str] = (), version: str = "") -> Report:
    """Write the report of a run directory, also of a sweep that is still running; or of several, compared.

    Beside `report.html`: `summary.csv`, the table at full precision, `runs.csv` with a row for each member, each figure
    as PNG, and the `selection.csv` of `dr3-ray select` if the run has one. Files are replaced one by one and never
    half-written. Of a large sweep the page has the figures of the `DRAWN` tables with the highest returns, and `LISTED`
    runs.

    Args:
        *runs: Run directories. Those on the same data stand in one table; returns on other data are not compared.
        out: Where to write; by default `report/` of the one run, or `comparison/` for several.
        also: What to write for papers: `md` and `tex` are tables, `svg` and `pdf` figures.
        version: Of a page of `dr3-ray serve`, which asks its server for newer ones.

    Raises:
        UserError: one is not a run directory, one of its files is damaged, or the report cannot be written.
    """
    check_known("kind of file", also, KINDS)
    run = read_tables(*runs) if len(runs) == 1 else read_merged(runs)
    diagnosed = read_diagnoses(run.path, run.members.index) if len(runs) == 1 else []
    ranked = read_ranked(run) if len(runs) == 1 else None
    out = out or (inside(run.path, "report") if len(runs) == 1 else Path("comparison"))
    summary, outcomes = tables.summarize(run), tables.outcomes(run)
    colours = palette(run.coefficients)
    best_first = _best_first(run, summary)
    drawn = set(best_first[:DRAWN])
    datasets, judged = judge_datasets(run, summary, outcomes), judge_tables(run, summary, outcomes)
    facets: list[dict[str, Any]] = []
    drawings: list[tuple[str, str, str]] = []
    for name, table in _named(judged).items():
        pictures = []
        if tuple(table.rows[run.facets].iloc[0]) in drawn:
            pictures = draw_facet(
                name, rows_of_facet(run, table.rows, run.histories), table.members, table.rows, colours
            )
        _write_pictures(pictures, out, also)
        drawings += [(picture.name, table.heading, picture.title) for picture in pictures]
        figures = [{"svg": Markup(picture.svg), "file": f"{picture.name}.png"} for picture in pictures]
        facets.append({"name": name, "judged": table, "table": _table(table.rows, colours), "figures": figures})
    notes = tables.notes(run, summary)
    for kind, text in _papers(datasets, drawings, notes, also).items():
        write_whole(out / kind, text.encode())
    write_whole(out / "summary.csv", summary.to_csv(index=False).encode())
    write_whole(out / "runs.csv", outcomes.drop(columns="counted").to_csv().encode())
    ordered = outcomes.sort_values("status", key=lambda status: status.map(_TROUBLE.index), kind="stable")
    finished = (ordered["status"] == "finished") & (ordered["error"] == "")
    if ranked:
        write_whole(out / FILE, ranked.content)
    anchors = {facet["name"]: facet["judged"] for facet in facets}
    page = template("report.html.j2").render(
        run=run,
        facets=facets,
        overview=for_page(datasets, anchors),
        version=version,
        scripts=scripts((PLOTLY, PAGE, *([LIVE] if version else []))),
        data=page_data(run, anchors, best_first, colours, diagnosed),
        diagnosed=diagnosed,
        ranked=ranked,
        diagnosis_titles=titles(),
        colours=_css_colours(run.coefficients),
        counts={status: int((run.members["status"] == status).sum()) for status in STATUSES},
        notes=notes,
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
    selected = [Text(f"• {ranked.sentence}: {inside(run.path, FILE)}")] if ranked else []
    shown = Group(*terminal(datasets), *selected, notes_text(run, summary))
    commands = [dataset.more for dataset in datasets if dataset.more]
    return Report(write_whole(out / "report.html", page.encode()), shown, commands)


def _named(judged: list[Judged]) -> dict[str, Judged]:
    """Return the tables by the beginnings of their pictures' names, each table with its own."""
    named: dict[str, Judged] = {}
    for number, table in enumerate(judged):
        name = file_name(table.heading)
        named[name + f"-{number}" * (name in named)] = table
    return named


def _write_pictures(pictures: list[Picture], out: Path, also: Collection[str]) -> None:
    """Write pictures as PNG, and in the formats that papers take where these are asked for."""
    for picture in pictures:
        write_whole(inside(out, f"{picture.name}.png"), picture.png)
        for kind in {"svg", "pdf"} & set(also):
            write_whole(inside(out, f"{picture.name}.{kind}"), picture.render(kind))


def _papers(
    judged: list[Judged], drawings: list[tuple[str, str, str]], notes: list[str], also: Collection[str]
) -> dict[str, str]:
    """Return the text files for papers by their names."""
    texts = {"summary.md": markdown(judged, notes)} if "md" in also else {}
    texts |= {"summary.tex": latex(judged)} if "tex" in also else {}
    return texts | ({"captions.txt": captions(drawings)} if {"svg", "pdf"} & set(also) else {})


def file_name(heading: str) -> str:
    """Return the beginning of the names of a facet's pictures, with a digest where the heading is cut."""
    name = re.sub(r"[^a-z0-9.]+", "-", heading.lower()).strip("-.")
    if len(name) <= LONGEST_NAME and name:
        return name
    return f"{name[:LONGEST_NAME].rstrip('-.')}-{hashlib.sha256(heading.encode()).hexdigest()[:8]}".lstrip("-")


def _best_first(run: Run, summary: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return the facets, first those with the best settings on their data set, from every data set alike."""
    returns = summary["return_final"].where(~summary["cut_short"])
    best = returns.groupby([summary[facet] for facet in run.facets], sort=False).max()
    place = best.groupby(level="dataset").rank(method="first", ascending=False, na_option="bottom")
    return list(place.sort_values(kind="stable").index)


def rows_of_facet(run: Run, rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the part of another table that belongs to the facet of these rows of the summary."""
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
    """Describe a data set and its origin, if it is here and still the one that was trained on."""
    used = set(run.members.loc[run.members["dataset"] == source, "fingerprint"])
    facts = {"fingerprint": ", ".join(sorted(used))}
    try:
        away = [uri for uri in names_in(source) if is_uri(uri)]  # far away, it may be, and large
        if not all(find_cached(uri if is_mixture(source) else _pinned(uri, used)) for uri in away):
            raise UserError("this machine has no copy")
        dataset = load_dataset(_pinned(source, used) if is_uri(source) else source)
    except UserError as error:
        return facts | {"origin": f"unknown, as the data set cannot be opened here: {error}"}
    if not used <= set(dataset.manifest.identities):
        return facts | {"origin": f"unknown, as other data lie there now, with fingerprint {dataset.fingerprint}"}
    manifest, origin = dataset.manifest, dataset.manifest.provenance
    facts |= {"name": manifest.name, "subset": str(dataset.subset or "")}
    facts |= {"size": f"{manifest.counts.rows:,} steps of {manifest.counts.episodes:,} episodes"}
    facts |= {key: getattr(origin, key) for key in ("source", "version", "licence", "command", "created")}
    facts |= origin.details | {"notes": " ".join(origin.notes)}
    return {key: value for key, value in facts.items() if value}


def _pinned(source: str, fingerprints: set[str]) -> str:
    """Return the URI of the data that were trained on."""
    return f"{source.partition('#')[0]}#{min(fingerprints)}"


def _commands(info: dict[str, Any]) -> list[str]:
    """Return every command that worked on this run directory, in order and once."""
    argvs = [entry["command"] for entry in info.get("history", [])] or [info.get("command", [])]
    return list(dict.fromkeys(map(shlex.join, argvs)))


def _css_colours(coefficients: list[float]) -> dict[str, list[str]]:
    """Return the variables that the figures use, for a light and for a dark page."""
    return {
        scheme: [
            f"--c{place}: {colour}"
            for place, (coefficient, colour) in enumerate(palette(coefficients, dark=scheme == "dark").items())
            if coefficient != 0
        ]
        for scheme in ("light", "dark")
    }


def _moment(iso: str | None) -> str:
    time = iso and moment(iso)
    return time.strftime("%Y-%m-%d %H:%M UTC") if time else "at an unknown time"
