"""What names a data set: where it lies, which of its rows are meant, and which fingerprint they have."""

import os
import re
from typing import NamedTuple, Self
from urllib.parse import unquote

from dr3_ray.data import identity
from dr3_ray.data.subsets import WORDS, Subset
from dr3_ray.errors import UserError
from dr3_ray.uris import NAMED, absolute, is_local, is_uri, spelled_out

WORDS_OF_A_PATH = re.compile(r"(.+)\?([a-z_]+=[^/?]*)", re.DOTALL)


class Address(NamedTuple):
    """A data set as it is named, `PLACE?SUBSET#FINGERPRINT`. `str` gives what `parse` reads.

    Where a folder has the very name of a subset, `PLACE/?SUBSET` means the subset.
    """

    place: str
    """A folder, `embedded:NAME`, or a URI with the options of its store."""
    subset: Subset | None = None
    """None: all rows."""
    fingerprint: str | None = None
    """That data set, or that subset of one, and no other."""

    @classmethod
    def parse(cls, source: str) -> Self:
        """Read a name; a folder that exists is itself, whatever `?` and `#` are in its name.

        Raises:
            UserError: a subset or fingerprint is none, or the URI is that of another machine's file.
        """
        source = spelled_out(source)
        if is_uri(source):
            place, _, fingerprint = absolute(source).partition("#")
        else:
            place, fingerprint = _split_fingerprint(source)
        place, query = (place, "") if _is_folder(place) else cut_subset(place)
        try:
            return cls(place, Subset.parse(query) if query else None, fingerprint or None)
        except UserError as error:
            raise UserError(f"{_on_one_line(source)}: {error}") from None

    def __str__(self) -> str:
        mark = "&" if is_uri(self.place) and "?" in self.place else "?"
        if self.subset and _is_folder(f"{self.place}?{self.subset}"):
            mark = "/?"
        return (
            self.place
            + (f"{mark}{self.subset}" if self.subset else "")
            + (f"#{self.fingerprint}" if self.fingerprint else "")
        )

    def identity(self, whole: str) -> str:
        """Return the fingerprint of the rows meant, if the whole data set has the fingerprint `whole`."""
        return identity.of_subset(whole, str(self.subset)) if self.subset else whole


def cut_subset(place: str) -> tuple[str, str]:
    """Return the place, with the options of its store, and the words of a subset, "" for none, of a bare name.

    The URI of a store keeps all options but these words; the URI of a folder has no others.
    """
    if is_uri(place):
        start, _, options = place.partition("?")
        ours = [part for part in options.split("&") if is_local(place) or part.partition("=")[0] in WORDS]
        others = [part for part in options.split("&") if part not in ours]
        return (start + f"?{'&'.join(others)}" * bool(others), unquote("&".join(ours))) if any(ours) else (place, "")
    if place.startswith(NAMED):
        start, _, options = place.partition("?")
        return start, options
    match = WORDS_OF_A_PATH.fullmatch(place)
    return (match[1], match[2]) if match else (place, "")


def _is_folder(place: str) -> bool:
    return not is_uri(place) and not place.startswith(NAMED) and os.path.lexists(place)


def _on_one_line(source: str) -> str:
    """Return an address for a message, with signs like a line's end as Python writes them."""
    return source if source.isprintable() else repr(source)


def _split_fingerprint(source: str) -> tuple[str, str]:
    """Return a source that is no URI and the fingerprint it may end in.

    Raises:
        UserError: it ends in a part of a fingerprint.
    """
    match = re.fullmatch(r"(.+)#([0-9a-f]*)", source, re.DOTALL)
    if match is None or os.path.exists(source):
        return source, ""
    if len(match[2]) != 64:
        raise UserError(
            f"{_on_one_line(source)}: a fingerprint has 64 digits, and {match[2]!r} {len(match[2])}: give the whole one"
        )
    return match[1], match[2]
