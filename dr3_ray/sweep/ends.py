"""The ends of parents, from which new members begin, in the storage of the sweep that trains these.

A sweep copies them once, so that its trials find them wherever they run.
"""

import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dr3_ray.errors import UserError, first_line
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.identity import PARENT, canonical
from dr3_ray.runs.plain import DAMAGES, read_plain, write_plain
from dr3_ray.sweep.parents import DESCRIPTION, Parent, opened_run
from dr3_ray.sweep.spec.spec import Config, SweepSpec
from dr3_ray.sweep.trained import plain_values
from dr3_ray.training.inheriting import Beginning
from dr3_ray.training.saved import NAME, PLACE, PREFIX, STATE
from dr3_ray.uris import is_local, local_path


def adopt(spec: SweepSpec, run: str, parents: Sequence[Parent], children: Collection[Config]) -> None:
    """Copy the ends of parents into the storage of the sweep with the id `run`, for children that have still to train.

    Raises:
        UserError: a checkpoint is damaged, of version 0.1, or of a member that diverged; or there is none any more.
    """
    wanted = {config[PARENT] for config in children}
    missing = [
        parent for parent in parents if parent.name in wanted and not _is_there(spec.checkpoints, run, parent.name)
    ]
    packs: dict[tuple[str, str, int], list[Parent]] = {}
    for parent in missing:
        packs.setdefault((parent.place, parent.pack, parent.updates), []).append(parent)
    for (place, pack, updates), members in packs.items():
        _with_folder(place, pack, updates, partial(_adopt_from, spec.checkpoints, run, members))
    for parent in missing:
        if not _is_there(spec.checkpoints, run, parent.name):
            raise UserError(f"parent {parent.name} has no checkpoint in {parent.place} that is whole: leave it out")


def read_beginning(storage: str, run: str, name: str) -> tuple[Beginning, dict[str, Any]]:
    """Read the end of a parent from the storage of a sweep, and its kind.

    Raises:
        UserError: it is not there.
    """
    rows: list[dict[str, Any]] = []
    _checkpoints(storage, run, name).load(lambda at: rows.append(read_plain(Path(at), PARENT)), mend=False)
    if not rows:
        raise UserError(f"the end of parent {name} is not in {storage} any more: begin in another --out")
    return Beginning(name, rows[0]["networks"], rows[0]["adam"]), json.loads(rows[0]["kind"])


def _with_folder(place: str, pack: str, updates: int, read: Callable[[Path], None]) -> None:
    """Have `read` read the checkpoint of a pack after so many updates; of a bare checkpoint that itself.

    Raises:
        UserError: it is gone, and so is the copy that was made of it, or we would not ask.
    """
    if is_local(place) and not local_path(place).is_dir():
        raise UserError(f"{place} is gone, and so is what was copied from it: bring it back, or begin in another --out")
    if not pack:
        return read(local_path(place))
    _, storage, run = opened_run(place)
    Checkpoints(storage, pack, run).load_at(updates, lambda at: read(Path(at)))


def _checkpoints(storage: str, run: str, name: str) -> Checkpoints:
    return Checkpoints(storage, f"{PARENT}-{name.replace('@', '-')}", run)


def _is_there(storage: str, run: str, name: str) -> bool:
    """Return whether there is a whole copy of an end; one that is damaged is removed, to be made again."""
    return _checkpoints(storage, run, name).load(lambda _: None) is not None


def _adopt_from(storage: str, run: str, members: Sequence[Parent], folder: Path) -> None:
    """Write the rows of these members of a checkpoint as checkpoints of their own."""
    try:
        _write_rows(storage, run, members, folder)
    except DAMAGES as error:
        if isinstance(error, UserError | OSError):
            raise
        raise UserError(f"the checkpoint {folder} is damaged ({first_line(error)}): go on from another one") from None


def _write_rows(storage: str, run: str, members: Sequence[Parent], folder: Path) -> None:
    module, state = read_plain(folder / PLACE, NAME), read_plain(folder, STATE)
    there = [canonical(plain_values(member)) for member in module[DESCRIPTION]["members"]]
    names = module[DESCRIPTION]["members"][0]
    networks = {name.removeprefix(PREFIX): torch.as_tensor(values) for name, values in module["state"].items()}
    population = state["learner_group"]["learner"]["optimizer"]["population"]
    for parent in members:
        options = canonical({name: parent.config.get(name) for name in names})
        if options not in there:
            raise UserError(f"{folder} has no networks of parent {parent.name}: leave it out")
        row = there.index(options)
        own = Beginning.of(parent.name, networks, population, row)
        if not all(bool(values.isfinite().all()) for values in own.networks.values() if values.is_floating_point()):
            raise UserError(f"parent {parent.name} has diverged, its parameters are not finite: leave it out")
        end = {"networks": dict(own.networks), "adam": dict(own.adam), "kind": json.dumps(parent.kind)}
        _checkpoints(storage, run, parent.name).save(parent.updates, partial(_write, end))


def _write(end: dict[str, Any], directory: str) -> None:
    write_plain(Path(directory), PARENT, end)
