"""The run directory of a sweep: begun, or taken up again, while nobody else writes in it."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dr3_ray.data.loading import largest_reward
from dr3_ray.errors import UserError, first_line
from dr3_ray.runs.directory import FORMAT, RENEW, RUN, DamagedRunError, asked_of, is_run, read_run
from dr3_ray.runs.fetch import fetch, home_of
from dr3_ray.runs.identity import LATER, OF_PARENT, PARENT
from dr3_ray.runs.index import FETCHED, INDEX, Index, longer_twins
from dr3_ray.runs.keys import MARK, mark
from dr3_ray.runs.mirror import described, kept_index
from dr3_ray.runs.places import PLACE, placed
from dr3_ray.runs.storage import owner_of
from dr3_ray.stores import NO_ROOM, make_folder, rename_folder, same_place, set_aside, write_json
from dr3_ray.sweep.recovery import restore_rows
from dr3_ray.sweep.resume import refuse_changes, refuse_elsewhere, versions
from dr3_ray.sweep.spec.environment import check_resumed
from dr3_ray.sweep.spec.spec import FILES, Config, SweepSpec
from dr3_ray.trust.secrets import keep_keys, masked
from dr3_ray.uris import absolute, is_local, is_uri, local_path

PARENTS = "parents"  # in run.json: what is known of the members that others go on from
NOT_AXES = (PARENT, f"{OF_PARENT}data_fingerprint", "statistics")  # which follow from others


@contextmanager
def open_run(
    spec: SweepSpec,
    planned: dict[str, Config],
    command: list[str],
    force: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Index]:
    """Create the run directory of a sweep, or take up the one that is there, and keep other writers out meanwhile.

    `run.json` then describes this command (all commands so far are in its `history`), and every planned member is in
    the index, but for those of a search, which are examples of what it may propose. Members that a sweep left `running`
    when it was killed become `pending`; so do those that have ended and whose rows are lost. `say` is told of these.

    Raises:
        UserError: the directory holds something else, is damaged, in use by another sweep, or cannot be written; or,
            without `force`, it was begun by other code or on other data.
    """
    path = spec.out
    with _room_in(path):
        new = not is_run(path)
        examples = {"foreseen": len(planned)} if spec.search else {}
        try:
            if new:
                _create(path, _document(spec, command, planned.values(), {}) | examples)
            _check_ours(path)
            index = Index(path, planned, say, lambda: kept_index(path, spec.storage))
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            raise UserError(f"{path} cannot be used as run directory: {error.strerror or error}") from error
        with index:
            try:
                read_run(path)
            except DamagedRunError as error:
                begun = {member: record["config"] for member, record in index.records.items()}
                _renew(spec, {**begun, **planned}.values(), error, say)
            restore_rows(spec, read_run(path), index, say)
            if not force:
                refuse_changes(path, read_run(path), planned, index)
                refuse_elsewhere(spec, read_run(path), index)
            (path / FETCHED).unlink(missing_ok=True)  # from here on it is ahead of what it was copied from
            left = [member for member, record in index.records.items() if record["status"] == "running"]
            index.write(left, "pending", error="interrupted")
            known = {member: record["config"] for member, record in index.records.items()}
            if spec.search is None:
                index.write([member for member in planned if member not in known], "pending", configs=planned)
            if not new:
                configs = list({**known, **planned}.values())
                keep_keys(path, spec.model_dump_json())
                write_json(path / RUN, _document(spec, command, configs, read_run(path)) | examples)
            yield index


@contextmanager
def _room_in(path: Path) -> Iterator[None]:
    """Name the directory of a run in errors about a full disk, at the start or later.

    Raises:
        UserError: there is no room.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        reason = os.strerror(error.errno)
        raise UserError(f"no room left in {path} ({reason}): make some, and the same command goes on") from error


