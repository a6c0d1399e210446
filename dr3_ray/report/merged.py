"""Several runs as one, so that tables, verdicts and the page compare them: runs on the same data stand in one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dr3_ray.report.reader import Run, read_tables
from dr3_ray.runs.directory import check_different

RUN = "run"  # the axis that tells runs apart
NOTHING = "\N{EN DASH}"  # the value of an axis that a run does not have


def read_merged(paths: Sequence[str | Path]) -> Run:
    """Read run directories as one run with the further axis `run`; what runs share is told by the data's fingerprints.

    Raises:
        UserError: one of them is not a run directory or is damaged, or the same is named twice.
    """
    check_different(map(Path, paths))
    runs = [read_tables(path) for path in paths]
    labels = _labels(runs)
    axes = list(dict.fromkeys([RUN, *(axis for run in runs for axis in run.facets[2:])]))
    names: dict[tuple[str, str], str] = {}
    named = list(zip(runs, labels, strict=True))
    members = pd.concat([_labelled(run.members, label, axes, names, run) for run, label in named])
    histories = pd.concat(
        [_labelled(run.histories, label, axes, names, run) for run, label in named], ignore_index=True
    )
    return Run(
        path=runs[0].path,
        info=_info(runs, labels),
        facets=["algorithm", "dataset", *axes],
        members=members,
        histories=histories,
        rolled_out=frozenset(f"{label}/{member}" for run, label in named for member in run.rolled_out),
        lacking=sum(run.lacking for run in runs),
        flags={f"{label}/{member}": own for run, label in named for member, own in run.flags.items()},
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return the names of runs, or their paths where names repeat."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _labelled(
    table: pd.DataFrame, label: str, axes: Sequence[str], names: dict[tuple[str, str], str], run: Run
) -> pd.DataFrame:
    """Return members or histories with all axes, names of members that no other run has, and equal data named alike."""
    own = {axis: NOTHING for axis in axes if axis not in run.facets} | {RUN: label}
    data = zip(table["dataset"], table["fingerprint"], strict=True)
    table = table.assign(**own, dataset=[_dataset(*frame, names) for frame in data])
    if "member" in table:
        return table.assign(member=f"{label}/" + table["member"])
    return table.set_index(f"{label}/" + table.index).rename_axis("member")


def _dataset(source: str, fingerprint: str, names: dict[tuple[str, str], str]) -> str:
    """Return one name for data of one fingerprint, and another one for other data of the same name."""
    same = [name for (_, known), name in names.items() if fingerprint and known == fingerprint]
    new = f"{source}#{fingerprint[:8] or 'unknown'}" if source in names.values() else source
    return names.setdefault((source, fingerprint), same[0] if same else new)


def _info(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, Any]:
    """Return what a page says of runs: all of their commands, and each one's specification."""
    infos = [run.info for run in runs]
    history = [entry for info in infos for entry in info.get("history") or [{"command": info.get("command", [])}]]
    created = [info["created"] for info in infos if info.get("created")]
    versions: dict[str, str] = {}
    for info in infos:
        for name, version in info.get("versions", {}).items():
            known = versions.setdefault(name, version)
            versions[name] = known if version in known.split(", ") else f"{known}, {version}"
    return {
        "name": ", ".join(labels),
        "history": history,
        "versions": versions,
        "spec": {label: info.get("spec", {}) for label, info in zip(labels, infos, strict=True)},
    } | ({"created": min(created)} if created else {})
