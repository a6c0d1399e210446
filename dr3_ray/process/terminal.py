"""The terminal that a command speaks to, which may go away while the command goes on."""

import errno
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SILENCE = 0.5  # seconds of a command, with some 0.3 before it that Python takes to begin
GONE = (errno.EIO, errno.EPIPE, errno.ECONNRESET, errno.ENXIO)


class Lasting(io.FileIO):
    """A file descriptor that speaks to nobody, without an error, once its reader is gone."""

    spoken = False  # anything, by any of them

    def write(self, data: Any) -> int:
        """Write, or lose what is written once nobody reads."""
        Lasting.spoken = True
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in GONE:
                raise
            nobody = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nobody, self.fileno())  # libraries that write to it by themselves are spared as well
            os.close(nobody)
            return len(data)


def outlast_the_terminal() -> None:
    """Let standard output and errors of this process outlast their reader: a closed terminal, a lost ssh, `| head`."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):  # and nobody's own
            stream.flush()
            raw = Lasting(number, "wb", closefd=False)
            how = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": stream.line_buffering}
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), **how))  # type: ignore[arg-type]


@contextmanager
def said_if_silent(what: str, patience: float = SILENCE) -> Iterator[None]:
    """Tell the person at a terminal what is waited for, if nothing was said within `patience` seconds.

    It is said on standard error, after `outlast_the_terminal`, which is how it is known that nothing was.
    """

    def say() -> None:
        if not Lasting.spoken:
            print(what, file=sys.stderr, flush=True)

    timer = threading.Timer(patience, say)
    timer.daemon = True
    if isinstance(getattr(getattr(sys.stderr, "buffer", None), "raw", None), Lasting) and sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
