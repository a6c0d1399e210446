"""The trained networks of a sweep, from the last checkpoints of its packs. Reading them runs no code of theirs."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple, cast

from dr3_ray.cluster.pickles import check_trusted
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.directory import id_of
from dr3_ray.runs.identity import canonical
from dr3_ray.runs.index import Record, read_index
from dr3_ray.runs.plain import is_plain
from dr3_ray.sweep.directory import spec_of
from dr3_ray.training.saved import NAME, PLACE, Trained, read_networks


def trained_networks(
    run: Path, trust: bool = False, packs: Collection[str] | None = None
) -> Iterator[tuple[Trained, list[str | None]]]:
    """Read the networks of each pack that has a checkpoint, and which member of the sweep each of theirs is.

    Yields networks with the hashes of their members, None for one that is not in the index. Checkpoints of version 0.1
    are pickles, which need `trust`. `packs` are those that are read; None: all.

    Raises:
        UserError: not a run directory, its storage cannot be used, or a checkpoint is not trusted.
    """
    for last in last_networks(run, trust, packs):
        yield last.trained, last.members


class Kept(NamedTuple):
    """The networks of a pack after so many updates, and which member of the sweep each of theirs is."""

    updates: int
    trained: Trained
    members: list[str | None]


def last_networks(run: Path, trust: bool = False, packs: Collection[str] | None = None) -> Iterator[Kept]:
    """Read the networks of the last checkpoint of each pack that is whole; arguments are those of `trained_networks`.

    Raises:
        UserError: as `trained_networks`.
    """
    for records, checkpoints in _packs(run, packs):
        networks: list[Trained] = []
        made = checkpoints.load(lambda at, kept=networks: kept.append(_trained(Path(at), trust)), mend=False)  # type: ignore[misc]
        for trained in networks:
            yield Kept(made or 0, trained, [_member(member, records) for member in trained.members])


def kept_networks(
    run: Path, trust: bool = False, packs: Collection[str] | None = None, updates: int | None = None
) -> Iterator[Kept]:
    """Read the networks of every checkpoint of each pack that stayed and is whole, or of that after so many `updates`.

    Arguments are those of `trained_networks`.

    Raises:
        UserError: as `trained_networks`.
    """
    for records, checkpoints in _packs(run, packs):
        for made in [updates] if updates is not None else checkpoints.updates():
            networks: list[Trained] = []
            checkpoints.load_at(made, lambda at, kept=networks: kept.append(_trained(Path(at), trust)))  # type: ignore[misc]
            for trained in networks:
                yield Kept(made, trained, [_member(member, records) for member in trained.members])


def _packs(run: Path, packs: Collection[str] | None) -> Iterator[tuple[list[Record], Checkpoints]]:
    """Yield the members of each pack of a run, or of these, with its checkpoints."""
    spec, own = spec_of(run), id_of(run)
    members: dict[str, list[Record]] = {}
    for record in read_index(run):
        if record["pack"] and (packs is None or record["pack"] in packs):
            members.setdefault(record["pack"], []).append(record)
    for name, records in members.items():
        yield records, Checkpoints(spec.checkpoints, name, own)


def is_pickled(checkpoint: Path) -> bool:
    """Return whether a checkpoint is one of version 0.1."""
    return not is_plain(checkpoint / PLACE, NAME)


def check_begun(storage: str, run: str, packs: list[str], trust: bool) -> None:
    """Check that packs go on from checkpoints that are trusted.

    Raises:
        UserError: packs would go on from pickles that are not.
    """
    for pack in packs:
        pickled: list[bool] = []
        checkpoints = Checkpoints(storage, pack, run)
        checkpoints.load(lambda at, answers=pickled: answers.append(is_pickled(Path(at))), mend=False)  # type: ignore[misc]
        check_trusted(f"the checkpoint of {pack} in {storage}", trust or not any(pickled))


def _trained(checkpoint: Path, trust: bool) -> Trained:
    if not is_pickled(checkpoint):
        return read_networks(checkpoint)
    check_trusted(f"the checkpoint in {checkpoint}", trust)
    from ray.rllib.core.rl_module.rl_module import RLModule

    from dr3_ray.rllib.module import PopulationModule

    module = cast(PopulationModule, RLModule.from_checkpoint(str(checkpoint.resolve() / PLACE), trust=True))
    return Trained(
        module.spec, module.spaces, module.model_config["members"], module.networks, module.recorded.to_dict()
    )


def _member(trained: dict[str, object], records: list[Record]) -> str | None:
    """Return the hash of a member by its configuration, whatever became of the others of its pack."""
    wanted = canonical(plain_values(trained))
    for record in records:
        if canonical({name: record["config"].get(name) for name in trained}) == wanted:
            return str(record["member"])
    return None


def plain_values(values: dict[str, object]) -> dict[str, object]:
    """Return options as the index has them: lists in place of tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
