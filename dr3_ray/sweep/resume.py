"""Taking up a sweep again: what it was asked for, whether that still means the same, and its packs as they were."""

import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dr3_ray.errors import UserError, first_line
from dr3_ray.runs.checkpoints import packs_kept
from dr3_ray.runs.index import FINAL, Index, Record
from dr3_ray.runs.places import placed
from dr3_ray.stores import same_place
from dr3_ray.sweep.spec.spec import Config, SweepSpec

VERSIONS = ("dr3-ray", "ray", "torch", "numpy", "pyarrow")
PLAYED = "with rollouts of {} in {}, not in {}"  # returns in two environments do not compare
NO_PART_OF_TRAINING = (
    "cli",
    "report",
    "stats",
    "sweep",
    "runs",
    "evolution",
    "cluster",
    "process",
    "trust",
    "policies",
)


@cache
def versions() -> dict[str, str]:
    """Return the versions that numbers of a sweep depend on: packages, Python, and our files that train."""
    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in NO_PART_OF_TRAINING:
            code.update(path.read_bytes())
    installed = {name: version(name) for name in VERSIONS}
    return installed | {"python": sys.version.split()[0], "code": code.hexdigest()[:12]}


def refuse_changes(run: Path, document: dict[str, Any], planned: dict[str, Config], index: Index) -> None:
    """Check that missing members would be trained by the code and on the data of the run so far.

    Raises:
        UserError: they would be trained by other code or on other data.
    """
    begun = [record for record in index.records.values() if record["pack"]]
    if not begun or all(index.status(member) in FINAL for member in planned):
        return
    force = "use another --out, or --force to have both in one run"
    then, now = document.get("versions"), versions()
    then = now if then is None else then  # nobody knows: `run.json` was lost
    if changed := [f"{name} {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]:
        raise UserError(f"{run} was begun with other versions ({'; '.join(changed)}): {force}")
    for field, what in (("data_fingerprint", "on other data ({} had fingerprint {}, has {})"), ("environment", PLAYED)):
        same = [config for member, config in planned.items() if member in index.records]
        was = _by_dataset([*(record["config"] for record in begun), *same], field)
        is_ = _by_dataset((config for member, config in planned.items() if member not in index.records), field)
        for dataset in was.keys() & is_.keys():
            if was[dataset] and not is_[dataset] <= was[dataset]:
                before, after = ("/".join(sorted(value[dataset])) for value in (was, is_))
                raise UserError(f"{run} was begun {what.format(dataset, before, after)}: {force}")


def refuse_elsewhere(spec: SweepSpec, document: dict[str, Any], index: Index) -> None:
    """Check that the storage has the checkpoints of begun packs.

    Raises:
        UserError: packs would begin again, because their checkpoints are where the run kept them before.
    """
    asked = document.get("spec")
    if asked is None:
        return
    try:
        before = placed(asked, document, spec.out).get("storage") or str(spec.out)
    except UserError:  # nobody knows where
        return
    if not same_place(before, spec.checkpoints) and (lost := unseen_packs(spec, index.records.values())):
        raise UserError(
            f"{spec.out} kept its checkpoints in {before}, and {spec.checkpoints} has none of {', '.join(lost[:3])}: "
            f"give --storage {before}, or --force to train {len(lost)} packs from their start"
        )


def unseen_packs(spec: SweepSpec, records: Iterable[Record]) -> list[str]:
    """Return the packs that were begun, are not over, and lack a checkpoint in the sweep's storage."""
    begun = {str(record["pack"]) for record in records if record["pack"] and record["status"] not in FINAL}
    if not begun or spec.checkpoint_every == 0:
        return []
    return sorted(begun - packs_in(spec.checkpoints))


def packs_in(storage: str) -> set[str]:
    """Return the packs that have a checkpoint in a storage.

    Raises:
        UserError: it cannot be used.
    """
    try:
        return packs_kept(storage)
    except (OSError, ValueError) as error:
        raise UserError(f"storage {storage} cannot be used: {first_line(error)}") from error


def _by_dataset(configs: Iterable[Config], field: str) -> dict[str, set[str]]:
    """Return the values of a field on each data set, shortened; without members that lack it."""
    rewards: dict[str, set[str]] = {}
    for config in configs:
        if config[field] is not None:
            value = config[field][:12] if field == "data_fingerprint" else config[field]
            rewards.setdefault(config["dataset"], set()).add(value)
    return rewards
