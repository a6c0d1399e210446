"""The machines of a Ray cluster: waiting until enough of them are there, and asking each of them."""

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import ray
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dr3_ray.cluster.keys import take_keys
from dr3_ray.errors import UserError

T = TypeVar("T")

POLL = 1.0  # seconds between two looks at the cluster
REMIND = 60.0  # and between two lines about the same lack


def wait_for_nodes(
    count: int, resources: dict[str, float], say: Callable[[str], None], patience: float | None = None
) -> None:
    """Wait until `count` machines of the cluster each have `resources` (such as {"CPU": 1, "GPU": 0.5}).

    The autoscaler is asked for them. `say` is told what is missing, at once, when it changes, and every minute.

    Raises:
        UserError: they are not there after `patience` minutes.
    """
    wanted = {name: amount for name, amount in resources.items() if amount}
    text = " and ".join(f"{amount:g} {name}s" for name, amount in wanted.items())
    said, when, since, asked = "", 0.0, time.monotonic(), False
    while len(fit := machines_with(wanted)) < count:
        if patience is not None and time.monotonic() - since >= 60 * patience:
            request_resources(bundles=[])
            raise UserError(f"no longer {said}: start them, or ask for less; the same command goes on")
        if not asked:
            request_resources(bundles=[wanted] * count)
            asked = True
        there = ", ".join(map(described, alive())) or "none"
        line = f"waiting for {count - len(fit)} more of {count} machines with {text} (in the cluster: {there})"
        if line != said or time.monotonic() - when > REMIND:
            say(line)
            said, when = line, time.monotonic()
        time.sleep(POLL)
    if asked:
        request_resources(bundles=[])  # from here on the trials themselves ask


def alive() -> list[dict[str, Any]]:
    """Return Ray's records of the machines that answer."""
    return [node for node in ray.nodes() if node["Alive"]]


def machines_with(resources: dict[str, float]) -> list[dict[str, Any]]:
    """Return the machines that have all of these, free or taken."""
    return [
        node for node in alive() if all(node["Resources"].get(name, 0) >= amount for name, amount in resources.items())
    ]


def on_each(machines: Iterable[dict[str, Any]], look: Callable[[], T]) -> list[tuple[str, T]]:
    """Run `look` on each machine, and return its address with the result, whatever else it does."""

    def there(node: dict[str, Any]) -> ray.ObjectRef:
        place = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        return ray.remote(num_cpus=0, scheduling_strategy=place)(with_keys).remote(look)

    asked = [(node["NodeManagerAddress"], there(node)) for node in machines]
    return [(address, ray.get(answer)) for address, answer in asked]


def with_keys(work: Callable[..., T], *arguments: Any) -> T:
    """Run `work` in a worker that knows the keys of its driver, and return its result."""
    take_keys()
    return work(*arguments)


def described(node: dict[str, Any]) -> str:
    """Return the address of a machine, and what it has, in words."""
    has = node["Resources"]
    return f"{node['NodeManagerAddress']} with {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs"