def spec_of(path: Path) -> SweepSpec:
    """Return the last specification of a run directory.

    Raises:
        UserError: it is no run directory, or damaged.
    """
    asked, document = asked_of(path), read_run(path)
    try:
        log = [name for name in asked.get("log", ()) if name not in FILES]
        return SweepSpec(**placed(asked, document, path) | {"out": path, "log": log})
    except UserError as error:
        writer = document.get("versions", {}).get("dr3-ray")
        if writer in (None, here := versions()["dr3-ray"]):
            raise
        raise UserError(f"{path / RUN} is of dr3-ray {writer}, and this is {here}: {error}") from None
    except (TypeError, AttributeError, KeyError) as error:
        raise DamagedRunError(f"{path / RUN} is damaged at spec ({first_line(error)}): {RENEW}") from None


def taken_up(run: str) -> SweepSpec:
    """Return the specification to go on with, of a run directory or of the storage of a run whose directory is lost.

    A storage at a URI is brought to `runs/` first.

    Raises:
        UserError: it is neither, or the run directory is here.
    """
    run = absolute(run) if is_uri(run) else run
    path = local_path(run) if is_uri(run) and is_local(run) else Path(run)
    if is_local(run) and not (_is_copy(path) and is_uri(run)):
        _refuse_copy(run, path)
        return spec_of(path)
    out = home_of(run)
    _refuse_copy(run, out)
    if not out.exists():
        fetch(run, out)
        return spec_of(out).model_copy(update={"storage": run})
    if (storage := spec_of(out).storage) is None or not same_place(storage, run):
        raise UserError(f"{out} is another run than {run}: go to another directory")
    return spec_of(out)


def resumed(run: str, steps: int | None = None, evaluations: int | None = None, trust: bool = False) -> SweepSpec:
    """Return the specification to go on with, as `taken_up`; with more `steps` as `lengthened`.

    Raises:
        UserError: as these two; or an environment would be imported that somebody else named, without `trust`.
    """
    asked = taken_up(run)
    if steps is not None:
        asked = lengthened(asked, steps, evaluations)
    elif evaluations is not None:
        raise UserError("evaluations of a run change with its steps alone: give more steps, too")
    check_resumed(asked.environment, asked.out, read_run(asked.out).get(MARK), trust)
    return asked


