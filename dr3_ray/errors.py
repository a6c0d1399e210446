"""The one exception that stands for a user's mistake, and what it quotes of others."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches

from dr3_ray.trust.secrets import masked
from dr3_ray.trust.text import printable

NOT_OURS = (errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG)
FRAME = '  File "'  # how a place in the code begins in a traceback, Ray's included


class UserError(ValueError):
    """A user's mistake: what is wrong and what to do about it, in one line, without keys.

    The command line prints it and exits with 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(masked(message)))


def check_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Check that a name is known.

    Raises:
        UserError: it is not; says the nearest that is, or all of them.
    """
    known = list(known)
    for name in names:
        if name not in known:
            near = nearest(str(name), known)
            raise UserError(
                f"unknown {what} {name!r}: "
                + (f"did you mean {near!r}?" if near else f"known are {', '.join(sorted(known))}")
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is meant, as `DR3-CQL` by `cql`; empty if none comes near."""
    lower = {name.casefold(): name for name in known}
    parts = [lowered for lowered in lower if name.casefold() in lowered.split("-")]
    near = parts or get_close_matches(name.casefold(), lower, 1)
    return lower[near[0]] if near else ""


def first_line(error: BaseException) -> str:
    """Return an error's type and the first line of its text; of an error that Ray brought, those of its cause.

    The type is left out where the text says it: in a `UserError`, and in an `OSError` with its number.
    """
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    text = str(error).strip()
    kind = type(error).__name__
    if not text:
        return kind
    line = line_of(text)
    named = isinstance(error, UserError | OSError) or FRAME in text
    return line if named else str(printable(masked(f"{kind}: {line}")))


def line_of(text: str) -> str:
    """Return the first line of a text; of a traceback, type and first line of the exception that it ends in."""
    lines = text.strip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith(FRAME)]
    if frames:
        lines = [line for line in lines[frames[-1] + 1 :] if line and not line[0].isspace()] or lines[-1:]
    return str(printable(masked(lines[0].strip()))) if lines else ""


def not_shown(runs: Iterable[object], error: BaseException) -> str:
    """Return the sentence that nothing of `runs` is lost where showing them failed."""
    reason = " ".join(first_line(error).split())
    return f"the results are safe in {', '.join(map(str, runs))}, but showing them failed ({reason})"


def unusable(path: object, error: OSError) -> str:
    """Return the line for a file or folder that is another thing than its name says, or another user's."""
    return f"{path} cannot be used ({error.strerror}): move it away, or get the right to read and write it"


def raise_out_of_memory(error: BaseException) -> None:
    """Raise a UserError if an error says that there was no memory or address space: nothing is wrong with the data.

    Raises:
        UserError: the error says so.
    """
    no_memory = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    if no_memory or type(error).__name__ == "OutOfMemoryError" or "cannot allocate memory" in str(error).lower():
        raise UserError(
            f"out of memory ({first_line(error)}): free some, ask for less at a time, or raise the limit of this "
            "process (ulimit -v)"
        ) from None
