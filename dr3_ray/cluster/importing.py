"""Importing by the machines of a Ray cluster: each part is written on one of them, and its files come to this one."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from dr3_ray.cluster.connect import connect
from dr3_ray.cluster.nodes import with_keys
from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.journal import identity_of
from dr3_ray.data.importers.part import Plan, State, write_part
from dr3_ray.data.importers.source import Read, Source
from dr3_ray.errors import UserError, first_line
from dr3_ray.stores import synchronize

RETRIES = 3  # of a part whose machine or process was lost


class Wanted(NamedTuple):
    """What every machine has to have alike: it reads the same files from the same folder by the same version."""

    opened: Callable[[], Source]
    folder: str
    files: str
    version: str


def written_by_ray(
    opened: Callable[[], Source], plan: Plan, numbers: list[int], workers: int
) -> Iterator[tuple[int, State]]:
    """Yield the number and the state of each of these parts as it is written, by up to so many tasks of Ray at once.

    The machines need the source, at the same place, and no folder to write to: files come through Ray's object store.

    Raises:
        UserError: there is no cluster, a machine has not the same source, an episode is not acceptable, or a machine
            was lost again and again.
    """
    connect()
    wanted = Wanted(opened, os.getcwd(), _identity(opened()), version("dr3-ray"))
    shared = ray.put(wanted)
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(with_keys)
    waiting, running = list(reversed(numbers)), dict[ray.ObjectRef, int]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number = waiting.pop()
                running[task.remote(_write, [shared], plan, number)] = number
            (done, *_), _ = ray.wait(list(running))
            number = running.pop(done)
            yield number, _received(done, plan.folder)
    finally:
        for ref in running:
            ray.cancel(ref, force=True)


def _received(ref: ray.ObjectRef, folder: Path) -> State:
    """Write the files of a part into a folder of this machine, and return its state."""
    try:
        state, files = ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except RayError as error:
        raise UserError(
            f"a machine of the cluster was lost while it imported ({first_line(error)}): the same command goes on"
        ) from None
    for name, content in files.items():
        (folder / name).write_bytes(content)
        synchronize(folder / name)
    return state  # type: ignore[no-any-return]


def _write(shared: "list[ray.ObjectRef]", plan: Plan, number: int) -> tuple[State, dict[str, bytes]]:
    """Write a part on the machine where this runs; return its state and its files."""
    (ref,) = shared  # in a list, so that it is not fetched for each part
    wanted = _wanted(ref)
    node = ray.util.get_node_ip_address()
    if (ours := version("dr3-ray")) != wanted.version:
        raise UserError(f"{node} has dr3-ray {ours}, and this machine {wanted.version}: install the same one there")
    try:
        with contextlib.chdir(wanted.folder):
            source, parts = _opened(ref, plan.rows_per_shard)
            with tempfile.TemporaryDirectory() as folder:
                findings = Findings()
                state = write_part(
                    replace(plan, folder=Path(folder)), number, source, parts[number](findings), findings
                )
                return state, {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    except FileNotFoundError as error:
        raise UserError(f"{node} has no {error.filename or wanted.folder}: {REMEDY}") from None


REMEDY = "put the source into a folder that all machines of the cluster share"


@cache
def _wanted(ref: ray.ObjectRef) -> Wanted:
    wanted: Wanted = ray.get(ref)
    return wanted


@cache
def _opened(ref: ray.ObjectRef, rows_per_shard: int) -> tuple[Source, list[Read]]:
    wanted = _wanted(ref)
    source = wanted.opened()
    if _identity(source) != wanted.files:
        raise UserError(f"{ray.util.get_node_ip_address()} has other files at {source.name} than here: {REMEDY}")
    assert source.parts is not None
    return source, list(source.parts(rows_per_shard, Findings()))


def _identity(source: Source) -> str:
    return identity_of(source.files, ())
