"""The machines of a Ray cluster: waiting until enough of them are there, and checking that they see the same files."""

import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dr3_ray.errors import UserError

POLL = 1.0  # seconds between two looks at the cluster
REMIND = 60.0  # and between two lines about the same lack


def wait_for_nodes(count: int, resources: dict[str, float], say: Callable[[str], None]) -> None:
    """Return once `count` machines of the cluster each have `resources` (such as {"CPU": 1, "GPU": 0.5}).

    The autoscaler is asked for them. `say` is told what is missing, at once, when it changes, and every minute.
    """
    wanted = {name: amount for name, amount in resources.items() if amount}
    text = " and ".join(f"{amount:g} {name}s" for name, amount in wanted.items())
    said, when, asked = "", 0.0, False
    while len(fit := machines_with(wanted)) < count:
        if not asked:
            request_resources(bundles=[wanted] * count)
            asked = True
        there = ", ".join(map(_describe, alive())) or "none"
        line = f"waiting for {count - len(fit)} more of {count} machines with {text} (in the cluster: {there})"
        if line != said or time.monotonic() - when > REMIND:
            say(line)
            said, when = line, time.monotonic()
        time.sleep(POLL)
    if asked:
        request_resources(bundles=[])  # from here on the trials themselves ask


def alive() -> list[dict[str, Any]]:
    """Ray's records of the machines that answer."""
    return [node for node in ray.nodes() if node["Alive"]]


def machines_with(resources: dict[str, float]) -> list[dict[str, Any]]:
    """The machines that have all of these, free or taken."""
    return [
        node for node in alive() if all(node["Resources"].get(name, 0) >= amount for name, amount in resources.items())
    ]


def check_shared(storage: str | None, datasets: Iterable[str]) -> None:
    """Every machine has to see the data sets, and the directory in which checkpoints are kept unless that is a URI.

    Raises:
        UserError: one does not; says which, and what to do.
    """
    machines = alive()
    if len(machines) < 2:
        return
    paths = [str(Path(source).resolve()) for source in datasets if not source.startswith("embedded:")]
    mark = Path(storage or ".").resolve() / f".shared-{secrets.token_hex(4)}"
    if storage and "://" not in storage:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        paths.insert(0, str(mark))
    try:
        for node, seen in zip(machines, ray.get([_look(node, paths) for node in machines]), strict=True):
            lost = [path for path in paths if path not in seen]
            if lost and lost[0] == str(mark):
                raise UserError(
                    f"{mark.parent} is another directory on {node['NodeManagerAddress']}: "
                    "give --storage a path or URI that all machines share, or --checkpoint-every 0"
                )
            if lost:
                raise UserError(f"{lost[0]} is not there on {node['NodeManagerAddress']}: copy it, or share its folder")
    finally:
        mark.unlink(missing_ok=True)


def _look(node: dict[str, Any], paths: list[str]) -> ray.ObjectRef:
    """Which of the paths exist on a machine."""

    def there() -> list[str]:
        return [path for path in paths if Path(path).exists()]

    here = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(there).remote()


def _describe(node: dict[str, Any]) -> str:
    has = node["Resources"]
    return f"{node['NodeManagerAddress']} with {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs"
