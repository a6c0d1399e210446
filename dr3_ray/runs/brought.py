"""Runs to be read: a directory of this machine, or one at a URI, which is brought here."""

import os
from collections.abc import Callable
from pathlib import Path

from dr3_ray.errors import UserError
from dr3_ray.runs.directory import asked_of, is_run, read_run
from dr3_ray.runs.fetch import fetch, home_of
from dr3_ray.runs.index import FETCHED, INDEX, knows_more
from dr3_ray.runs.mirror import described, kept_index
from dr3_ray.stores import read_bytes, same_place
from dr3_ray.trust.secrets import masked, remember
from dr3_ray.uris import anywhere, path_here

Say = Callable[[str], None]


def run_here(run: str | os.PathLike[str], checkpoints: bool = False, say: Say = lambda text: None) -> Path:
    """Return the directory of a run on this machine. One at a URI is brought to `runs/`, or what is new of it.

    Where that is the run's own directory, nothing is brought. With `checkpoints` they come as well, unless the run
    keeps them in the very storage at the URI, where they are read one by one. `say` is told what is waited for.

    Raises:
        UserError: nothing is there, it cannot be used, or `runs/` has another run of this name, or an older state.
    """
    place = anywhere(run) if isinstance(run, str) else path_here(run)
    assert place is not None
    if isinstance(place, Path):
        return place
    uri = str(remember(place))
    home = home_of(uri)
    if _is_own(home, uri):
        say(f"{masked(uri)} is kept by the run in {home}, which is read")
        return home
    say(f"bringing {masked(uri)} to {home}")
    fetch(uri, home)
    storage = asked_of(home).get("storage")
    if checkpoints and not (storage and same_place(str(storage), uri)):
        fetch(uri, home, checkpoints=True)
    return home


def _is_own(home: Path, uri: str) -> bool:
    """Return whether a folder is the own directory of the run that keeps a copy at a URI.

    Raises:
        UserError: the copy knows more, as when the run went on elsewhere.
    """
    if not is_run(home) or (home / FETCHED).exists() or read_run(home).get("id") != described(uri).get("id"):
        return False
    if knows_more(kept_index(home, uri), read_bytes(home / INDEX)):
        raise UserError(
            f"{masked(uri)} knows more of this run than {home}: `dr3-ray fetch {masked(uri)} --out ANOTHER` brings it"
        )
    return True
