"""What is used of Ray and Tune that is not public."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private import ray_constants, services, utils, worker
from ray._private.node import Node
from ray._private.utils import estimate_available_memory, get_num_cpus
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from dr3_ray.compat import attribute, item, start_worker

__all__ = ["estimate_available_memory", "get_default_ray_temp_dir", "get_num_cpus"]

PRESTARTED = "RAY_prestart_worker_first_driver"  # "0": no workers before there is work

NAMES = {
    "ray._common.utils.get_default_ray_temp_dir": "cluster/connect.py: where Ray keeps its sessions",
    "ray._private.services.canonicalize_bootstrap_address": "cluster/connect.py: which cluster is asked for",
    "ray._private.services.get_node": "cluster/connect.py: a raylet that a busy machine has not registered yet",
    "ray._private.utils.set_sigterm_handler": "cluster/connect.py: Ray would end this process at once",
    "ray._private.ray_constants.ENABLE_RAY_CLUSTER": "cluster/connect.py: a Ray that listens on the loopback address",
    "ray._private.worker._global_node": "cluster/connect.py: whether a Ray that was started here has died",
    "ray._private.node.Node.start_api_server": "cluster/connect.py: a Ray that nobody joins needs no dashboard",
    "ray._private.node.Node.start_log_monitor": "cluster/connect.py: nor what sends logs to drivers",
    "ray._private.node.Node.start_monitor": "cluster/connect.py: nor the autoscaler",
    "ray._private.node.Node.start_raylet": "cluster/connect.py: it is told how workers start",
    "ray._private.workers.setup_worker": "compat/start_worker.py: what is more than variables is left to it",
    "ray._private.utils.get_dashboard_dependency_error": "cluster/connect.py: nor an agent that answers over HTTP",
    "ray._private.utils.get_num_cpus": "sweep: the CPUs of this machine, or of its container",
    "ray._private.utils.estimate_available_memory": "sweep/packs/calibration.py: the same of its memory",
    "ray.experimental.internal_kv._internal_kv_get": "cluster/keys.py: keys reach workers in Ray's memory",
    "ray.experimental.internal_kv._internal_kv_put": "cluster/keys.py: the same",
    "ray.air._internal.usage.tag_callbacks": "sweep/trials/ray_trials.py: Tune would import MLflow and W&B",
    "ray.autoscaler._private.util.prepare_config": "cli/cluster_file.py: Ray's rules for a cluster's file",
    "ray.autoscaler._private.util.validate_config": "cli/cluster_file.py: the same",
    "ray.autoscaler.v2.sdk.get_cluster_status": "cluster/lack.py: what the machines of a cluster have no room for",
    "ray.tune.registry._global_registry": "cluster/environments.py: what a script has registered",
    "ray.tune.schedulers.pb2._select_config": "evolution/schedulers.py: what PB2 expects to gain",
}
"""Every name, where it is used, and what for."""


def bootstrap_address() -> str | None:
    """Return the address that `ray.init()` would use; None: it would start a Ray here."""
    address: str | None = services.canonicalize_bootstrap_address(None)
    return address


def node() -> Any:
    """Return the Ray that this process has started: its processes, and the folder of its session."""
    return worker._global_node


def signals_left_alone() -> AbstractContextManager[None]:
    """Keep Ray from handling SIGTERM."""
    return attribute(utils, "set_sigterm_handler", lambda handler: None)


def on_loopback() -> AbstractContextManager[None]:
    """Have this process take the loopback address for Ray's."""
    return attribute(ray_constants, "ENABLE_RAY_CLUSTER", False)


@contextmanager
def without_servants() -> Iterator[None]:
    """Have a Ray that starts here do without autoscaler, dashboard, log monitor and the HTTP server of its agent.

    They are half of its start's CPU time. Workers start with half a second less each, and only when something is to run
    in them: those that Ray starts beforehand would stay idle, because trials ask for an environment of their own.
    """

    def start_raylet(node: Any, *given: Any, **named: Any) -> None:
        node._ray_params.setup_worker_path = start_worker.__file__
        own(node, *given, **named)

    own = Node.start_raylet
    with ExitStack() as changes:
        changes.enter_context(item(os.environ, PRESTARTED, "0"))
        changes.enter_context(attribute(Node, "start_raylet", start_raylet))
        for part in ("start_api_server", "start_log_monitor", "start_monitor"):
            changes.enter_context(attribute(Node, part, lambda node, **asked: None))
        lacking = ImportError("nobody asks the node's agent over HTTP")
        changes.enter_context(attribute(utils, "get_dashboard_dependency_error", lambda: lacking))
        yield


def asking_for_nodes(by: Callable[[Callable[..., Any]], Callable[..., Any]]) -> AbstractContextManager[None]:
    """Have Ray look for the raylet of this process by another function, which `by` makes of its own."""
    return attribute(services, "get_node", by(services.get_node))


def uncounted() -> AbstractContextManager[None]:
    """Keep Ray from counting kinds of callbacks, for which it would import MLflow and W&B where they are installed."""
    from ray.air._internal import usage

    return attribute(usage, "tag_callbacks", lambda callbacks: None)


def kept(name: bytes) -> bytes | None:
    """Return the bytes in Ray's memory under a name; None: nothing."""
    data: bytes | None = _internal_kv_get(name)
    return data


def keep(name: bytes, content: bytes) -> None:
    """Keep bytes in Ray's memory, for all machines."""
    _internal_kv_put(name, content, overwrite=True)


def cluster_status() -> Any:
    """Return what Ray's autoscaler goes by, also where there is none: what waits for room, and which machines start."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    return get_cluster_status(ray.get_runtime_context().gcs_address)


def check_cluster_file(config: dict[str, Any]) -> None:
    """Raise what Ray raises for a cluster's file against its rules."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def registered(kind: str, name: str) -> Any:
    """Return what was registered with Tune; None: nothing."""
    from ray.tune.registry import _global_registry

    return _global_registry.get(kind, name) if _global_registry.contains(kind, name) else None


def replace_callbacks(tuner: Any, callbacks: list[Any]) -> None:
    """Give an experiment other callbacks than those it was begun and pickled with."""
    tuner._local_tuner.get_run_config().callbacks = callbacks


def most_promising(*known: Any, **sizes: Any) -> Any:
    """Return the numbers that PB2's model expects to gain most; the arguments are those of Tune's function."""
    from ray.tune.schedulers.pb2 import _select_config

    return _select_config(*known, **sizes)
