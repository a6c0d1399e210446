"""One damaged file at a time, in a process of its own that has little memory and little time."""

import os
import resource
import signal
import traceback
from collections.abc import Callable

from dr3_ray.errors import UserError

MEMORY = 300 * 2**20  # bytes more than the process had
SECONDS = 10


def survive(read: Callable[[], object]) -> str | None:
    """Call `read` in a child; what it died of, or what it raised but a `UserError` of one line. None: all is well."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            with open("/proc/self/statm") as file:
                size = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
            os.write(writer, _said(read).encode(errors="replace")[-4000:])
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name} (memory, time, or a crash)"
    return said or (None if os.WEXITSTATUS(status) == 0 else "died without a word")


def _said(read: Callable[[], object]) -> str:
    try:
        read()
    except UserError as error:
        return "" if "\n" not in str(error) and len(str(error)) < 5000 else f"not one line: {str(error)[:500]!r}"
    except BaseException:
        return traceback.format_exc()
    return ""
