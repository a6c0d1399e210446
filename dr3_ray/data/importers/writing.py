"""One way to write any source as a data set of ours, part by part: killed at any moment, it goes on where it was."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from dr3_ray.data import states
from dr3_ray.data.actions import WIDEST
from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.journal import Journal, identity_of
from dr3_ray.data.importers.observations import observations_of
from dr3_ray.data.importers.part import Plan, Spread, written_by_workers
from dr3_ray.data.importers.reading import reading
from dr3_ray.data.importers.source import Episode, Source
from dr3_ray.data.importers.whole import write_parts
from dr3_ray.data.number_types import range_of
from dr3_ray.data.schema import MANIFEST, Manifest
from dr3_ray.data.shard_files import SHARD_BYTES, row_bytes, rows_of
from dr3_ray.data.shards import described, finish, now
from dr3_ray.data.spaces import SpaceSpec
from dr3_ray.data.targets import Target, check_target
from dr3_ray.errors import UserError

Told = Callable[[int], None]


class Wanted(TypedDict, total=False):
    """What the rows of a data set depend on besides the source, and what stands in its manifest."""

    gamma: float
    clip_actions: bool
    rescale_actions: bool
    name: str | None
    flatten: bool
    strict: bool
    command: str


class Writing(Wanted, total=False):
    """The options of `import_source`, for those who pass them on."""

    progress: Callable[[int], Told] | None


def check_writing(function: str, options: Writing) -> None:
    """Check that a function is given no other options than those of `Writing`.

    Raises:
        TypeError: it is; as Python says it.
    """
    for name in options.keys() - Writing.__annotations__.keys():
        raise TypeError(f"{function}() got an unexpected keyword argument {name!r}: help({function}) names all")


def import_source(
    opened: Callable[[], Source],
    path: str | os.PathLike[str],
    *,
    gamma: float = 0.99,
    clip_actions: bool = False,
    rescale_actions: bool = False,
    name: str | None = None,
    flatten: bool = False,
    strict: bool = False,
    command: str = "",
    progress: Callable[[int], Told] | None = None,
    identity: str | None = None,
    workers: int = 1,
    rows_per_shard: int | None = None,
    spread: Spread = written_by_workers,
) -> Manifest:
    """Write the source that `opened` returns as a data set of ours to the directory `path`.

    Memory holds an episode and a shard, for each process. What was mended or looks wrong (`dr3_ray.data.checks`) is
    warned of and noted in the manifest's provenance, as is what float32 rounds.

    Args:
        opened: opens the source; called once `path` is known to be usable, so that no download is wasted.
        path: a new or empty directory.
        gamma: the discount of the Monte-Carlo returns.
        clip_actions: whether actions outside the action space move to its bounds.
        rescale_actions: whether the range of the recorded actions becomes their bounds.
        name: of the data set; that of the source without it.
        flatten: whether a Dict of observations becomes one vector, in the order of its keys, as
            `gymnasium.wrappers.FlattenObservation` makes it. A Tuple always does.
        strict: whether a warning is an error.
        command: what the provenance says the user typed.
        progress: is told the number of rows, 0 if unknown, and returns what is told the rows of each episode.
        identity: what `opened` opens, in words. With it, an import that was killed goes on from its whole parts, if
            the same is asked for again and the source's files are as they were.
        workers: processes that read and write at once; then `opened` has to be picklable. The data are the same.
        rows_per_shard: rows in each file, at most.
        spread: has parts written by these workers; by default, processes of this machine.

    Raises:
        UserError: no such source, spaces without columns, data that cannot be learned from, a warning with `strict`,
            or no place at `path`, where nothing is left then.
    """
    _check_given(gamma, name, {"workers": workers, "rows_per_shard": 1 if rows_per_shard is None else rows_per_shard})
    if clip_actions and rescale_actions:
        raise UserError("clip_actions and rescale_actions exclude each other: bounds from the data need no clipping")
    wanted = Wanted(
        gamma=gamma,
        clip_actions=clip_actions,
        rescale_actions=rescale_actions,
        name=name,
        flatten=flatten,
        strict=strict,
        command=command,
    )
    purpose = None
    if identity is not None:
        purpose = states.dump([version("dr3-ray"), identity, rows_per_shard, wanted | {"command": ""}])
    target, keep = Target(path, purpose), False
    try:
        whole = target.open()
        new = [] if whole else _write(target, opened, wanted, progress, workers, rows_per_shard, spread)
        _clear(target.partial)
        target.commit()
    except KeyboardInterrupt:
        keep = identity is not None
        raise
    finally:
        target.close(keep)
    for note in new:
        warnings.warn(note, stacklevel=3)
    return Manifest.read(target.path)


def _write(
    target: Target,
    opened: Callable[[], Source],
    wanted: Wanted,
    progress: Callable[[int], Told] | None,
    workers: int,
    rows_per_shard: int | None,
    spread: Spread,
) -> list[str]:
    """Write all files into the folder `target.partial`, the manifest last; return what to warn of."""
    with reading("the source"):
        source = opened()
        before = identity_of(source.files, (target.path, target.partial))
        about = _about(source, wanted)
    spaces = about["observation_space"], about["action_space"]
    rows = rows_per_shard or rows_of(SHARD_BYTES, *spaces, source.stack)
    plan = Plan(target.partial, *spaces, wanted["gamma"], wanted["clip_actions"], wanted["flatten"], rows, source.stack)
    journal = Journal(target.partial, {"files": before}, {"command": wanted["command"], "created": now()})
    left = max(0, source.rows - journal.rows)
    check_target(target.path, left * row_bytes(*spaces, source.stack), target.partial.name)
    told = progress(source.rows) if progress else lambda _: None
    whole = write_parts(opened, source, plan, journal, workers, told, spread)
    with reading("the source"):
        if identity_of(source.files, (target.path, target.partial)) != before:
            raise UserError(f"{source.name} changed while it was read: import it when nothing writes to it")
    notes = whole.findings.notes()
    about["provenance"] = about["provenance"].model_copy(update=journal.once)
    _, lost = finish(
        target.partial, about, whole.tally, whole.named(), [*whole.moved.notes(), *notes], wanted["strict"]
    )
    return [*lost, *source.provenance.notes, *notes]


def _check_idle(wanted: Wanted, actions: SpaceSpec, observations: Any) -> None:
    """Check that every option has something to change.

    Raises:
        UserError: one has not.
    """
    no_bounds, one_array = actions.kind != "box", not hasattr(observations, "spaces")
    for option, idle, why in (
        ("--clip-actions", wanted["clip_actions"] and no_bounds, "actions have no bounds"),
        ("--rescale-actions", wanted["rescale_actions"] and no_bounds, "actions have no bounds"),
        ("--flatten", wanted["flatten"] and one_array, "an observation is one array"),
    ):
        if idle:
            raise UserError(f"{option} changes nothing, because {why}: leave it out")


def _about(source: Source, wanted: Wanted) -> dict[str, Any]:
    """Return what the manifest says of a source before it is read."""
    observation_space, _, order = observations_of(source.observation_space, wanted["flatten"])
    action_space, notes = SpaceSpec.of_actions(source.action_space), source.provenance.notes
    _check_idle(wanted, action_space, source.observation_space)
    if wanted["rescale_actions"]:
        action_space, note = _rescaled(action_space, source.read(Findings()))
        notes = (note, *notes)
    details = source.provenance.details | ({"observation_order": order} if order else {})
    return described(
        observation_space=observation_space,
        action_space=action_space,
        gamma=wanted["gamma"],
        name=wanted["name"] or source.name,
        provenance=source.provenance.model_copy(update={"details": details, "notes": notes}),
        environment=None if order else source.environment,  # it does not flatten
    )


def _clear(folder: Path) -> None:
    """Remove what is no part of the data set in a folder; some of its files may have moved on."""
    wanted = {MANIFEST, *(entry.file for entry in Manifest.read(folder).files)}
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()


def _check_given(gamma: Any, name: Any, counts: Mapping[str, Any]) -> None:
    for option, number in counts.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
            raise UserError(f"{option} is {number!r}: give a whole number from 1 on")
    if isinstance(gamma, bool) or not isinstance(gamma, float | int | np.number) or not 0 <= gamma <= 1:
        raise UserError(f"gamma is {gamma!r}: choose a discount between 0 and 1")
    if not isinstance(name, str | None):
        raise UserError(f"name is {name!r}: give a text")


def _rescaled(space: SpaceSpec, episodes: Iterable[Episode]) -> tuple[SpaceSpec, str]:
    """Return the space with the range of the recorded actions for bounds, and a note about it."""
    low, high = np.full(space.shape, np.inf), np.full(space.shape, -np.inf)
    for episode in episodes:
        actions = np.asarray(episode.actions)
        if actions.shape[1:] != space.shape or actions.dtype.kind not in "biuf" or not np.isfinite(actions).all():
            raise UserError(
                f"episode {episode.number}: actions are not finite numbers of shape {space.shape}: correct the source"
            )
        if len(actions):
            low, high = np.minimum(low, actions.min(0)), np.maximum(high, actions.max(0))
    before, after = (f"{np.min(pair[0]):g} to {np.max(pair[1]):g}" for pair in (space.bounds(), (low, high)))
    least, most = range_of(space.played_dtype)
    if (low < least).any() or (high > most).any() or (high - low > WIDEST).any():
        raise UserError(
            f"the recorded actions lie between {after}, too far apart for {space.played_dtype} or for float32 in "
            "[-1, 1], as which they are stored: correct or scale them in the source"
        )
    note = f"the bounds of the actions are the range of the recorded ones ({after}), and not the space's ({before})"
    return SpaceSpec.box(low, high, space.shape, env_dtype=str(space.played_dtype)), note
