"""One line for whatever a source makes a library raise while it is opened or read."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from dr3_ray.errors import UserError, first_line, raise_out_of_memory

Item = TypeVar("Item")
LONGEST = 120  # characters of another library's message: the rest of Arrow's repeats the data
CUT_OFF = (b"PK\x03\x04", b"\x89HDF")  # how zip and HDF5 files begin; one that cannot be read lacks its end


@contextmanager
def reading(what: str, remedy: str = "correct it, or copy it again") -> Iterator[None]:
    """Turn any error of reading `what` into one UserError that says why in short; a UserError stays as it is.

    A damaged file raises errors of every type in zipfile, h5py, pyarrow and numpy. Writing never stands in here: a full
    disk has a line of its own.
    """
    try:
        yield
    except UserError:
        raise
    except UnicodeDecodeError:
        raise UserError(f"{what} is not UTF-8: save it as UTF-8") from None
    except Exception as error:
        raise_out_of_memory(error)
        raise UserError(f"{what} cannot be read ({in_short(error)}): {remedy}") from None


def items_of(items: Iterable[Item], what: str) -> Iterator[Item]:
    """Yield the same items.

    Raises:
        UserError: the next one cannot be read.
    """
    with reading(what):
        yield from items


def in_short(error: BaseException) -> str:
    """Return the first line of an error, cut where it is long; of Arrow's, what it says at its end is the cause."""
    line = first_line(error).rpartition("Invalid: ")[2]
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def unreadable(path: Path, form: str, error: BaseException) -> UserError:
    """Return the error that a file is no readable `form`: it is empty, cut off, or as another error says."""
    raise_out_of_memory(error)
    why = in_short(error)
    if path.is_file():
        with path.open("rb") as file:
            begins = file.read(4)
        why = "it is empty" if not begins else "it is cut off" if begins in CUT_OFF else why
    return UserError(f"{path} is not a readable {form} ({why}): copy it again")
