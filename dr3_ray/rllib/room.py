"""Whether the processes that an algorithm asks for can ever start: Ray would wait for them without a word."""

from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import ray
from ray.util import get_current_placement_group

from dr3_ray.cluster import lack
from dr3_ray.compat import ray as compat
from dr3_ray.errors import UserError

KINDS = ("CPU", "GPU")


def check_room(config: Any) -> None:
    """Check that a Ray that this process has started has room for all learners and evaluation runners.

    No machine will join it. In a cluster one may, and in a trial of Tune they have their room already.

    Raises:
        UserError: it has not.
    """
    node = compat.node()
    if node is None or not node.is_head() or get_current_placement_group() is not None:
        return
    needed, here = wanted(config), ray.cluster_resources()
    for name in (*KINDS, *sorted(needed.keys() - {*KINDS})):
        if needed[name] > here.get(name, 0.0):
            raise UserError(
                f"{config.num_learners} learners and {config.evaluation_num_env_runners} evaluation runners need "
                f"{needed[name]:g} {name}s, and this machine's Ray has {here.get(name, 0.0):g}: ask for fewer, or for "
                "less of each"
            )


def lack_is_told(config: Any) -> AbstractContextManager[None]:
    """Say now and then, while an algorithm is built, which of its processes a cluster has no room for."""
    processes = [resources for count, resources in _each(config) if count]
    if not processes or get_current_placement_group() is not None:  # in a trial of Tune, which says so itself
        return nullcontext()
    return lack.lack_is_told("learners and evaluation runners", processes)


def wanted(config: Any) -> dict[str, float]:
    """Return what all processes take together, by the names of Ray's resources."""
    total: dict[str, float] = defaultdict(float)
    for count, resources in _each(config):
        for name, amount in resources.items():
            total[name] += count * amount
    return total


def _each(config: Any) -> list[tuple[int, dict[str, float]]]:
    """Return how many processes there are of either kind, and what one of them takes."""
    gpus, cpus = config.num_gpus_per_learner, config.num_cpus_per_learner
    learner = config.custom_resources_per_learner | {
        "GPU": gpus,
        "CPU": (0 if gpus else 1) if cpus == "auto" else cpus,
    }
    runner = config.custom_resources_per_env_runner | {
        "GPU": config.num_gpus_per_env_runner,
        "CPU": config.num_cpus_per_env_runner,
    }
    return [(config.num_learners, learner), (config.evaluation_num_env_runners, runner)]
