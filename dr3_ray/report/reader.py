"""A run directory as two tables: its members and their histories."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
import pyarrow as pa

from dr3_ray.errors import UserError, first_line
from dr3_ray.sweep.directory import FORMAT
from dr3_ray.sweep.histories import read_histories
from dr3_ray.sweep.index import read_index

COEFFICIENT = "dr3_coeff"
MEASURED = ("episode_return_mean", "dot_product", "effective_rank", "q_mean", "cosine")
STATUSES = ("finished", "running", "cut", "diverged", "failed", "pending")


@dataclass(frozen=True)
class Run:
    """What a sweep has written so far.

    `info` is `run.json`. `facets` are the axes that separate one set of curves from another: algorithm, data set, and
    every other axis but the coefficient. `members` has one row per member (index: its hash) with the facets,
    `dr3_coeff`, `seed`, `status`, `error`, `fingerprint` of its data, and `last_step` (gradient updates, 0 without a
    history). `histories` has one row per member and evaluation with what there is of `MEASURED`, in order of `member`
    and `step`, with the members' columns joined.
    """

    path: Path
    info: dict[str, Any]
    facets: list[str]
    members: pd.DataFrame
    histories: pd.DataFrame

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


def load_run(run_dir: str | Path) -> Run:
    """Read a run directory, also while the sweep is writing it.

    Raises:
        UserError: it is not a run directory, or one of its files is damaged.
    """
    path = Path(run_dir)
    info = _read_info(path)
    records = read_index(path)
    if not records:
        raise UserError(f"{path} has no member in its index.jsonl: no sweep got as far as starting there, run it again")
    facets = list(dict.fromkeys(["algorithm", "dataset", *info.get("axes", [])]))
    facets = [axis for axis in facets if axis not in (COEFFICIENT, "seed")]
    try:
        members = pd.DataFrame([_member(record, facets) for record in records]).set_index("member")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}/index.jsonl has a record that is not a member's ({error!r})") from error
    histories = _read_histories(path)
    histories = histories[histories["member"].isin(members.index)]
    histories = histories.drop_duplicates(["member", "step"], keep="last").sort_values(["member", "step"])
    members["last_step"] = histories.groupby("member")["step"].max().reindex(members.index).fillna(0).astype(int)
    members = members.sort_values([*facets, COEFFICIENT, "seed"], key=_numbers_in_order)
    return Run(path, info, facets, members, histories.join(members, on="member").reset_index(drop=True))


def dataset_label(dataset: str) -> str:
    """Short name of a data set for headings: without its directory or scheme."""
    return PurePath(dataset.partition("?")[0].rpartition(":")[2]).name or dataset


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads((path / "run.json").read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} is not a run directory (no run.json): give the directory a sweep wrote") from error
    except ValueError as error:
        raise UserError(f"{path}/run.json is damaged ({error}): run the sweep's command again to renew it") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        found = info.get("format") if isinstance(info, dict) else None
        raise UserError(f"{path}/run.json has format {found!r}, this version reads {FORMAT}: use the one that wrote it")
    return info


def _member(record: dict[str, Any], facets: list[str]) -> dict[str, Any]:
    config = record["config"]
    if record["status"] not in STATUSES:
        raise ValueError(f"status {record['status']}")
    axes = {axis: _label(config.get(axis)) for axis in facets}
    coefficient, seed = float(config[COEFFICIENT]), int(config["seed"])
    error = " ".join((record.get("error") or "").split())
    about = {"member": record["member"], "status": record["status"], "error": error}
    return {**about, **axes, COEFFICIENT: coefficient, "seed": seed, "fingerprint": config.get("data_fingerprint", "")}


def _label(value: Any) -> str:
    """Axes become text: lists, such as hidden layers, and missing values could not be grouped by."""
    return value if isinstance(value, str) else "\N{EN DASH}" if value is None else json.dumps(value)


def _numbers_in_order(column: pd.Series) -> pd.Series:
    """Sort key: 2 before 10 where every value of an axis is a number."""
    numbers = pd.to_numeric(column, errors="coerce")
    return column if numbers.isna().any() else numbers


def _read_histories(path: Path) -> pd.DataFrame:
    """All rows; none at all while no member was evaluated."""
    file = path / "histories.parquet"
    if not file.exists():
        return pd.DataFrame({"member": pd.Series(dtype=str), "step": pd.Series(dtype="int64")})
    try:
        histories: pd.DataFrame = read_histories(path, ("member", "step", *MEASURED)).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        reason = first_line(error)
        raise UserError(f"{file} is damaged ({reason}): move it away and run the sweep's command again") from error
    if missing := {"member", "step"} - set(histories.columns):
        raise UserError(f"{file} lacks the column {', '.join(sorted(missing))}: it was not written by a sweep")
    return histories
