"""Which configuration to take without playing, by which rule, and how good such choices are where returns exist."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dr3_ray.data.loading import load_dataset
from dr3_ray.errors import UserError, check_known, first_line
from dr3_ray.evaluation.contract import Recorded, check_same
from dr3_ray.policies.scoring import OF_NETWORKS, Fitting, Say, Scorer, Sources, read_stacks
from dr3_ray.process.stopping import resuming
from dr3_ray.quantities import RETURN
from dr3_ray.report.diagnosis import check_apart, held_out_of
from dr3_ray.report.ranked import FILE
from dr3_ray.report.reader import COEFFICIENT, Run, read_tables
from dr3_ray.report.selection_judging import (
    CRITERIA,
    Choice,
    Measured,
    choose,
    judge_fit,
    known,
    measure,
    pooled,
    with_ranks,
)
from dr3_ray.report.selection_text import as_text, document
from dr3_ray.runs.brought import run_here
from dr3_ray.runs.checkpoints import packs_kept
from dr3_ray.runs.index import Record, read_index
from dr3_ray.stats import Quality
from dr3_ray.stores import inside, replace_file
from dr3_ray.sweep.directory import spec_of
from dr3_ray.training.process import prepare_training
from dr3_ray.trust.secrets import masked

NAMED = 3  # members that a sentence names


@dataclass(frozen=True)
class Selection:
    """The outcome of `select`. `str` shows it; `candidates` has a row for each member and checkpoint."""

    run: Path
    candidates: pd.DataFrame
    choices: list[Choice]
    measured: list[Measured]
    pooled: dict[str, Quality]
    """Over all tables, with regrets as shares of their range; empty for one table."""
    top: int
    notes: list[str] = field(default_factory=list)
    criteria: Sequence[str] = ()
    written: bool = True
    """Whether `selection.csv` could be written; else a note says why not."""

    def __str__(self) -> str:
        return as_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can have it: NaN and infinities are null."""
        return document(self)


def select(
    run: str | os.PathLike[str],
    criteria: Collection[str] = (),
    fqe_steps: int = 10_000,
    fqe_seeds: int = 2,
    top: int = 3,
    data: str | None = None,
    trust: bool = False,
    say: Say = lambda what, done, of: None,
) -> Selection:
    """Choose among the finished configurations of a run by the data alone, and write `selection.csv` into it.

    Args:
        run: A run directory with checkpoints, or the storage of a run at a URI (brought to `runs/`).
        criteria: Which are measured, the rule first; by default all of `CRITERIA`.
        fqe_steps: Updates of each fitted critic; 0: no fitted critics.
        fqe_seeds: Fitted critics of each policy.
        top: The k of regret@k.
        data: Episodes that were not trained on; by default those of `?split=validation` of a run on `?split=train`.
        trust: Read checkpoints of version 0.1 too, which are pickles: whoever made them can run code here.
        say: Is told of progress.

    Where the file cannot be written, a note says so.

    Raises:
        UserError: not a run, no finished member, no checkpoints, other data than were trained on, or no such criterion.
    """
    path = run_here(run, checkpoints=True)
    file = inside(path, FILE)
    check_known("criterion", criteria, CRITERIA)
    order = list(dict.fromkeys(criteria)) or list(CRITERIA)
    tables = read_tables(path, columns=None)
    members = tables.members[(tables.members["status"] == "finished") & (tables.members["last_step"] > 0)]
    if members.empty:
        raise UserError(
            f"no member of {path} is finished and has rows: there is nothing to choose from yet; what has ended and "
            f"lacks rows gets them by `{resuming(path)}`"
            if tables.lacking
            else f"no member of {path} is finished: there is nothing to choose from yet"
        )
    prepare_training()
    records = [record for record in read_index(path) if record["member"] in members.index]
    lacking = [name for name in order if name not in tables.histories or tables.histories[name].isna().any()]
    numbers, notes = _of_networks(path, records, lacking, Fitting(fqe_steps, fqe_seeds), data, trust, say)
    candidates = _candidates(tables, members, numbers)
    notes = [*_left_out(tables), *_unmeasured(members, numbers), *notes]
    judge_fit(tables, candidates)
    order = with_ranks(candidates, [name for name in order if name == "mean_rank" or known(candidates, name)])
    if not order:
        why = "; ".join(notes) or f"not measured: {', '.join(lacking)}"
        raise UserError(f"no criterion that was named can rank {path} ({why}): name others, or --data OTHER")
    unwritten = _write(file, candidates)
    measured = measure(candidates, order, top)
    several = pooled(measured, top) if len(measured) > 1 else {}
    notes += unwritten
    return Selection(
        path, candidates, choose(candidates, order), measured, several, top, notes, order, written=not unwritten
    )


