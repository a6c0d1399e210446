"""The paths in `run.json`: absolute, and those in the run directory follow it wherever it is moved."""

from pathlib import Path, PurePath
from typing import Any

from dr3_ray.errors import UserError
from dr3_ray.trust.secrets import NAMES
from dr3_ray.uris import absolute, is_local, is_uri, local_path, resolved, spelled_out

PLACE = "place"  # in run.json: where the run directory was when its paths were written


def placed(asked: dict[str, Any], document: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return the request in `run.json`, with its paths as they are now that the run directory is `run`.

    Version 0.1 wrote paths as they were typed. They are taken from the folder in which the sweep was started, which
    the run directory tells unless it was moved.

    Raises:
        UserError: what such a path means is not known any more, or nothing is there.
    """
    here = run.resolve()
    if (place := document.get(PLACE)) is not None:
        if place == str(here) or _is_kept_at(asked, here):
            return asked
        return {name: _moved(value, place, str(here)) for name, value in asked.items()}
    paths = dict(asked)
    if isinstance(storage := asked.get("storage"), str):
        paths["storage"] = _from_start(storage, "storage", asked, run)
    search = asked.get("search")
    if search and isinstance(search.get("study"), str):
        paths["search"] = search | {"study": _from_start(search["study"], "study", asked, run)}
    return paths


def absolute_study(study: str) -> str:
    """Return a study's URL or journal file that means the same in every folder: SQLite takes paths, too.

    Raises:
        UserError: it is no database and no path, or a database that ends with this process.
    """
    study = spelled_out(study)
    if not study.strip():
        raise UserError("an empty name is no study: give the URL of a database, or a journal's path")
    head, slashes, path = study.partition(":///")
    scheme = study.partition("://")[0].partition("+")[0].lower() if "://" in study else ""
    if is_uri(study) and is_local(study):
        return str(local_path(study))
    if scheme and scheme not in (*NAMES, "sqlite"):
        raise UserError(f"{study} is no database: give sqlite:///FILE, postgresql://…, mysql://…, or a journal's path")
    if not head.startswith("sqlite"):
        return absolute(study)
    path, mark, options = path.partition("?")
    if not slashes or path in ("", "/") or ":memory:" in path or "mode=memory" in options:
        raise UserError(f"{study} is a database in memory, which would end with this process: give sqlite:///FILE")
    if path.startswith("file:"):
        return study
    return f"{head}:///{resolved(path)}{mark}{options}"


def _is_kept_at(asked: dict[str, Any], here: Path) -> bool:
    """Return whether the directory is the storage in which the run kept a copy, rather than its moved own one."""
    return isinstance(storage := asked.get("storage"), str) and absolute(storage) == str(here)


def _moved(value: Any, place: str, here: str) -> Any:
    if isinstance(value, dict):
        return {name: _moved(item, place, here) for name, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, place, here) for item in value]
    if not isinstance(value, str):
        return value
    for head, root in (("", place), ("file://", Path(place).as_uri().removeprefix("file://")), ("sqlite:///", place)):
        new = here if head != "file://" else Path(here).as_uri().removeprefix("file://")
        if value == head + root or value.startswith(f"{head}{root}/"):
            return head + new + value.removeprefix(head + root)
    return value


def _from_start(path: str, what: str, asked: dict[str, Any], run: Path) -> str:
    head, slashes, file = path.partition(":///") if path.startswith("sqlite") else ("", "", path)
    if PurePath(file).is_absolute() or is_uri(file) or (not slashes and is_uri(path)):
        return path
    begun, here = PurePath(asked["out"]).parts, run.resolve()
    if not PurePath(asked["out"]).is_absolute() and here.parts[-len(begun) :] == begun:
        moved = here.parents[len(begun) - 1] / file
        if moved.exists():
            return f"{head}{slashes}{moved}"
    raise UserError(
        f"{run} has its {what} in {path}, which is not here: "
        "give the whole command again, in the folder in which it was given first"
    )
