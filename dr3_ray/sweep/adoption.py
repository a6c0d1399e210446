"""Runs that began when fingerprints of data covered less: whether they go on with the data that lie there now."""

from collections.abc import Iterable
from datetime import datetime

from dr3_ray.data import load_dataset
from dr3_ray.data.schema import MANIFEST
from dr3_ray.errors import UserError
from dr3_ray.runs.identity import member_id
from dr3_ray.runs.index import Record
from dr3_ray.sweep.spec.spec import Config
from dr3_ray.uris import is_uri


def adopted(
    planned: dict[str, Config], records: Iterable[Record], created: str | None, force: bool = False
) -> dict[str, Config]:
    """Return the planned members of a run, by the hashes that they have in it.

    A run that began when fingerprints left out spaces, bounds and gamma has its data's old identity. The same rows are
    the same data if nobody can have changed their manifest since the run was `created` (ISO 8601); `force` takes them
    for the same.

    Raises:
        UserError: the rows are the same, and whether their manifest is cannot be told.
    """
    known = {record["member"] for record in records}
    if not known or planned.keys() <= known:
        return planned
    sources = {config["dataset"] for config in planned.values()}
    fingerprints = {source: load_dataset(source).manifest.old_fingerprint for source in sources}
    found, again = {}, set()
    for member, config in planned.items():
        name = member_id(config | {"data_fingerprint": fingerprints[config["dataset"]]})
        if member not in known and name in known:
            found[name] = config
            again.add(config["dataset"])
        else:
            found[member] = config
    for source in again if not force else ():
        if created is None or not _described_before(source, datetime.fromisoformat(created).timestamp()):
            raise UserError(
                f"this run began when fingerprints of data left out spaces and gamma, and the manifest of {source} "
                "was written since then: use another --out, or --force if you know that they are the same data"
            )
    return found


def _described_before(source: str, moment: float) -> bool:
    """Return whether a manifest is unchanged since then, by ctime: a copy may keep the time of its last change."""
    if source.startswith("embedded:"):
        return True
    folder = load_dataset(source).path
    files = [folder / MANIFEST] if is_uri(source) else [folder / MANIFEST, folder]
    return all(each.stat().st_ctime < moment for each in files)
