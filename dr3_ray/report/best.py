"""What a search has found: the best configurations of each algorithm on each data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Group
from rich.table import Table

from dr3_ray.data.labels import dataset_labels
from dr3_ray.runs.directory import asked_of, read_run
from dr3_ray.runs.identity import configuration
from dr3_ray.runs.index import Record, read_index
from dr3_ray.sweep.search.scores import MemberScores
from dr3_ray.sweep.spec.objective import Criterion
from dr3_ray.sweep.spec.spec import SweepSpec

SHOWN = 10


class Ranked(NamedTuple):
    """A configuration with its scores, over so many seeds."""

    config: dict[str, Any]
    scores: Mapping[str, float]
    seeds: int


def best_table(run: Path, most: int = SHOWN) -> Group:
    """Return a table of the best configurations of each algorithm on each data set.

    With several objectives, these are the ones of the Pareto front.

    Raises:
        UserError: not a run directory, or one of its files is damaged.
    """
    objectives, records = SweepSpec(**asked_of(run)).objective, read_index(run)
    names = [name for name in read_run(run)["axes"] if name not in ("algorithm", "dataset")]
    scores = MemberScores(objectives, records, run)
    problems: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for record in records:
        config = record["config"]
        problem = problems.setdefault((config["algorithm"], config["dataset"]), {})
        problem.setdefault(configuration(config), []).append(record)
    labels = dataset_labels({dataset for _, dataset in problems})
    return Group(
        *(
            _table(f"{algorithm} · {labels[dataset]}", list(problem.values()), names, objectives, scores, most)
            for (algorithm, dataset), problem in problems.items()
        )
    )


def _table(
    title: str,
    configurations: list[list[Record]],
    names: list[str],
    objectives: Sequence[Criterion],
    scores: MemberScores,
    most: int,
) -> Table:
    rows = []
    for records in configurations:
        members = [record["member"] for record in records]
        answer = scores.answer(members).scores if scores.ended(members) else None
        if answer is not None:
            rows.append(Ranked(records[0]["config"], answer, len(records)))
    front = pareto_front(rows, objectives)
    shown = front if len(objectives) > 1 else sorted(rows, key=lambda row: _key(row, objectives), reverse=True)
    what = "Pareto front" if len(objectives) > 1 else "best"
    lost = len(configurations) - len(rows)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{title}: {what} of {len(rows)} configurations",
        title_justify="left",
        caption=f"{lost} more have no score: lost, failed, or not over yet" if lost else None,
        caption_justify="left",
    )
    for heading in (*names, *(f"{objective.metric} ({objective.over_seeds})" for objective in objectives), "seeds"):
        table.add_column(heading, justify="right")
    for candidate in shown[:most]:
        measured = [f"{candidate.scores[objective.metric]:.4g}" for objective in objectives]
        table.add_row(*(str(candidate.config.get(name, "")) for name in names), *measured, str(candidate.seeds))
    return table


def pareto_front(rows: Sequence[Ranked], objectives: Sequence[Criterion]) -> list[Ranked]:
    """Return the configurations that no other one beats in one objective and equals in the rest, best first."""
    keys = [_key(row, objectives) for row in rows]
    best = [
        (key, number)
        for number, key in enumerate(keys)
        if not any(other != key and all(a >= b for a, b in zip(other, key, strict=True)) for other in keys)
    ]
    return [rows[number] for _, number in sorted(best, reverse=True)]


def _key(row: Ranked, objectives: Sequence[Criterion]) -> tuple[float, ...]:
    return tuple(objective.better(row.scores[objective.metric]) for objective in objectives)
