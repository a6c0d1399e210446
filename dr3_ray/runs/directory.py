"""The directory of a run: `run.json`, which says what was asked for."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from dr3_ray.errors import UserError, first_line
from dr3_ray.runs.index import INDEX, brought_again
from dr3_ray.runs.places import PLACE
from dr3_ray.stores import content_of
from dr3_ray.trust.secrets import recall_keys
from dr3_ray.trust.text import printable_json

RUN = "run.json"
STUDIES = "studies.db"  # of a search, unless it names another place
FIELDS = {
    **dict.fromkeys(("name", "id", "created", PLACE), str),
    **dict.fromkeys(("versions", "spec", "pack", "rewards", "parents"), dict),
    **dict.fromkeys(("axes", "command", "history"), list),
    "foreseen": int,
}
ITEMS = {"axes": str, "command": str, "history": dict}
FORMAT = 2
RENEW = "give the whole command of the sweep again, which renews it"


class DamagedRunError(UserError):
    """A `run.json` that cannot be read, while other files of the run directory may be."""


def is_run(path: Path) -> bool:
    """Return whether the directory is a run of ours; False if it is empty or not there.

    Raises:
        UserError: it is something else.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    if not ((path / RUN).is_file() or (path / INDEX).is_file()):
        raise UserError(
            f"{path} exists and is not a run directory: give one that a sweep wrote, or choose another folder, empty "
            "or not there, for a new run"
        )
    return True


def check_run(path: Path) -> None:
    """Check that a run that is to be read lies there.

    Raises:
        UserError: none does.
    """
    if not ((path / RUN).is_file() or (path / INDEX).is_file()):
        raise UserError(f"{path} is not a run directory: give what was --out of a sweep that has begun")


def check_different(runs: Iterable[Path]) -> None:
    """Check that no run is named twice.

    Raises:
        UserError: one is.
    """
    places = [run.resolve() for run in runs]
    if twice := [place for place in places if places.count(place) > 1]:
        raise UserError(f"{twice[0]} is named twice: compare different runs")


def read_run(path: Path) -> dict[str, Any]:
    """Return the document `run.json` of a run directory.

    Raises:
        UserError: it is damaged, or of another format.
    """
    try:
        document = printable_json(content_of(path / RUN))
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
    except (ValueError, FileNotFoundError, RecursionError) as error:
        remedy = brought_again(path) or RENEW
        raise DamagedRunError(f"{path / RUN} is damaged ({first_line(error)}): {remedy}") from None
    version = document.get("format")
    if version != FORMAT:
        raise UserError(
            f"{path / RUN} has format {version!r}, and this version reads {FORMAT}: use the one that wrote it, or "
            "choose another directory"
        )
    check_fields(document, path / RUN)
    return document


def id_of(path: Path) -> str:
    """Return the id of a run, by which its checkpoints are known.

    Raises:
        UserError: as `read_run`, or it is lost.
    """
    own: str | None = read_run(path).get("id")
    if own is None:
        raise DamagedRunError(f"{path / RUN} is damaged at id: {brought_again(path) or RENEW}")
    return own


def check_fields(document: dict[str, Any], file: Path) -> None:
    """Check that the fields of `run.json` that are there are of their types.

    Raises:
        UserError: one is not.
    """
    if (wrong := next(_wrong_fields(document), None)) is not None:
        raise DamagedRunError(f"{file} is damaged at {wrong}: {brought_again(file.parent) or RENEW}")


def _wrong_fields(document: dict[str, Any]) -> Iterator[str]:
    for name, kind in FIELDS.items():
        value = document.get(name)
        items = value if kind is list and isinstance(value, list) else []
        if name in document and (type(value) is not kind or not all(isinstance(item, ITEMS[name]) for item in items)):
            yield name
    for entry in document.get("history", []):
        command = entry.get("command")
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            yield "history"
    if "created" in document and moment(document["created"]) is None:
        yield "created"
    if not PurePosixPath(document.get(PLACE, "/")).is_absolute():
        yield PLACE


def moment(iso: str) -> datetime | None:
    """Return a moment in UTC from how ISO 8601 writes it; None if it is no moment."""
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(iso).astimezone(UTC)
    return None


def asked_of(path: Path) -> dict[str, Any]:
    """Return the document `run.json` as written, with paths that may be elsewhere now.

    Raises:
        UserError: as `read_run`.
    """
    if not is_run(path):
        raise UserError(f"{path} is not a run directory: there is nothing to resume")
    recall_keys(path)
    asked: dict[str, Any] | None = read_run(path).get("spec")
    if asked is None:  # of version 0.1, killed within the moment in which it was made
        raise UserError(f"{path} does not say what was asked for: give the whole command again")
    return asked
