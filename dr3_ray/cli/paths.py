"""What every option and argument has that is a path of this machine."""

from pathlib import Path
from typing import Any

from dr3_ray.errors import UserError
from dr3_ray.uris import names_folder, path_here


def _path(given: str | Path | list[str] | None) -> Path | list[Path] | None:
    """Return the path that was typed, or each; UserError if it is empty, which would mean the working directory."""
    if isinstance(given, list):
        return [Path(path) for each in given if (path := path_here(_given(each)))]
    return path_here(given if given is None else _given(given))


def _given(given: str | Path) -> str | Path:
    if given == "":
        raise UserError("an empty name is no path: give one, or . for the working directory")
    return given


def _file(given: str | Path | None) -> Path | None:
    """Return the path of a file that was typed; UserError if it can only be a folder's."""
    if isinstance(given, str) and names_folder(given):
        raise UserError(f"{given} is a folder's name: give that of a file in it")
    return path_here(given if given is None else _given(given))


def _as_typed(given: str | Path | None) -> str | Path | None:
    """Return the text of a path that was typed, with the slash at its end."""
    _path(given)
    return given


PATH: dict[str, Any] = {"parser": str, "callback": _path}
"""For `typer.Option` and `typer.Argument`: the text as it was typed, which the callback makes a path of."""
FILE: dict[str, Any] = {"parser": str, "callback": _file}
"""The same for a file that is to be written."""
TYPED: dict[str, Any] = {"parser": str, "callback": _as_typed}
"""The same for what may be a file's or a folder's name, and stays a text."""