def _of_networks(
    run: Path,
    records: Sequence[Record],
    order: Sequence[str],
    fitting: Fitting,
    data: str | None,
    trust: bool,
    say: Say,
) -> tuple[dict[tuple[str, int], dict[str, float]], list[str]]:
    """Measure what the histories lack of the networks of the run, on one data set after another."""
    wanted = [name for name in order if name in OF_NETWORKS]
    scores: dict[tuple[str, int], dict[str, float]] = {}
    notes: list[str] = []
    if not wanted:
        return {}, []
    if not packs_kept(spec_of(run).checkpoints) & {str(record["pack"]) for record in records}:
        others = ",".join(name for name in CRITERIA if name not in OF_NETWORKS)
        raise UserError(
            f"{run} has no checkpoints here, which {wanted[0]} needs: sweep with checkpoints, bring them by `dr3-ray "
            f"fetch --checkpoints`, or rank by what the run has, --criteria {others}"
        )
    sources = dict.fromkeys(str(record["config"]["dataset"]) for record in records)
    if data is not None and len(sources) > 1:
        raise UserError(f"{run} has {len(sources)} data sets, and --data names the held-out episodes of one of them")
    for source in sources:
        own = [record for record in records if record["config"]["dataset"] == source]
        given = _open(source, own, data)
        scorer = Scorer(given, wanted, fitting, own[0]["config"], say)
        packs = {str(record["pack"]) for record in own if record["pack"]}
        for stack in read_stacks(run, trust, packs, fitting.seeds):
            scores |= scorer.score(stack)
        notes += scorer.notes
        if given.train.mixing:
            notes.append(f"{source}: fitted critics learn from all parts, and values are those at the target's starts")
    ours = {record["member"] for record in records}
    return {key: values for key, values in scores.items() if key[0] in ours}, list(dict.fromkeys(notes))


def _open(source: str, records: Sequence[Record], data: str | None) -> Sources:
    train = load_dataset(source)
    for record in records:
        known = record["config"]["data_fingerprint"]
        if known not in train.manifest.identities:
            raise UserError(f"{source} holds other data than this sweep was trained on: put them back")
    held_out = held_out_of(source, data)
    there = load_dataset(held_out) if held_out else None
    if there is not None:
        check_same(Recorded.of(train), Recorded.of(there), masked(source))
        if there.spaces != train.spaces:
            raise UserError(f"{held_out} has other tasks than what was trained on: give episodes of the same ones")
        check_apart(train, there, str(held_out))
    gammas = [record["config"]["gamma"] for record in records if record["config"].get("gamma") is not None]
    return Sources(train, there, float(max(gammas, default=train.gamma)))


def _candidates(
    tables: Run, members: pd.DataFrame, numbers: Mapping[tuple[str, int], Mapping[str, float]]
) -> pd.DataFrame:
    """Return a row for each finished member at its end and at each checkpoint that stayed."""
    last = {(str(member), int(step)) for member, step in members["last_step"].items()}
    keys = sorted(last | {key for key in numbers if key[0] in members.index}, key=lambda key: key[1])
    rows = pd.DataFrame(keys, columns=["member", "step"])
    about = members.drop(columns=["error", "fingerprint"])
    rows = rows.join(about, on="member")
    of_networks = pd.DataFrame([dict(numbers.get(key, {})) for key in keys], index=rows.index)
    in_histories = [name for name in (*CRITERIA, RETURN, "episodes") if name in tables.histories]
    measured = [name for name in in_histories if name not in of_networks]
    rows = rows.merge(tables.histories[["member", "step", *measured]], on=["member", "step"], how="left")
    rows = rows.join(of_networks).sort_values([*tables.facets, COEFFICIENT, "step", "seed"], kind="stable")
    if RETURN not in rows:
        rows[RETURN] = np.nan
    several = rows["step"].nunique() > 1
    rows["configuration"] = [
        ", ".join([*(f"{name} {row[name]}" for name in tables.facets[2:]), f"c₀ {row[COEFFICIENT]:g}"])
        + (f" @{row['step']}" if several else "")
        for _, row in rows.iterrows()
    ]
    return rows.set_index("member")


def _write(file: Path, candidates: pd.DataFrame) -> list[str]:
    """Write the file; what was measured, for minutes, is not lost where that cannot be done."""
    try:
        replace_file(file, candidates.reset_index().to_csv(index=False).encode())
    except OSError as error:
        return [f"{file} could not be written: {error.strerror or first_line(error)}"]
    return []


def _unmeasured(members: pd.DataFrame, numbers: Mapping[tuple[str, int], Any]) -> list[str]:
    """Say of how many members no whole checkpoint of their end was there, where checkpoints were measured."""
    gone = [member for member, step in members["last_step"].items() if (str(member), int(step)) not in numbers]
    if not gone or not numbers:
        return []
    return [f"of {len(gone)} members the last checkpoint is not here or damaged: {', '.join(gone[:NAMED])}"]


def _left_out(tables: Run) -> list[str]:
    """Say which members are no candidates."""
    others = tables.members[tables.members["status"] != "finished"]
    lacking = tables.members[(tables.members["status"] == "finished") & (tables.members["last_step"] == 0)]
    rows = (
        [f"{len(lacking)} finished members are no candidates, for want of rows: `{resuming(tables.path)}` brings them"]
        if len(lacking)
        else []
    )
    if others.empty:
        return rows
    counts = ", ".join(f"{count} {status}" for status, count in others["status"].value_counts().items())
    listed = [f"{member} ({row['status']})" for member, row in others.iterrows()]
    more = [f"{len(listed) - NAMED} more"] if len(listed) > NAMED else []
    which = ", ".join([*listed[:NAMED], *more])
    return [*rows, f"{counts} of {len(tables.members)} members are no candidates: {which}"]
