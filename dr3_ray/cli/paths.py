"""What every option and argument has that is a path of this machine, and those that name a run, wherever it is."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dr3_ray.errors import UserError
from dr3_ray.uris import anywhere, is_uri, names_folder, path_here


def _path(given: str | Path | list[str] | None) -> Path | list[Path] | None:
    """Return the path that was typed, or each; UserError if it is empty, which would mean the working directory."""
    if isinstance(given, list):
        return [Path(path) for text in given if (path := path_here(_given(text)))]
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


def _run(given: str | Path | list[str] | None) -> str | Path | list[str] | None:
    """Return the URI of a run elsewhere as text, or each, and the path of one on this machine as text, too."""
    if isinstance(given, list):
        return [str(_run(text)) for text in given]
    return given if given is None else str(anywhere(str(_given(given))))


def here(runs: Sequence[str], checkpoints: bool = False) -> list[Path]:
    """Return the directories of runs on this machine, and say which one is waited for; see `run_here`.

    Raises:
        UserError: a run is not there.
    """
    if not any(map(is_uri, runs)):
        return [Path(run) for run in runs]
    from dr3_ray.runs.brought import run_here  # and pyarrow's file systems, which no other path needs

    return [run_here(run, checkpoints, lambda text: print(text, file=sys.stderr, flush=True)) for run in runs]


PATH: dict[str, Any] = {"parser": str, "callback": _path}
"""For `typer.Option` and `typer.Argument`: the text as it was typed, which the callback makes a path of."""
FILE: dict[str, Any] = {"parser": str, "callback": _file}
"""The same for a file that is to be written."""
TYPED: dict[str, Any] = {"parser": str, "callback": _as_typed}
"""The same for what may be a file's or a folder's name, and stays a text."""
READ: dict[str, Any] = {"parser": str, "callback": _run}
"""The same for a run that is read, of this machine or at a URI; `here` makes a path of it."""
