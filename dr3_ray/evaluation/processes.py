"""Rollouts on several CPUs: each process plays the episodes of some of the members, with their part of the networks."""

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np

from dr3_ray.evaluation.contract import Recorded
from dr3_ray.evaluation.rollout import Act, Make, Played, Rollout, Watch


class Rollouts:
    """Environments for K members and E episodes each, in `processes` of their own, or in this one if that is one."""

    def __init__(self, make: Make, recorded: Recorded, members: int, episodes: int, processes: int = 1):
        self.episodes = episodes
        bounds = np.linspace(0, members, max(1, min(processes, members)) + 1).astype(int).tolist()
        self._shares = [range(*ends) for ends in itertools.pairwise(bounds)]
        alone = len(self._shares) == 1
        self.here = Rollout(make, recorded, members, episodes) if alone else None
        self._others = [] if alone else [Process(make, recorded, len(share), episodes) for share in self._shares]

    def play(self, policy: Callable[[range], Act], seeds: Sequence[int], watch: Watch | None = None) -> Played:
        """Play as `Rollout.play`, by the `policy` of some of the members; `watch` sees nothing of other processes."""
        if self.here:
            return self.here.play(policy(self._shares[0]), seeds, watch)
        for process, share in zip(self._others, self._shares, strict=True):
            process.begin(policy(share), seeds)
        return Played(*map(np.concatenate, zip(*[process.end() for process in self._others], strict=True)))

    def close(self) -> None:
        """Close all environments, and end the processes."""
        if self.here:
            self.here.close()
        for process in self._others:
            process.close()


class Process:
    """A `Rollout` in a process of its own, which ends with this one, whatever ends it."""

    def __init__(self, make: Make, recorded: Recorded, members: int, episodes: int):
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
        self._send((make, recorded, members, episodes))

    def begin(self, act: Act, seeds: Sequence[int]) -> None:
        """Have the process play; `end` waits for it."""
        self._send((act, list(seeds)))

    def end(self) -> Played:
        """Return the played episodes; an exception of the process is raised here.

        Raises:
            RuntimeError: the process has ended, for want of memory, say.
        """
        try:
            found = self._connection.recv()
        except (EOFError, OSError):
            status = self._process.wait()
            raise RuntimeError(f"a process that plays episodes has ended with exit status {status}") from None
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.wait()

    def _send(self, what: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # `end` will say so
            self._connection.send_bytes(cloudpickle.dumps(what))


def serve(descriptor: int) -> None:
    """Play in the other process whenever this one asks, until the connection at the file `descriptor` ends."""
    connection = Connection(descriptor)

    def received() -> Any:
        return cloudpickle.loads(connection.recv_bytes())

    rollout: Rollout | Exception | None = None
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        rollout = _attempt(Rollout, *received())
        while True:
            act, seeds = received()
            connection.send(rollout if isinstance(rollout, Exception) else _attempt(rollout.play, act, seeds))
    if isinstance(rollout, Rollout):
        rollout.close()


def _attempt(work: Callable[..., Any], *args: Any) -> Any:
    """Return the result of `work`, or the exception that it raised."""
    try:
        return work(*args)
    except Exception as error:
        return error
