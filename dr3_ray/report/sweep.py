"""A sweep in Python: its tables, its best configuration, its pictures and its policies."""

import os
from collections.abc import Collection, Iterator
from functools import cached_property
from html import escape
from typing import Any, NamedTuple

import pandas as pd

from dr3_ray.diagnostics.diagnosis import Diagnosis
from dr3_ray.errors import UserError, check_known
from dr3_ray.policies.loading import BEST, Which, load_policy
from dr3_ray.policies.policy import Policy
from dr3_ray.policies.ranking import check_comparable, check_scored, criterion_of, has, rank
from dr3_ray.quantities import CATALOGUE
from dr3_ray.report import tables
from dr3_ray.report.diagnosis import diagnose_member
from dr3_ray.report.figures import Pictures, draw_curves
from dr3_ray.report.html import Report, file_name, rows_of_facet, write_report
from dr3_ray.report.judging import document, judge_tables
from dr3_ray.report.lines import palette
from dr3_ray.report.reader import COEFFICIENT, as_label, as_numbers, read_tables
from dr3_ray.report.selection import Selection, select
from dr3_ray.runs.brought import run_here
from dr3_ray.runs.health import Flag
from dr3_ray.runs.index import Record, current, read_index


class Configuration(NamedTuple):
    """What was tried, and what it is worth over its seeds."""

    values: dict[str, Any]
    """Of the axes of the sweep."""
    objective: str
    score: float
    """The objective over all seeds; NaN while a seed is missing, and after one was lost."""
    members: list[str]
    """The hashes of its members, the best first."""


