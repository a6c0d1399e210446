"""The largest pack of a sweep: the number that was asked for, the one that was chosen for it before, or one chosen now.

What is chosen is in `run.json`, so that a sweep goes on with it, whatever the machine would measure then.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ray

from dr3_ray.cluster.nodes import with_keys
from dr3_ray.errors import UserError, first_line
from dr3_ray.runs.directory import RUN, is_run, read_run
from dr3_ray.stores import write_json
from dr3_ray.sweep.packs.calibration import choices
from dr3_ray.sweep.packs.packing import structure
from dr3_ray.sweep.spec.pack_size import MAX_PACK, USUAL_PACK, BestPack
from dr3_ray.sweep.spec.spec import Config, SweepSpec
from dr3_ray.sweep.trials.progress import size


def sweep_limit(
    spec: SweepSpec, members: dict[str, Config], sources: Mapping[str, str], slots: int, say: Callable[[str], None]
) -> int:
    """Return the largest number of members in a pack, for a sweep that begins.

    Measurements are made by a task with the resources of a trial. `sources` says by fingerprint where trials find each
    data set; members on others have nothing left to be trained.

    Raises:
        UserError: measuring failed, or found no room within `spec.patience`.
    """
    if known := _known(spec, members):
        return known
    say("pack auto: measuring updates in packs of several sizes")
    configs = [
        member | {"dataset": at} for member in members.values() if (at := sources.get(member["data_fingerprint"]))
    ]
    task = ray.remote(num_cpus=spec.cpus, num_gpus=spec.gpus, max_calls=1)(
        with_keys
    )  # the process ends, for its memory
    asked = task.remote(choices, largest_packs(configs, slots), spec.cpus, spec.gpus, slots)
    try:
        told = ray.get(asked, timeout=spec.patience and 60 * spec.patience)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(asked)
        raise UserError(
            f"pack auto was not measured within {spec.patience:g} minutes: make room for a trial, or give a number"
        ) from None
    except ray.exceptions.RayError as error:
        why = first_line(error)
        raise UserError(f"pack auto could not be measured ({why}): give a number instead") from error
    limit = _together(spec, told, say)
    write_json(spec.out / RUN, read_run(spec.out) | {"pack": {"limit": limit, "members": len(members)}})
    return limit


def planned_limit(
    spec: SweepSpec, members: dict[str, Config], slots: int, calibrate: bool, say: Callable[[str], None]
) -> int:
    """Return the largest number of members in a pack, for a plan: measured in this process, if it is to `calibrate`."""
    if known := _known(spec, members):
        return known
    if not calibrate:
        say(f"pack auto is measured where the sweep begins: planned for packs of {USUAL_PACK}")
        return USUAL_PACK
    return _together(spec, choices(largest_packs(members.values(), slots), spec.cpus, spec.gpus, slots), say)


def _known(spec: SweepSpec, members: dict[str, Config]) -> int | None:
    """Return the limit that was asked for or chosen before; None: it is unknown, or the sweep has grown.

    A sweep may have had few members when its limit was chosen.
    """
    if spec.pack != "auto":
        return spec.pack
    chosen: dict[str, Any] | None = read_run(spec.out).get("pack") if is_run(spec.out) else None
    return chosen["limit"] if chosen and len(members) <= chosen["members"] else None


def largest_packs(configs: Iterable[Config], slots: int) -> list[list[Config]]:
    """Return, for each structure, the members of the largest pack with which all trials at a time have work."""
    groups: dict[str, list[Config]] = {}
    for config in configs:
        groups.setdefault(structure(config), []).append(config)
    enough = min(MAX_PACK, -(-sum(map(len, groups.values())) // slots))
    return [group[:enough] for group in groups.values()]


def _together(spec: SweepSpec, limits: Sequence[BestPack], say: Callable[[str], None]) -> int:
    """Return one limit for all structures; `say` is told why."""
    limit, why = together(limits)
    limit = max(limit, 2) if spec.halving else limit  # a pack of one would be no race
    say(f"pack auto: up to {limit} members; {why}")
    return limit


def together(limits: Sequence[BestPack]) -> tuple[int, str]:
    """Return one limit for all structures, and the reason for it.

    The largest that one of them gains from, as far as memory is there for all.
    """
    fastest, fullest = max(limits, key=lambda limit: limit.size), min(limits, key=lambda limit: limit.most)
    times = f"{1000 * fastest.alone.seconds:.3g} ms alone"
    if fastest.packed != fastest.alone:
        times = f"{1000 * fastest.packed.seconds:.3g} ms in a pack of {fastest.size}, {times}"
    return min(fastest.size, fullest.most), (
        f"an update of one takes {times} ({fastest.why}), and {size(fullest.packed.memory)} of memory, "
        f"of which there are {size(fullest.room)} for a pack"
    )
