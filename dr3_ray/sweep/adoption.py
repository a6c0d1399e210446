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

    A run that began when fingerprints were of files has its data's old identity, and goes on. One that began when they
    left out spaces, bounds and gamma too does so if nobody can have changed the manifest since the run was `created`
    (ISO 8601); `force` takes the same rows for the same data.

    Raises:
        UserError: the rows are the same, and whether their manifest is cannot be told.
    """
    known = {record["member"] for record in records}
    if not known or planned.keys() <= known:
        return planned
    sources = {config["dataset"] for config in planned.values()}
    identities = {source: load_dataset(source).manifest.identities for source in sources}
    configs, again = {}, set()
    for member, config in planned.items():
        names = [member_id(config | {"data_fingerprint": identity}) for identity in identities[config["dataset"]]]
        name = next((name for name in (member, *names) if name in known), member)
        configs[name] = config
        if name != member and name not in names[:-1]:
            again.add(config["dataset"])
    for source in again if not force else ():
        if created is None or not _described_before(source, datetime.fromisoformat(created).timestamp()):
            raise UserError(
                f"this run began when fingerprints of data left out spaces and gamma, and the manifest of {source} "
                "was written since then: use another --out, or --force if you know that they are the same data"
            )
    return configs


def _described_before(source: str, moment: float) -> bool:
    """Return whether a manifest is unchanged since then, by ctime: a copy may keep the time of its last change."""
    if source.startswith("embedded:"):
        return True
    folder = load_dataset(source).path
    files = [folder / MANIFEST] if is_uri(source) else [folder / MANIFEST, folder]
    return all(file.stat().st_ctime < moment for file in files)
