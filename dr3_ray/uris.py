"""Paths of this machine and URIs, as text: which is which, and what they mean in every folder."""

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from dr3_ray.errors import UserError

MIXTURE = "mix:"  # what mixtures of data sets begin with
NAMED = ("embedded:", "minari:", MIXTURE)  # what data sets begin with that are neither paths nor URIs
FILE = re.compile(r"(?i)file:/(?!/)")
HOST = re.compile(r"(?i)file:(?://([^/?#]*)|/(localhost)(?=/))?")  # two slashes are one in a URI that was a path once
BEGINNING = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # at the beginning of a URI that has become a path


def is_uri(source: str) -> bool:
    """Return whether a source is `scheme://…`, or `file:/…`, rather than a path of this machine."""
    bare = source.strip()
    return not bare.startswith(MIXTURE) and ("://" in bare or FILE.match(bare) is not None)


def spelled_out(source: str) -> str:
    """Return a URI or the name of a data set without the blanks around it, or a path with the home that `~` stands for.

    Blanks of a path belong to it. No shell expands `~` in a specification or within quotes, and pyarrow would, later.

    Raises:
        UserError: no file can have that name, or something stands before the scheme of a URI.
    """
    try:
        possible = b"\0" not in os.fsencode(source)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise UserError(f"{source!a} holds a sign that no name of a file or store can have: leave it out")
    bare = source.strip()
    if "://" in bare and not (bare.startswith(NAMED) or BEGINNING.match(bare)):  # signs that came with it by a paste
        raise UserError(f"{source!a} is neither a path nor a URI: a URI begins with its scheme, as in s3://BUCKET/PATH")
    return bare if bare.startswith(NAMED) or is_uri(bare) or SCHEME.match(bare) else os.path.expanduser(source)


def absolute(source: str) -> str:
    """Return a data set, path or URI that means the same in every folder of this machine; `file:/a` as `file:///a`.

    Raises:
        UserError: a scheme with one slash, as of a URI that has become a path; or a file of another machine.
    """
    source = spelled_out(source)
    if source.startswith(NAMED):
        return source
    if is_uri(source):
        if is_local(source):
            _path_in(source)
        return FILE.sub("file:///", source)
    if match := SCHEME.match(source):
        raise UserError(f"{source} is neither a path nor a URI: write {match[1]}://…, or the whole path of a folder")
    return str(resolved(source))


def path_here(path: str | os.PathLike[str] | None) -> Path | None:
    """Return the path of this machine that somebody gave, as it is or as a URI.

    Every option, argument and field that is a path and no URI passes here: as a path, `s3://a/b` is a folder `s3:`.

    Raises:
        UserError: it is the URI of something elsewhere, or a `Path` that was made of a URI: that has lost the slashes
            before another machine's name.
    """
    if not isinstance(path, str | os.PathLike):
        return path
    given = spelled_out(os.fspath(path))
    match = SCHEME.match(given)
    if not match or match[1].lower() == "file":
        if match and not isinstance(path, str):
            raise UserError(f"{path} was a URI before it became a path: give the URI as text, or the path in it")
        if match and (mark := re.search("[?#]", given)):
            raise UserError(f"{given} has a {mark[0]}, which ends a path in a URI: write {quote(mark[0])} for the sign")
        here = Path(_path_in(given) if match else given)
        resolved(here)
        return here
    raise UserError(f"{match[1]}://{given[match.end() :].lstrip('/')} is a URI: give a path of this machine here")


def anywhere(source: str) -> Path | str:
    """Return the path of this machine that a source names, or the URI of what is elsewhere, as text.

    Raises:
        UserError: it is neither, as a scheme with one slash; or a file of another machine.
    """
    scheme = SCHEME.match(source.strip())
    if scheme and scheme[1].lower() != "file":
        return absolute(source)
    return path_here(source) or Path()


def names_folder(given: str) -> bool:
    """Return whether a path can only be a folder's, as it was typed: a `Path` has lost the slash at its end."""
    return given.endswith("/") or given.rpartition("/")[2] in (".", "..")


def is_local(store: str) -> bool:
    """Return whether a store is a folder of this machine: a path, or the URI of one."""
    return not is_uri(store) or store.strip().lower().startswith("file:")


def local_path(store: str) -> Path:
    """Return the path of a folder of this machine, without links and `..`.

    Raises:
        UserError: it is the URI of a file elsewhere.
    """
    return resolved(_path_in(store) if is_uri(store := spelled_out(store)) else store)


def resolved(path: str | Path) -> Path:
    """Return a path from the root, without links and `..`.

    Raises:
        UserError: a link in it leads to itself.
    """
    place = Path(os.path.realpath(path))
    if any(map(os.path.islink, (place, *place.parents))):
        raise UserError(f"{path} is a link that leads to itself: remove it, or give the path of a file or folder")
    return place


def _path_in(uri: str) -> str:
    """Return the path behind the machine's name in a file URI, up to a `?` or `#`.

    Raises:
        UserError: that is another machine's, or nothing follows, or what no file can be called.
    """
    match = HOST.match(uri)
    path = unquote(re.split("[?#]", uri[match.end() :])[0]) if match else ""
    host = match and match[1]
    if host and host.lower() != "localhost":
        raise UserError(f"{uri} is a file of {host}: give file:///PATH for one of this machine, or the URI of a store")
    if not path.startswith("/") or "\0" in path:
        raise UserError(f"{uri} names no path: write file:///PATH")
    return path
