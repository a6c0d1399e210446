"""The verdicts of a run: one on each data set, and one on each table. Terminal, page, JSON and Python show the same."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from dr3_ray.data.labels import dataset_labels
from dr3_ray.report.next_command import command
from dr3_ray.report.reader import Run
from dr3_ray.report.tables import facets_of, notes
from dr3_ray.report.verdict import Verdict, judge
from dr3_ray.stats import Estimate
from dr3_ray.trust.text import json_value


class Judged(NamedTuple):
    """A part of the summary with its members and its verdict."""

    heading: str
    rows: pd.DataFrame
    members: pd.DataFrame
    axes: list[str]
    """What settings differ in besides the coefficient; empty for one table."""
    verdict: Verdict
    more: str
    """The command that would tell more; empty where there is none."""


def judge_tables(run: Run, summary: pd.DataFrame, outcomes: pd.DataFrame) -> list[Judged]:
    """Return the verdict of each table: an algorithm on a data set, with one value of each further axis."""
    return [_judged(run, heading, rows, outcomes, run.facets) for heading, rows in facets_of(run, summary)]


def judge_datasets(run: Run, summary: pd.DataFrame, outcomes: pd.DataFrame) -> list[Judged]:
    """Return the verdict on each data set, over all of its tables; returns on several are never compared."""
    labels = dataset_labels(run.members["dataset"].unique())
    judged = []
    for dataset, rows in summary.groupby("dataset", sort=False):
        same = [facet for facet in run.facets if rows[facet].nunique() == 1]
        if same == run.facets:
            ((heading, _),) = facets_of(run, rows)
        else:
            heading = " \N{MIDDLE DOT} ".join(
                [*rows["algorithm"].unique()[: "algorithm" in same], labels[str(dataset)]]
            )
        judged.append(_judged(run, heading, rows, outcomes, same))
    return judged


def _judged(run: Run, heading: str, rows: pd.DataFrame, outcomes: pd.DataFrame, same: list[str]) -> Judged:
    about = {facet: rows[facet].iloc[0] for facet in same}
    members = outcomes[(outcomes[same] == pd.Series(about)).all(axis=1)]
    axes = [facet for facet in run.facets if facet not in same]
    verdict = judge(rows, members, axes)
    return Judged(heading, rows, members, axes, verdict, command(run.info, verdict, about))


def document(run: Run, summary: pd.DataFrame, outcomes: pd.DataFrame) -> dict[str, Any]:
    """Return all verdicts of a run with their numbers, as JSON can have it: NaN and infinities are null."""
    return {
        "run": str(run.path),
        "statuses": {str(name): int(count) for name, count in run.members["status"].value_counts().items()},
        "datasets": [_entry(answer) for answer in judge_datasets(run, summary, outcomes)],
        "tables": [_entry(answer) for answer in judge_tables(run, summary, outcomes)],
        "health": {member: [flag._asdict() for flag in flags] for member, flags in run.flags.items() if flags},
        "notes": notes(run, summary),
    }


def _entry(judged: Judged) -> dict[str, Any]:
    verdict = judged.verdict
    rows = judged.rows.to_dict("records")
    return {
        "heading": judged.heading,
        "verdict": verdict.sentences,
        "best": verdict.best or None,
        "tied": list(verdict.tied),
        "worse": list(verdict.worse),
        "gain": _estimate(verdict.gain),
        "fair": _estimate(verdict.fair),
        "coadapts": verdict.coadapts,
        "advised_by_diagnostics": verdict.advised,
        "next": judged.more or None,
        "settings": json_value(rows),
    }


def _estimate(estimate: Estimate | None) -> Mapping[str, Any] | None:
    if estimate is None:
        return None
    return {name: json_value(getattr(estimate, name)) for name in ("value", "low", "high", "n")}
