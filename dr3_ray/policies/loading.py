"""A trained policy of a run, by what its configuration is or by what it is worth; or of a checkpoint."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dr3_ray.errors import UserError
from dr3_ray.policies.policy import Policy
from dr3_ray.policies.ranking import check_comparable, check_scored, criterion_of, has, rank
from dr3_ray.process.stopping import resuming
from dr3_ray.runs.brought import run_here
from dr3_ray.runs.checkpoints import packs_kept
from dr3_ray.runs.directory import RUN
from dr3_ray.runs.index import FINAL, Record, brought_again, check_members, current, read_index
from dr3_ray.sweep.directory import spec_of
from dr3_ray.sweep.trained import kept_networks, last_networks
from dr3_ray.training.saved import PLACE, Trained, read_networks

BEST = "best"
Which = str | int | Mapping[str, Any]


class Found(NamedTuple):
    """A trained member among those that were read with it."""

    trained: Trained
    row: int
    config: dict[str, Any]
    """Its full configuration; of a bare checkpoint its options."""
    chosen: str = ""
    """How it was chosen among others, in a sentence."""
    member: str | None = None
    """Its hash, where it is one of a run."""


def load_policy(
    source: str | os.PathLike[str], member: Which = BEST, objective: str | None = None, trust: bool = False
) -> Policy:
    """Load the trained policy of a member, on the CPU.

    Args:
        source: A run directory, the storage of a run at a URI (brought to `runs/`), or the directory of a checkpoint.
        member: `"best"`, a hash or how it begins, values of the configuration such as `{"dr3_coeff": 0.03, "seed": 1}`,
            or a place in a checkpoint, from 0 on. With values that several members have: the best of these. `HASH@N`
            is the member after N updates, where that checkpoint stayed.
        objective: What `"best"` means; by default what the run was judged by. The configuration with the best score
            over its seeds is taken, and of its seeds the best.
        trust: Read checkpoints of version 0.1 too, which are pickles: whoever made them can run code here.

    Raises:
        UserError: no such member, nothing by which to choose, no checkpoint, or one that is damaged.
    """
    trained, row, config, chosen, _ = find_member(source, member, objective, trust)
    return Policy(trained, row, config, chosen)


def find_member(
    source: str | os.PathLike[str], member: Which = BEST, objective: str | None = None, trust: bool = False
) -> Found:
    """Read the trained networks of a member, with the arguments of `load_policy`.

    Raises:
        UserError: as `load_policy`, whatever the algorithm is.
    """
    path = run_here(source, checkpoints=True)
    is_checkpoint = (path / PLACE).is_dir()
    if objective is not None and (is_checkpoint or (isinstance(member, str | int) and member != BEST)):
        raise UserError(
            f"objective {objective!r} says which of several members is best, and one is named: leave it out"
        )
    if is_checkpoint:
        trained = read_networks(path)
        row = _row(trained, member, path)
        return Found(trained, row, trained.members[row])
    if not (path / RUN).is_file():
        raise UserError(f"{path} is neither a run directory nor a checkpoint: give the directory that a sweep wrote")
    member, updates = _at(member)
    record, chosen = _chosen(path, member, objective)
    which = f"member {record['member']} of {path} ({record['status']})"
    if record["pack"] not in packs_kept(spec_of(path).checkpoints):
        raise UserError(
            f"{which} has no checkpoint here: sweep with checkpoints, bring them by `dr3-ray fetch --checkpoints`, or "
            "choose a member that was trained"
        )
    if updates is not None:
        return _found_at(path, record, updates, chosen, trust)
    for last in last_networks(path, trust, packs=[record["pack"]]):
        if record["member"] in last.members:
            row = last.members.index(record["member"])
            told = chosen + _earlier(record, last.updates)
            return Found(last.trained, row, {**last.trained.members[row], **record["config"]}, told, record["member"])
    raise UserError(f"{which} has only damaged checkpoints: {brought_again(path) or _trained_again(path, record)}")


def _trained_again(path: Path, record: Record) -> str:
    """Say what trains a member again whose checkpoints are damaged: a sweep leaves what has ended as it is."""
    if record["status"] in FINAL:
        return "choose another one, or train it again in another --out, for a sweep leaves what has ended as it is"
    return f"`{resuming(path)}` trains it again from its start"


def _earlier(record: Record, updates: int) -> str:
    """Say that a checkpoint is not of the end of a member's training, if it is not."""
    end = record.get("end") or 0
    if updates >= end:
        return ""
    return f"; after {updates:,} of {end:,} updates, for no later checkpoint is here and whole"


