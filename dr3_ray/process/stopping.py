"""How a command ends before its time: by Ctrl-C, SIGTERM or SIGHUP, or because what it needs is gone.

Python runs handlers of signals in the main thread, between two of its instructions. A main thread that waits inside
Ray's C++ runs none, so a second thread, to which the interpreter writes every signal at once, ends the process when the
main one has not done so by itself.
"""

import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dr3_ray.process.folders import settle_caches
from dr3_ray.process.memory import seldom_search_for_cycles
from dr3_ray.process.terminal import outlast_the_terminal

STOPPED = 130  # exit code, as of a shell's Ctrl-C
GRACE = 15.0  # seconds that the main thread has to write what it knows
LAST = 5.0  # seconds to write it from another thread, when the main one has not
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OTHERS = (signal.SIGUSR1,)  # Tune's, which must not outlive a sweep either


class _Ending:
    """What this process knows of its end. There is one, because signals belong to the whole process."""

    def __init__(self) -> None:
        self.asked = False  # to stop, and the main thread was interrupted for it
        self.due = 0.0  # when the process ends, whatever the main thread does; 0 while nobody has asked for that
        self.over = False  # the command is done, and only the interpreter has still to end
        self.lost = ""  # what the command cannot go on without; empty while nothing is
        self.handled = 0  # interrupts from the keyboard that a library is expected to handle in its own time
        self.tell: Callable[[], None] = lambda: None  # says that the first of these was heard
        self.command: Callable[[], str] = lambda: command_line()  # what to type after a stop,
        self.does = "starts again"  # and what that does
        self.leave: Callable[[], None] = lambda: None  # writes what is known, where the main thread cannot
        self.listens = False


_ending = _Ending()


def typed() -> list[str]:
    """Return the command that this process was started with, word for word."""
    name = Path(sys.argv[0]).name
    return ["dr3-ray" if name == "__main__.py" else name, *sys.argv[1:]]


def command_line() -> str:
    """Return the command that this process was started with, as it may be typed again."""
    return shlex.join(typed())


def resuming(run: Path) -> str:
    """Return the command that goes on with a run directory."""
    return shlex.join(["dr3-ray", "sweep", "--resume", str(run)])


def advise(command: Callable[[], str]) -> None:
    """Tell people whose command is stopped that `command()` goes on."""
    _ending.command, _ending.does = command, "goes on"


def lost() -> str:
    """Say what this command needs and has lost; empty while nothing is lost."""
    return _ending.lost


@contextmanager
def leaving(leave: Callable[[], None]) -> Iterator[None]:
    """Have `leave` write what is known if the main thread is stuck, and this process ends without it."""
    _ending.leave = leave
    try:
        yield
    finally:
        _ending.leave = lambda: None


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into the KeyboardInterrupt of Ctrl-C, and put the handlers back that were there.

    Signals that are ignored stay so (`nohup`, jobs in the background). Outside the main thread, which alone may handle
    signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _kept():
        _ending.lost, _ending.over = "", False
        _handle()
        try:
            yield
        finally:
            _ending.asked, _ending.due = False, 0.0


@contextmanager
def interrupts_handled(tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Leave the first Ctrl-C to a library, in its own time, and `tell` people so; its handlers do not outlive this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _kept():
        _ending.handled, _ending.tell = 1, tell
        try:
            yield
        finally:
            _ending.handled = 0


def run_command(work: Callable[[], None]) -> None:
    """Do the whole of a command: an interrupt ends the process with one line and exit code 130.

    Handlers stay after it, because the process that it ends has still to shut down.
    """
    try:
        _ending.over = False
        _handle()
        outlast_the_terminal()
        settle_caches()
        seldom_search_for_cycles()
        work()
    except KeyboardInterrupt:
        end()
    finally:
        _ending.over = True


def end(reason: str = "", error: str = "") -> NoReturn:
    """End this process at once, with one line that gives the `reason` and how to go on.

    With an `error` the line is that, and the exit code 2.
    """
    if _ending.lost:
        line, code = f"error: {error or f'{_ending.lost}: `{_ending.command()}` {_ending.does}'}", 2
    else:
        line, code = f"stopped{reason and f' with {reason}'}; this {_ending.does}: {_ending.command()}", STOPPED
    try:
        sys.stdout.flush()
        shown = "\x1b[?25h" if sys.stderr.isatty() else ""  # the cursor, which progress had hidden
        os.write(2, f"{shown}{' '.join(line.split())}\n".encode(errors="replace"))
    except (OSError, ValueError, AttributeError):
        pass  # nobody listens any more
    os._exit(code)  # Ray would wait for a minute for processes that the same signal has ended


def lose(reason: str) -> None:
    """Interrupt the main thread, from another one, because the command cannot go on; `lost` then tells the `reason`."""
    if signal.getsignal(signal.SIGTERM) is _interrupt and not _ending.asked and not _ending.over:
        _ending.lost = reason
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Interrupt the main thread; a process group, a shell and ssh may all send their signals, and one is enough."""
    if _ending.over:
        end()
    if _ending.asked and number != signal.SIGINT:
        return
    _ending.asked = True
    raise KeyboardInterrupt


def handle_again() -> None:
    """Set Python's handlers anew, after a library in C++ has put its own in front of them."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def _handle() -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if not _ending.listens:
        _ending.listens = True
        told, tells = socket.socketpair()
        tells.setblocking(False)
        signal.set_wakeup_fd(tells.detach(), warn_on_full_buffer=False)
        threading.Thread(target=_listen, args=(told,), name="signals", daemon=True).start()


@contextmanager
def _kept() -> Iterator[None]:
    """Put back the handlers that were there before."""
    before = {number: signal.getsignal(number) for number in (*SIGNALS, *_OTHERS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that Python did not set
                signal.signal(number, handler)


def _listen(told: socket.socket) -> None:
    """End the process when the main thread has had its time and has not ended by itself."""
    while True:
        told.settimeout(max(_ending.due - time.monotonic(), 0.01) if _ending.due else None)
        try:
            numbers = told.recv(64)
        except TimeoutError:
            if _ending.due and time.monotonic() >= _ending.due:
                last = threading.Thread(target=_ending.leave, daemon=True)  # a disk may hang, too
                last.start()
                last.join(LAST)
                end()
            continue
        for number in numbers:
            if number == signal.SIGINT and _ending.handled:
                _ending.handled -= 1
                _ending.tell()
            elif number in SIGNALS and signal.getsignal(number) is _interrupt:
                _ending.due = _ending.due or time.monotonic() + GRACE