def lengthened(spec: SweepSpec, steps: int, evaluations: int | None = None) -> SweepSpec:
    """Return the specification of a run that goes on with more steps; without `evaluations` they stay as far apart.

    Raises:
        UserError: it has as many steps, or they are no multiple of what lies between two evaluations, or it searches.
    """
    if steps < spec.steps:
        raise UserError(f"{spec.out} has {spec.steps:,} steps already: give more than that, not {steps:,}")
    if spec.search and steps > spec.steps:
        raise UserError(
            f"{spec.out} was searched by what members are worth after {spec.steps:,} steps, and with {steps:,} it is "
            f"another search: give another --out, or train what it found longer by --from {spec.out} --steps N"
        )
    every = spec.steps // spec.evaluations
    if evaluations is None and steps % every:
        near = " or ".join(f"{length:,}" for length in (steps // every * every, (steps // every + 1) * every))
        raise UserError(
            f"{spec.out} is evaluated every {every:,} steps, and {steps:,} is no multiple of that: ask for {near}, or "
            "for --evaluations, too"
        )
    asked = spec.model_dump(include=spec.model_fields_set)
    return SweepSpec(**asked | {"steps": steps, "evaluations": evaluations or steps // every})


def _is_copy(folder: Path) -> bool:
    """Return whether a folder is the storage in which a run keeps a copy of itself."""
    asked = (read_run(folder) if (folder / RUN).is_file() else {}).get("spec") or {}
    return isinstance(storage := asked.get("storage"), str) and same_place(storage, str(folder))


def _refuse_copy(run: str, out: Path) -> None:
    """Refuse to go on in `run` if it is the copy of a run whose own directory is here."""
    document = described(run)
    storage, own = (document.get("spec") or {}).get("storage"), Path(document.get(PLACE) or out)
    if storage is None or not same_place(storage, run) or same_place(str(own), str(out)):
        return
    if (own / RUN).is_file() and read_run(own).get("id") == document.get("id"):
        raise UserError(f"{run} is what the run in {own} keeps of itself: `dr3-ray sweep --resume {own}` goes on")


def axes(configs: Iterable[Config]) -> list[str]:
    """Return the options in which members differ, apart from the seed.

    `algorithm` and `dataset` if there are several, always `dr3_coeff`, then whatever else differs between members of
    one algorithm on one data set. Parents are told by what they had.
    """
    groups: dict[tuple[str, str], list[Config]] = {}
    for config in _not_outgrown(configs):
        groups.setdefault((config["algorithm"], config["dataset"]), []).append(config)
    several = [name for part, name in enumerate(("algorithm", "dataset")) if len({key[part] for key in groups}) > 1]
    differing = {
        name
        for group in groups.values()
        for config in group
        for name in config
        if config[name] != group[0].get(name, LATER.get(name))
    }
    return [*several, "dr3_coeff", *sorted(differing - {"seed", "dr3_coeff", *NOT_AXES})]


def _not_outgrown(configs: Iterable[Config]) -> list[Config]:
    """Return the configurations without those of members that longer ones take up."""
    named = {str(place): config for place, config in enumerate(configs)}
    outgrown = longer_twins({"member": name, "config": config} for name, config in named.items())
    return [config for name, config in named.items() if name not in outgrown]


def _document(
    spec: SweepSpec, command: list[str], configs: Iterable[Config], earlier: dict[str, Any]
) -> dict[str, Any]:
    now, command = datetime.now(UTC).isoformat(timespec="seconds"), [masked(word) for word in command]
    before = [
        command | {"command": [masked(word) for word in command["command"]]} for command in earlier.get("history", [])
    ]
    chosen = {name: earlier[name] for name in ("pack", PARENTS, MARK) if name in earlier}
    configs = list(configs)
    rewards = {
        config["data_fingerprint"]: config["dataset"]
        for config in configs
        if config["dataset"] in spec.datasets or spec.inherits("datasets")
    }
    return chosen | {
        "format": FORMAT,
        "name": spec.out.resolve().name,
        "command": command,
        "id": earlier.get("id", uuid.uuid4().hex),
        "created": earlier.get("created", now),
        "versions": versions(),
        PLACE: str(spec.out.resolve()),
        "spec": spec.written() | {"out": str(spec.out.resolve())},
        "axes": axes(configs),
        "rewards": earlier.get("rewards", {})
        | {fingerprint: largest_reward(source) for fingerprint, source in rewards.items()},
        "history": [*before, {"command": command, "time": now, "versions": versions()}],
    }


def _check_ours(path: Path) -> None:
    """Refuse a `run.json` of another format, or a nonsensical one where there is no index either."""
    try:
        read_run(path)
    except DamagedRunError as error:
        if not (path / INDEX).is_file():
            reason = str(error).partition(":")[0]
            raise UserError(f"{reason}, and there is no index: choose another directory, or remove it first") from None


def _renew(spec: SweepSpec, configs: Iterable[Config], why: DamagedRunError, say: Callable[[str], None]) -> None:
    """Begin `run.json` anew, with the name by which the storage of this sweep knows it and the columns of its rows."""
    path = spec.out / RUN
    if path.exists():
        set_aside(path)
    owner = owner_of(spec.checkpoints)
    is_own = not spec.storage or (owner or {}).get("where") == str(spec.out.resolve())  # its own folder, moved or not
    own = owner if owner and is_own else {}
    write_json(path, {"format": FORMAT, "axes": axes(configs)} | ({"id": own["run"]} if own else {}))
    say(f"{str(why).partition(':')[0]}: renewed by this command; with which versions it was begun is no longer known")


def _create(path: Path, document: dict[str, Any]) -> None:
    """Create a directory that can be told to be ours, and resumed, from the moment it exists."""
    path = path.resolve()
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        keep_keys(partial, json.dumps(document))
        write_json(partial / RUN, document | {MARK: mark(partial)})  # which holds under its final name, too
        rename_folder(partial, path)
    except OSError:
        shutil.rmtree(partial)
        raise
