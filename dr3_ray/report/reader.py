"""A run directory as two tables: its members and their histories."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dr3_ray.errors import UserError
from dr3_ray.quantities import REPORTED
from dr3_ray.runs.directory import check_run, read_run
from dr3_ray.runs.health import READ, Coadaptation, Flag, Health, health_of
from dr3_ray.runs.histories import histories_of, lacks_rows
from dr3_ray.runs.identity import PARENT
from dr3_ray.runs.index import FINAL, check_members, current, read_index
from dr3_ray.trust.secrets import masked

COEFFICIENT = "dr3_coeff"
SEEM = "seem_eigenvalue"
MEASURED = tuple(dict.fromkeys([*(quantity.name for quantity in REPORTED), "episodes", *READ, SEEM]))
STATUSES = ("finished", "running", "cut", "diverged", "failed", "pending")


@dataclass(frozen=True)
class Run:
    """What a sweep has written so far.

    `info` is `run.json`. `facets` are the axes that separate one set of curves from another: algorithm, data set, and
    every other axis but the coefficient. `members` has one row per member (index: its hash) with the facets,
    `dr3_coeff`, `seed`, `status`, `error`, `fingerprint` of its data, `parent` (which it goes on from, as
    `HASH@UPDATES`, or empty), `last_step` (gradient updates, 0 without a
    history), `health` (its flags as text, empty without one) and the fields of its `Coadaptation`: `coadapting`,
    `settled_at`, `growth`, `q_change`. `histories` has one row per member and evaluation with what there is of
    `MEASURED`, in order of `member`
    and `step`, with the members' columns joined.
    """

    path: Path
    info: dict[str, Any]
    facets: list[str]
    members: pd.DataFrame
    histories: pd.DataFrame
    rolled_out: frozenset[str] = frozenset()
    """Members that are rolled out in an environment."""
    lacking: int = 0
    """Members that have ended without rows up to their end."""
    flags: Mapping[str, list[Flag]] = field(default_factory=dict)
    """What is wrong with members, by member."""

    @property
    def name(self) -> str:
        return str(self.info.get("name") or self.path.resolve().name)

    @property
    def coefficients(self) -> list[float]:
        return sorted(self.members[COEFFICIENT].unique())

    @property
    def unfinished(self) -> int:
        """Members that are still to come or under way."""
        return int(self.members["status"].isin(["pending", "running"]).sum())


def read_tables(run_dir: str | Path, columns: Collection[str] | None = MEASURED) -> Run:
    """Read a run directory, also while the sweep is writing it.

    Args:
        run_dir: Its path.
        columns: What of the measured columns the histories have; None: all.

    Raises:
        UserError: it is not a run directory, or one of its files is damaged.
    """
    path = Path(run_dir)
    info = _read_info(path)
    records = current(read_index(path))
    check_members(path, records)
    facets = list(dict.fromkeys(["algorithm", "dataset", *info.get("axes", [])]))
    facets = [axis for axis in facets if axis not in (COEFFICIENT, "seed")]
    if "steps" not in facets and len({record["config"].get("steps") for record in records}) > 1:
        facets.append("steps")  # while longer members take up shorter ones
    try:
        members = pd.DataFrame([_member(record, facets) for record in records]).set_index("member")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}/index.jsonl has a record that is not a member's ({error!r})") from error
    ended = any(record["status"] in FINAL for record in records)
    table = histories_of(path, columns and ("member", "step", *columns), ended)
    health = health_of(table, records, info.get("rewards", {}))
    histories: pd.DataFrame = table.to_pandas()
    histories = histories[histories["member"].isin(members.index)]
    histories = histories.drop_duplicates(["member", "step"], keep="last").sort_values(["member", "step"])
    reached = histories.groupby("member")["step"].max()
    members["last_step"] = reached.reindex(members.index).fillna(0).astype(int)
    last = reached.to_dict()
    lacking = sum(lacks_rows(record, last) for record in records)
    members = members.sort_values([*facets, COEFFICIENT, "seed"], key=as_numbers)
    rolled_out = frozenset(record["member"] for record in records if record["config"].get("environment"))
    histories = histories.drop(columns=members.columns, errors="ignore")  # which the file has as the index had them
    histories = histories.join(members, on="member").reset_index(drop=True)
    flags = {member: judged.flags for member, judged in health.items()}
    return Run(
        path, info, facets, members.join(_health_columns(members, health)), histories, rolled_out, lacking, flags
    )


def _health_columns(members: pd.DataFrame, health: Mapping[str, Health]) -> pd.DataFrame:
    unknown = Health([], Coadaptation("not measured"))
    healths = [health.get(member, unknown) for member in members.index]
    names = ("coadapting", "settled_at", "growth", "q_change")
    columns = {name: [h.coadaptation[place] for h in healths] for place, name in enumerate(names)}
    return pd.DataFrame({"health": ["; ".join(map(str, h.flags)) for h in healths], **columns}, index=members.index)


def _read_info(path: Path) -> dict[str, Any]:
    check_run(path)
    return read_run(path)


def _member(record: dict[str, Any], facets: list[str]) -> dict[str, Any]:
    config = record["config"]
    if record["status"] not in STATUSES:
        raise ValueError(f"status {record['status']}")
    axes = {axis: masked(as_label(config.get(axis))) for axis in facets}  # keys of runs of version 0.1, or of others
    coefficient, seed = float(config[COEFFICIENT]), int(config["seed"])
    error = masked(" ".join((record.get("error") or "").split()))
    about = {"member": record["member"], "status": record["status"], "error": error}
    row = {**about, **axes, COEFFICIENT: coefficient, "seed": seed, "fingerprint": config.get("data_fingerprint", "")}
    return row | {PARENT: str(config.get(PARENT, ""))}


def as_label(value: Any) -> str:
    """Return a value of an axis as text: lists, such as hidden layers, and missing values could not be grouped by."""
    return value if isinstance(value, str) else "\N{EN DASH}" if value is None else json.dumps(value)


def as_numbers(column: pd.Series) -> pd.Series:
    """Return an axis as numbers where every value is one: 2 then comes before 10."""
    numbers = pd.to_numeric(column, errors="coerce")
    return column if numbers.isna().any() else numbers