def _at(member: Which) -> tuple[Which, int | None]:
    """Return a member, and after how many updates it is meant; None: at its end."""
    if not isinstance(member, str) or "@" not in member:
        return member, None
    name, _, updates = member.partition("@")
    if not updates.isdecimal() or not name:
        raise UserError(f"member {member!r} is not of the form HASH@UPDATES, as in 1a2b3c@20000")
    return name, int(updates)


def _found_at(run: Path, record: Record, updates: int, chosen: str, trust: bool) -> Found:
    """Return a member as it was after so many updates."""
    packs, member = [record["pack"]], record["member"]
    for kept in kept_networks(run, trust, packs, updates):
        if member in kept.members:
            row = kept.members.index(member)
            told = f"{chosen}, after {updates:,} updates"
            return Found(kept.trained, row, {**kept.trained.members[row], **record["config"]}, told, member)
    there = ", ".join(str(kept.updates) for kept in kept_networks(run, trust, packs) if member in kept.members)
    raise UserError(
        f"member {member} of {run} has no checkpoint after {updates} updates: there are {there or 'none'}; "
        "`--checkpoints keep=N` of a sweep keeps more"
    )


def _chosen(run: Path, member: Which, objective: str | None) -> tuple[Record, str]:
    """Return the record of the wanted member, and how it was chosen."""
    records = read_index(run)
    check_members(run, records)
    if any("dataset" not in record["config"] for record in records):
        raise UserError(f"{run}/index.jsonl has a record that is not a member's (no dataset): bring another copy of it")
    if not isinstance(member, str | int | Mapping):
        raise UserError(f"member {member!r} is no hash, place or mapping of values: give one of these")
    if isinstance(member, int):
        raise UserError(f"{run} is a run, whose members have no places: give a hash or values of the configuration")
    if isinstance(member, str) and member != BEST:
        matching = [record for record in records if record["member"].startswith(member)]
        if len(matching) != 1:
            raise UserError(
                f"{len(matching)} members of {run} have a hash that begins with {member!r}: see `dr3-ray report`"
            )
        return matching[0], f"named by its hash {matching[0]['member']}"
    values = {} if isinstance(member, str) else dict(member)
    matching = [record for record in current(records) if all(has(record["config"], *item) for item in values.items())]
    if not matching:
        raise UserError(f"no member of {run} has {_told(values)}: see `dr3-ray report {run}`")
    if objective is not None:
        criterion_of(run, objective)  # of a name that means nothing, whatever is chosen
    if len(matching) == 1:
        return matching[0], f"the only member with {_told(values)}" if values else "the only member"
    return _best(run, matching, objective, values)


def _best(run: Path, records: Sequence[Record], objective: str | None, values: dict[str, Any]) -> tuple[Record, str]:
    """Return the best seed of the best configuration."""
    check_comparable(run, [record["config"] for record in records])
    criterion = criterion_of(run, objective)
    ranked = rank(run, records, criterion)
    best = ranked[0]
    check_scored(run, records, criterion.metric, best.score)
    among = f" with {_told(values)}" if values else ""
    seeds = len(best.members)
    by_seeds = f"{seeds} seeds, and of its seeds the best" if seeds > 1 else "its one seed"
    chosen = (
        f"of {len(ranked)} configurations{among} the one with the best {criterion.metric} over {by_seeds}: "
        f"{best.best:.4g}"
    )
    return next(record for record in records if record["member"] == best.members[0]), chosen


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items()) or "these values"


def _row(trained: Trained, member: Which, checkpoint: Path) -> int:
    """Return the place of the wanted member in a checkpoint."""
    count = len(trained.members)
    if isinstance(member, int):
        if not 0 <= member < count:
            raise UserError(f"{checkpoint} has {count} members, from 0 to {count - 1}: there is no {member}")
        return member
    values = dict(member) if isinstance(member, Mapping) else {}
    if isinstance(member, str) and member != BEST:
        raise UserError(f"{checkpoint} knows no hashes: give a place from 0 to {count - 1}, or values")
    rows = [row for row, config in enumerate(trained.members) if all(has(config, *item) for item in values.items())]
    if len(rows) != 1:
        raise UserError(
            f"{len(rows)} of the {count} members of {checkpoint} have {_told(values)}: give a place from 0 to "
            f"{count - 1}, or more values"
        )
    return rows[0]
