"""Rollouts on several CPUs: each process plays the episodes of some of the members, with their part of the networks."""

import itertools
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np

from dr3_ray.evaluation.contract import Recorded
from dr3_ray.evaluation.rollout import Act, Make, Played, Rollout, Watch
from dr3_ray.evaluation.turns import SILENT, Unanswered, tell, tell_by

LAST = 5.0  # seconds that a process has to close its environments
_sending = threading.Lock()  # what is told of an environment comes from a thread of its own


class Rollouts:
    """Environments for K members and E episodes each, in `processes` of their own, or in this one if that is one."""

    def __init__(
        self,
        make: Make,
        recorded: Recorded,
        members: int,
        episodes: int,
        processes: int = 1,
        silent: float = SILENT,
    ):
        """Make them; `silent` as of a `Rollout`."""
        self.episodes = episodes
        bounds = np.linspace(0, members, max(1, min(processes, members)) + 1).astype(int).tolist()
        self._shares = [range(*ends) for ends in itertools.pairwise(bounds)]
        alone = len(self._shares) == 1
        self.here = Rollout(make, recorded, members, episodes, silent) if alone else None
        self._others = (
            [] if alone else [Process(make, recorded, len(share), episodes, silent) for share in self._shares]
        )

    def play(self, policy: Callable[[range], Act], seeds: Sequence[int], watch: Watch | None = None) -> Played:
        """Play as `Rollout.play`, by the `policy` of some of the members; `watch` sees nothing of other processes."""
        if self.here:
            return self.here.play(policy(self._shares[0]), seeds, watch)
        for process, share in zip(self._others, self._shares, strict=True):
            process.begin(policy(share), seeds)
        played = [process.end(share.start) for process, share in zip(self._others, self._shares, strict=True)]
        return Played(*map(np.concatenate, zip(*played, strict=True)))

    def close(self) -> None:
        """Close all environments, and end the processes."""
        if self.here:
            self.here.close()
        for process in self._others:
            process.close()


class Process:
    """A `Rollout` in a process of its own, which ends with this one, whatever ends it."""

    def __init__(self, make: Make, recorded: Recorded, members: int, episodes: int, silent: float = SILENT):
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import serve; serve({theirs.fileno()})"],
                pass_fds=[theirs.fileno()],
                # what is imported here can be there, and one thread takes one CPU
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for the process that it plays for
            )
        self._connection = Connection(ours.detach())
        self._send((make, recorded, members, episodes, silent))

    def begin(self, act: Act, seeds: Sequence[int]) -> None:
        """Have the process play; `end` waits for it."""
        self._send((act, list(seeds)))

    def end(self, first: int = 0) -> Played:
        """Return the played episodes; an exception of the process is raised here.

        What it says of an environment that does not answer is told in this process, the member's number plus `first`.

        Raises:
            RuntimeError: the process has ended, for want of memory, say.
        """
        try:
            while (answer := self._connection.recv()) is None or isinstance(answer, Unanswered):
                tell(answer and answer.of(first + (answer.place.member or 0)))
        except (EOFError, OSError):
            status = self._process.wait()
            raise RuntimeError(f"a process that plays episodes has ended with exit status {status}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process, also if an environment hangs in it."""
        self._connection.close()
        try:
            self._process.wait(LAST)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, what: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # `end` will say so
            self._connection.send_bytes(cloudpickle.dumps(what))


def serve(descriptor: int) -> None:
    """Play in the other process whenever this one asks, until the connection at the file `descriptor` ends."""
    connection = Connection(descriptor)
    asked: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, asked), daemon=True).start()
    tell_by(lambda call: _send(connection, call))
    rollout: Rollout | Exception | None = None
    while (content := asked.get()) is not None:
        if rollout is None:
            rollout = _attempt(Rollout, *cloudpickle.loads(content))
        else:
            play = cloudpickle.loads(content)
            _send(connection, rollout if isinstance(rollout, Exception) else _attempt(rollout.play, *play))
    if isinstance(rollout, Rollout):
        rollout.close()


def _listen(connection: Connection, asked: "queue.SimpleQueue[bytes | None]") -> None:
    """Pass on what is asked, and see to it that this process ends with the other one, whatever an environment does."""
    with suppress(EOFError, OSError):
        while True:
            asked.put(connection.recv_bytes())
    asked.put(None)
    time.sleep(LAST)
    os._exit(1)


def _send(connection: Connection, what: Any) -> None:
    with _sending, suppress(BrokenPipeError, ConnectionResetError):  # nobody is there any more
        connection.send(what)


def _attempt(work: Callable[..., Any], *args: Any) -> Any:
    """Return the result of `work`, or the exception that it raised."""
    try:
        return work(*args)
    except Exception as error:
        return error
