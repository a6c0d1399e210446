"""Taking up a sweep again: what it was asked for, whether that still means the same, and its packs as they were."""

import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dr3_ray.errors import UserError
from dr3_ray.sweep.index import FINAL, Index, Record
from dr3_ray.sweep.packing import Pack, pack_name
from dr3_ray.sweep.spec import Config

VERSIONS = ("dr3-ray", "ray", "torch", "numpy", "pyarrow")
NO_PART_OF_TRAINING = ("cli.py", "script.py", "doctor.py", "report", "stats", "sweep", "cluster")


@cache
def versions() -> dict[str, str]:
    """What the numbers of a sweep depend on: packages, Python, and the files of this one that take part in training."""
    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in NO_PART_OF_TRAINING:
            code.update(path.read_bytes())
    found = {name: version(name) for name in VERSIONS}
    return found | {"python": sys.version.split()[0], "code": code.hexdigest()[:12]}


def refuse_changes(run: Path, document: dict[str, Any], planned: dict[str, Config], index: Index) -> None:
    """UserError: what is missing would be trained by other code or on other data than what this run has already."""
    begun = [record for record in index.records.values() if record["pack"]]
    if not begun or all(index.status(member) in FINAL for member in planned):
        return
    force = "use another --out, or --force to have both in one run"
    then, now = document["versions"], versions()
    if changed := [f"{name} {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]:
        raise UserError(f"{run} was begun with other versions ({'; '.join(changed)}): {force}")
    was, is_ = _fingerprints(record["config"] for record in begun), _fingerprints(planned.values())
    for dataset in was.keys() & is_.keys():
        if not is_[dataset] <= was[dataset]:
            before, after = ("/".join(sorted(each[:12] for each in one[dataset])) for one in (was, is_))
            raise UserError(f"{run} was begun on other data ({dataset} had fingerprint {before}, has {after}): {force}")


def begun_packs(missing: dict[str, Config], records: dict[str, Record]) -> tuple[list[Pack], dict[str, Config]]:
    """The packs that were begun and not finished, composed as they were; and the missing members that are in none.

    A checkpoint belongs to a pack: it is of use only if the same members come together again, including those that
    diverged meanwhile.
    """
    packs: dict[str, dict[str, Config]] = {}
    for member, record in records.items():
        if record["pack"]:
            packs.setdefault(record["pack"], {})[member] = missing.get(member) or record["config"]
    again = [
        Pack(name, members)
        for name, members in packs.items()
        if name == pack_name(members)
        and not members.keys().isdisjoint(missing)
        and all(member in missing or records[member]["status"] in FINAL for member in members)
    ]
    taken = {member for pack in again for member in pack.members}
    return again, {member: config for member, config in missing.items() if member not in taken}


def _fingerprints(configs: Iterable[Config]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for config in configs:
        found.setdefault(config["dataset"], set()).add(config["data_fingerprint"])
    return found
