"""What waits for room in a Ray cluster: Ray starts a process once a machine has room for it, and says nothing."""

import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

from dr3_ray.cluster.nodes import alive, described
from dr3_ray.compat import ray as compat

SILENT = 30.0  # seconds of waiting until that is said
AGAIN = 600.0  # seconds until it is said again

Needs = Mapping[str, float]
"""What one process takes, by the names of Ray's resources."""

log = logging.getLogger("dr3_ray")


@contextmanager
def lack_is_told(what: str, wanted: Collection[Needs]) -> Iterator[None]:
    """Say in one line now and then, while something is built, which of its processes the cluster has no room for.

    `wanted` is what its processes take, `what` their name in the plural. They go on waiting: a machine may join.
    """
    over = threading.Event()

    def watch() -> None:
        """Look every `SILENT` seconds, or every `AGAIN` once it was said."""
        pause = SILENT
        while not over.wait(pause):
            lack = lack_of(what, wanted)
            pause = AGAIN if lack else SILENT
            if lack:
                log.warning(lack)

    watching = threading.Thread(target=watch, name="lack", daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()


def lack_of(what: str, wanted: Collection[Needs]) -> str:
    """Return the line that says which processes wait for room, what the cluster has, and whether more machines come.

    Empty: none of them waits, or Ray does not tell.
    """
    try:
        status, machines, free = compat.cluster_status(), alive(), ray.available_resources()
    except Exception:  # of a cluster that goes away or is of another version; waiting is what is done anyway
        log.debug("the state of the cluster is not known", exc_info=True)
        return ""
    ours = [_plain(needs) for needs in wanted]
    waiting = {
        _told(bundle.bundle): bundle.count
        for demand in status.resource_demands.ray_task_actor_demand
        for bundle in demand.bundles_by_count
        if _plain(bundle.bundle) in ours
    }
    if not waiting:
        return ""
    needs = ", ".join(f"{count} for {bundle}" for bundle, count in waiting.items())
    fits = any(all(machine["Resources"].get(name, 0.0) >= amount for name, amount in demanded.items())
               for demanded in ours for machine in machines)  # fmt: skip
    there = ", ".join(map(described, machines))
    rest = f"{free.get('CPU', 0.0):g} CPUs and {free.get('GPU', 0.0):g} GPUs are free"
    return (
        f"{what} wait for room: {needs} each; the cluster has {there}, where {rest}; {_coming(status)}. They begin "
        + ("once others have ended or a machine has joined" if fits else "once a machine with as much has joined")
        + "; else stop this and ask for less"
    )


def _plain(bundle: Needs) -> dict[str, float]:
    """Return what a process takes; Ray leaves out what it takes nothing of."""
    return {name: float(amount) for name, amount in bundle.items() if amount}


def _told(bundle: Needs) -> str:
    return " and ".join(f"{amount:g} {name}{'s' if name in ('CPU', 'GPU') else ''}" for name, amount in bundle.items())


def _coming(status: Any) -> str:
    """Return whether the autoscaler starts machines, as far as it is known."""
    starting = len(status.pending_nodes) + sum(launch.count for launch in status.pending_launches)
    if starting:
        return f"{starting} more are starting"
    if status.failed_launches:
        return f"the autoscaler could not start any ({status.failed_launches[-1].details})"
    return "no machine is starting"
