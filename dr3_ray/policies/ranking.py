"""The configurations of a run, from the best to the worst by what they measured last."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from dr3_ray.data.labels import dataset_label, dataset_labels
from dr3_ray.errors import UserError, check_known
from dr3_ray.process.stopping import resuming
from dr3_ray.quantities import JUDGED, RETURN
from dr3_ray.runs.directory import RENEW, RUN, DamagedRunError, asked_of
from dr3_ray.runs.histories import histories_of
from dr3_ray.runs.identity import configuration
from dr3_ray.runs.index import FINAL, Record, lost
from dr3_ray.sweep.search.scores import ENDED, MemberScores
from dr3_ray.sweep.spec.objective import Criterion, as_objectives


class Standing(NamedTuple):
    """A configuration, by the record of its first seed, and what its members are worth."""

    config: dict[str, Any]
    members: list[str]
    """The members, one a seed, the best first."""
    score: float
    """The metric over all seeds; NaN while a seed is missing, and after one was lost."""
    best: float
    """The metric of the best seed."""


def criterion_of(run: Path, objective: str | None) -> Criterion:
    """Return what configurations are judged by: the objective, or else the first one that the run was asked for.

    Raises:
        UserError: no such metric.
    """
    if objective is not None:
        check_known("metric", [objective], JUDGED)
    try:
        return Criterion.model_validate(as_objectives(objective or asked_of(run).get("objective") or {})[0])
    except (ValidationError, IndexError, TypeError):
        raise DamagedRunError(f"{run / RUN} is damaged at spec.objective: {RENEW}") from None


def has(config: Mapping[str, Any], name: str, value: Any) -> bool:
    """Return whether a configuration has this value; a data set may go by its short name.

    Raises:
        UserError: it has no such entry.
    """
    if name not in config:
        raise UserError(f"a configuration has no {name!r}: it has {', '.join(sorted(config))}")
    if name == "dataset" and value == dataset_label(config[name]):
        return True
    return bool(config[name] == (list(value) if isinstance(value, tuple) else value))


def check_comparable(run: Path, configs: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to compare what was trained on different data sets.

    Raises:
        UserError: there are several.
    """
    sources = sorted({str(config["dataset"]) for config in configs})
    if len(sources) > 1:
        raise UserError(
            f"{run} has {len(sources)} data sets, whose scores are not comparable: name one, such as "
            f"dataset={dataset_labels(sources)[sources[0]]}"
        )


def check_scored(run: Path, records: Sequence[Record], metric: str, score: float) -> None:
    """Refuse a best configuration without a score.

    Raises:
        UserError: the best score is NaN.
    """
    if math.isnan(score):
        if not any(record["status"] in ENDED for record in records):
            raise UserError(f"no member of {run} has ended yet: `{resuming(run)}` goes on, or name one by its hash")
        if told := lost(record["status"] for record in records):
            raise UserError(f"no member of {run} has a result ({told}): `dr3-ray status {run}` says why")
        other = ", or give another objective such as td_error" if metric == RETURN else ""
        raise UserError(f"no configuration of {run} has {metric} with all seeds: name a member by its hash{other}")


def rank(run: Path, records: Sequence[Record], criterion: Criterion) -> list[Standing]:
    """Return the configurations of these members, the best first and those without a score last.

    Raises:
        UserError: members have ended, and their histories are lost or damaged.
    """
    histories_of(run, ("member", "step"), any(record["status"] in FINAL for record in records))  # not lost
    scores = MemberScores([criterion], records, run)

    def score(members: Sequence[str]) -> float:
        score = scores.answer(members).scores if scores.ended(members) else None
        return score[criterion.metric] if score else math.nan

    def worse(value: float) -> float:
        return math.inf if math.isnan(value) else -criterion.better(value)

    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(configuration(record["config"]), []).append(record)
    candidates = []
    for group in groups.values():
        members = sorted((record["member"] for record in group), key=lambda member: worse(score([member])))
        candidates.append(Standing(group[0]["config"], members, score(members), score(members[:1])))
    return sorted(candidates, key=lambda candidate: worse(candidate.score))