class Sweep:
    """What a sweep has written so far.

    `members` has a row for each member (index: its hash): algorithm, data set, axes, `dr3_coeff`, `seed`, `status`,
    `error`, `last_step`, `health` and what co-adaptation is told from. `histories` has a row for each member and
    evaluation: the member's columns, `step`, and every quantity that was measured (docs/development/quantities.md).
    Both are pandas DataFrames, as they were when this was made. An axis has numbers where all its values are; lists are
    JSON text.
    """

    def __init__(self, run: str | os.PathLike[str], interrupted: bool = False) -> None:
        """Read a run directory.

        Raises:
            UserError: it is not a run directory, or one of its files is damaged.
        """
        path = run_here(run)
        self._given, self._run = run, read_tables(path, columns=None)
        self.path, self.interrupted = path, interrupted
        self.members, self.histories = (
            table.assign(**{axis: as_numbers(table[axis]) for axis in self._run.facets[2:]})
            for table in (self._run.members, self._run.histories)
        )

    @property
    def statuses(self) -> dict[str, int]:
        """How many members are finished, running, cut, diverged, failed, pending."""
        return {str(status): int(count) for status, count in self.members["status"].value_counts().items()}

    @cached_property
    def summary(self) -> pd.DataFrame:
        """The report's table: a row for each setting, with interquartile means and intervals over its seeds."""
        return tables.summarize(self._run)

    @property
    def verdict(self) -> dict[str, list[str]]:
        """What the report says of each table, by its heading: which c₀ to take, and whether DR3 helps."""
        judged = judge_tables(self._run, self.summary, self._outcomes)
        return {table.heading: table.verdict.sentences for table in judged}

    @property
    def flags(self) -> dict[str, list[Flag]]:
        """What is wrong with members, by their hash; those that are well are not there."""
        return {member: flags for member, flags in self._run.flags.items() if flags}

    def document(self) -> dict[str, Any]:
        """Return all verdicts with their numbers, as `dr3-ray report --json` prints them."""
        return document(self._run, self.summary, self._outcomes)

    def ranking(self, objective: str | None = None, **values: Any) -> list[Configuration]:
        """Return all configurations, the best first and those without a score last.

        Args:
            objective: A metric; by default the first that the sweep was asked for, else the return.
            **values: Of configurations, for some of them only: `dataset="breakout-replay"`.

        Raises:
            UserError: no such metric, or no member has these values.
        """
        criterion = criterion_of(self.path, objective)
        axes = (*self._run.facets, COEFFICIENT)
        return [
            Configuration(
                {axis: ranked.config.get(axis) for axis in axes}, criterion.metric, ranked.score, ranked.members
            )
            for ranked in rank(self.path, self._records(values), criterion)
        ]

    def best(self, objective: str | None = None, **values: Any) -> Configuration:
        """Return the configuration with the best score over its seeds.

        It was chosen for being high: what to expect of new seeds is in the verdict.

        Args:
            objective: A metric; by default the first that the sweep was asked for, else the return.
            **values: Of configurations, for some of them only: `dataset="breakout-replay"`.

        Raises:
            UserError: no such metric, no configuration has it with all seeds, or scores are of several data sets.
        """
        ranking = self.ranking(objective, **values)
        check_comparable(self.path, [ranked.values for ranked in ranking])
        check_scored(self.path, self._records(values), ranking[0].objective, ranking[0].score)
        return ranking[0]

    def policy(self, member: Which = BEST, objective: str | None = None, trust: bool = False) -> Policy:
        """Load a trained policy; see `dr3_ray.load_policy`.

        Raises:
            UserError: no such member, no checkpoint, or one that is damaged.
        """
        return load_policy(self._given, member, objective, trust)

    def diagnose(
        self, member: Which = BEST, data: str | None = None, objective: str | None = None, trust: bool = False
    ) -> Diagnosis:
        """Measure a trained critic and say what is wrong with it, as `dr3-ray diagnose` does.

        Args:
            member: As in `policy`, with `objective` and `trust`.
            data: Episodes that it was not trained on; by default those of `?split=validation` of a run on
                `?split=train`.
            objective: What `"best"` means.
            trust: Read checkpoints of version 0.1 too.

        Raises:
            UserError: as `policy`; no critic, no data, or data of other spaces or of the same episodes.
        """
        return diagnose_member(self._given, data, member, objective, trust)

    def select(
        self,
        criteria: Collection[str] = (),
        fqe_steps: int = 10_000,
        fqe_seeds: int = 2,
        top: int = 3,
        data: str | None = None,
        trust: bool = False,
    ) -> Selection:
        """Choose a configuration by the data alone, as `dr3-ray select` does, and write `selection.csv` into the run.

        Args:
            criteria: What to rank by, the rule first; by default all of `dr3_ray.report.selection_judging.CRITERIA`.
            fqe_steps: Updates of each fitted critic; 0: no fitted critics.
            fqe_seeds: Fitted critics of each policy.
            top: The k of regret@k.
            data: Episodes that were not trained on; by default those of `?split=validation` of a run on
                `?split=train`.
            trust: Read checkpoints of version 0.1 too.

        Raises:
            UserError: no finished member, no checkpoints, other data than were trained on, or no such criterion.
        """
        return select(self._given, criteria, fqe_steps, fqe_seeds, top, data, trust)

    def plot(self, quantity: str, **values: Any) -> Pictures:
        """Draw a quantity against gradient updates, for each algorithm on each data set and every further axis.

        A notebook shows the result; `[0].save("dot_product.png")` writes the first picture.

        Args:
            quantity: A column of the histories, such as `"dot_product"`.
            **values: Of axes, for some of the pictures only: `algorithm="DR3-CQL"`, `hidden_sizes=[256, 256]`.

        Raises:
            UserError: nothing of this name was measured, or no member has these values.
        """
        measured = [name for name in self.histories.columns if name in CATALOGUE and name != "step"]
        check_known("measured quantity", [quantity], measured)
        check_known("axis", list(values), self._run.facets)
        members = [record["member"] for record in self._records(values)]
        summary = self.summary.merge(self._run.members.loc[members, self._run.facets].drop_duplicates())
        colours = palette(self._run.coefficients)
        pictures = Pictures()
        for heading, rows, outcomes in self._facets(summary):
            histories = rows_of_facet(self._run, rows, self._run.histories)
            pictures += draw_curves(file_name(heading), CATALOGUE[quantity], histories, outcomes, colours)
        if not pictures:
            raise UserError(f"no member of {self.path} that can be drawn has measured {quantity}")
        return pictures

    def report(self) -> Report:
        """Write the report and return where it is.

        Raises:
            UserError: it cannot be written.
        """
        return write_report(self.path)

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C or SIGTERM, 1 if members failed, else 0."""
        return 130 if self.interrupted else 1 if self.statuses.get("failed") else 0

    def _records(self, values: dict[str, Any]) -> list[Record]:
        records = current(read_index(self.path))
        for name, value in values.items():
            known = dict.fromkeys(as_label(record["config"].get(name)) for record in records)
            records = [record for record in records if has(record["config"], name, value)]
            if not records:
                raise UserError(f"no member of {self.path} has {name}={value!r}: there are {', '.join(known)}")
        return records

    @cached_property
    def _outcomes(self) -> pd.DataFrame:
        return tables.outcomes(self._run)

    def _facets(self, summary: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
        for heading, rows in tables.facets_of(self._run, summary):
            yield heading, rows, rows_of_facet(self._run, rows, self._outcomes)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        return f"Sweep({str(self.path)!r}: {counts})"

    def _repr_html_(self) -> str:
        said = [f"<h4>{escape(heading)}</h4><p>{escape(' '.join(told))}</p>" for heading, told in self.verdict.items()]
        return f"<p>{escape(repr(self))}</p>{''.join(said)}{self.summary._repr_html_()}"


def load_run(run: str | os.PathLike[str]) -> Sweep:
    """Open a run directory, also while its sweep is running, or the storage of a run at a URI, brought to `runs/`.

    Raises:
        UserError: it is not a run directory, or one of its files is damaged.
    """
    return Sweep(run)
