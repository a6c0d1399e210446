"""Members that new ones go on from: which they are, and what is known of them.

What is read of them is plain, whoever made it: nothing is unpickled. `run.json` keeps what is known, so that a sweep
goes on when the run of its parents is gone.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dr3_ray.data import load_dataset
from dr3_ray.errors import UserError, first_line
from dr3_ray.evaluation.contract import Recorded
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.digests import MANIFEST, is_whole
from dr3_ray.runs.directory import RUN, id_of, is_run, read_run
from dr3_ray.runs.fetch import fetch
from dr3_ray.runs.index import Record, current, read_index
from dr3_ray.runs.plain import DAMAGES, read_part
from dr3_ray.runs.results import MEMBERS
from dr3_ray.stores import same_place
from dr3_ray.sweep.directory import PARENTS, spec_of
from dr3_ray.sweep.resume import packs_in
from dr3_ray.sweep.spec.spec import Config, SweepSpec
from dr3_ray.sweep.trained import plain_values
from dr3_ray.training.saved import METADATA, NAME, PLACE, STATE
from dr3_ray.types import Spaces
from dr3_ray.uris import is_local, local_path, path_here

Say = Callable[[str], None]
Opened = tuple[list[Record], str, str]
WHICH = re.compile(r"(?P<member>[0-9a-f]{1,16})(?:@(?P<updates>\d{1,12}))?")  # after the last colon of a parent
DESCRIPTION, MODULE = "description", f"{PLACE}/{NAME}.json"


class Parent(NamedTuple):
    """A trained member that others go on from."""

    name: str
    """Its hash, and after how many updates it is meant: `1a2b3c4d5e6f7a8b@10000`."""
    config: Config
    """Its full configuration; of a bare checkpoint its options, algorithm and data set."""
    kind: dict[str, Any]
    """What members of its pack have in common: `spaces`, `recorded`, `tensors`, and what their networks are used to."""
    place: str = ""
    """The run directory or checkpoint that it was asked for by."""
    pack: str = ""

    @property
    def updates(self) -> int:
        """The gradient updates that it has made."""
        return int(self.name.rpartition("@")[2])


def find_parents(spec: SweepSpec, say: Say = lambda text: None) -> list[Parent]:
    """Return the parents that a sweep asks for; those that its run directory knows are taken from there.

    Raises:
        UserError: there is no such run, member or checkpoint, or it cannot be gone on from.
    """
    known = known_parents(spec)
    parents: dict[str, Parent] = {}
    opened = cache(opened_run)
    for asked in spec.parents:
        place, which, updates = _split(asked)
        name = f"{which}@{updates}"
        if name in known:
            parents[name] = known[name]._replace(place=place)
            continue
        if same_place(place, str(spec.out)):
            raise UserError(f"members of {place} go on in another run: give another --out, or --resume for more steps")
        path = path_here(place) if is_local(place) else None
        is_checkpoint = path is not None and (path / PLACE).is_dir()
        of = _of_checkpoint(path, which) if is_checkpoint and path else _of_run(place, which, updates, opened, say)
        parents |= {parent.name: parent for parent in of}
    return list(parents.values())


def with_names(spec: SweepSpec, parents: Iterable[Parent]) -> SweepSpec:
    """Return the specification that names each of its parents, whatever their run will hold later."""
    return spec.model_copy(update={"parents": tuple(f"{parent.place}:{parent.name}" for parent in parents)})


def known_parents(spec: SweepSpec) -> dict[str, Parent]:
    """Return the parents that the run directory of a sweep knows, by name."""
    if not (spec.parents and is_run(spec.out) and (spec.out / RUN).is_file()):
        return {}
    parents: dict[str, Parent] = {}
    with suppress(UserError, *DAMAGES):  # what is damaged is looked up again where it came from
        document = read_run(spec.out)[PARENTS]
        kinds = {digest: _checked_kind(json.loads(text)) for digest, text in document["kinds"].items()}
        for name, member in document["members"].items():
            parents[name] = Parent(
                name, _checked_config(member["config"]), kinds[member["kind"]], pack=str(member["pack"])
            )
    return parents


def document_of(parents: Iterable[Parent]) -> dict[str, Any]:
    """Return what `run.json` keeps of parents."""
    kinds = {parent.name: json.dumps(parent.kind, sort_keys=True) for parent in parents}
    digests = {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in kinds.items()}
    members = {
        parent.name: {"config": parent.config, "kind": digests[parent.name], "pack": parent.pack} for parent in parents
    }
    return {"members": members, "kinds": {digests[name]: text for name, text in kinds.items()}}


def _split(asked: str) -> tuple[str, str, str]:
    """Return where parents are, the hash or place of one of them, and after how many updates; empty: all, its end."""
    place, _, which = asked.rpartition(":")
    match = WHICH.fullmatch(which)
    if not place or not match or (is_local(asked) and local_path(asked).exists()):
        return asked, "", ""
    return place, match["member"], match["updates"] or ""


def opened_run(place: str) -> Opened:
    """Return the records of a run, where its checkpoints are, and its id; of a storage those of the copy there.

    Raises:
        UserError: there is no run.
    """
    if not is_local(place):
        with tempfile.TemporaryDirectory() as folder:
            fetch(place, home := Path(folder) / "run")
            return read_index(home), place, id_of(home)
    path = path_here(place) or Path()
    if not (path / RUN).is_file():
        raise UserError(f"{place} is neither a run directory nor a checkpoint: give what a sweep wrote, or RUN:HASH")
    return read_index(path), spec_of(path).checkpoints, id_of(path)


def _of_run(place: str, which: str, updates: str, opened: Callable[[str], Opened], say: Say) -> list[Parent]:
    """Return one member of a run, or all that have finished."""
    records, storage, run = opened(place)
    chosen = [_named(place, records, which, updates)] if which else _finished(place, current(records), say)
    there = packs_in(storage)
    if lost := [record for record in chosen if record["pack"] not in there]:
        raise UserError(
            f"{place} has no checkpoint of {len(lost)} of the {len(chosen)} members to go on from, in {storage}: bring "
            "them by `dr3-ray fetch --checkpoints`, or name others by RUN:HASH"
        )
    parents, kinds = [], {}
    for record in chosen:
        pack, made = record["pack"], int(updates or record["config"]["steps"])
        if (pack, made) not in kinds:
            kinds[pack, made] = _kind_in(Checkpoints(storage, pack, run), place, pack, made)
        try:
            config = _checked_config(record["config"])
        except DAMAGES as error:
            raise UserError(f"{place} is damaged at {record['member']} ({first_line(error)}): leave it out") from None
        parents.append(Parent(f"{record['member']}@{made}", config, kinds[pack, made], place, pack))
    return parents


def _named(place: str, records: Sequence[Record], which: str, updates: str) -> Record:
    matching = [record for record in records if record["member"].startswith(which)]
    if len(matching) != 1:
        raise UserError(
            f"{len(matching)} members of {place} have a hash that begins with {which!r}: see `dr3-ray report`"
        )
    if matching[0]["status"] != "finished" and not updates:
        raise UserError(
            f"member {matching[0]['member']} of {place} is {matching[0]['status']}: go on from one that has finished, "
            "or from a checkpoint that stayed, RUN:HASH@UPDATES"
        )
    return matching[0]


def _finished(place: str, records: Sequence[Record], say: Say) -> list[Record]:
    finished = [record for record in records if record["status"] == "finished"]
    if not finished:
        raise UserError(f"no member of {place} has finished: there is nothing to go on from yet")
    if len(finished) < len(records):
        say(f"{len(records) - len(finished)} of {len(records)} members of {place} have not finished, and are left out")
    return finished


def _kind_in(checkpoints: Checkpoints, place: str, pack: str, made: int) -> dict[str, Any]:
    """Return the kind of a pack's members, from its checkpoint after so many updates."""
    there = checkpoints.updates()
    if made not in there:
        kept = ", ".join(map(str, there))
        raise UserError(
            f"{pack} of {place} has no checkpoint after {made} updates: there are {kept}; `--checkpoints keep=N` of a "
            "sweep keeps more"
        )
    files: dict[str, bytes] = {}
    if made == there[-1]:
        files = checkpoints.read(METADATA, MODULE) or {}
    else:
        checkpoints.load_at(made, lambda at: files.update(_files_in(Path(at))))
    return _kind_of(files, f"the checkpoint of {pack} in {place}", made)


def _checked_kind(kind: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of members, where it is complete.

    Raises:
        Any of DAMAGES: it is not.
    """
    Recorded.from_dict(kind["recorded"])
    Spaces(**kind["spaces"])
    if not all(isinstance(shape, list) for shape in kind["tensors"].values()):
        raise ValueError("a tensor has no shape")
    return kind | {"return_range": float(kind["return_range"])}


def _checked_config(config: Mapping[str, Any]) -> Config:
    """Return a configuration that says what every parent has to say.

    Raises:
        Any of DAMAGES: it does not.
    """
    if not (type(config["seed"]) is int and all(type(config[name]) is str for name in ("algorithm", "dataset"))):
        raise ValueError("a member has no algorithm, data set or seed")
    return {"data_fingerprint": "", "normalize_observations": False, **config}


def _files_in(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (METADATA, MODULE) if (folder / name).is_file()}


def _kind_of(files: Mapping[str, bytes], where: str, made: int | None = None) -> dict[str, Any]:
    """Return the kind of members that the files of a checkpoint describe, which is that after so many updates."""
    if MODULE not in files:
        raise UserError(
            f"{where} is damaged, or of version 0.1, which is a pickle and is not opened here: go on from another one"
        )
    try:
        told = json.loads(files[METADATA])
        if made not in (None, told["num_updates"]):
            raise ValueError(f"whole is only that after {told['num_updates']} updates")
        structure = told["structure"]
        described = read_part(files[MODULE], DESCRIPTION)
        own = {name: described.get(name) for name in ("observation_statistics", "task")}
        both = {name: structure[name] for name in ("spaces", "recorded", "tensors")}
        return _checked_kind(
            json.loads(json.dumps(both | own | {"return_range": float(described.get("return_range", 1.0))}))
        )
    except DAMAGES as error:
        raise UserError(f"{where} is damaged ({first_line(error)}): go on from another one") from None


def _of_checkpoint(path: Path, which: str) -> list[Parent]:
    """Return the members of a checkpoint directory, or the one at a place from 0 on."""
    if (path / MANIFEST).exists() and not is_whole(path):
        raise UserError(f"the checkpoint {path} is damaged: go on from another one")
    files = _files_in(path)
    kind = _kind_of(files, f"the checkpoint {path}")
    try:
        described, made = read_part(files[MODULE], DESCRIPTION), json.loads(files[METADATA])["num_updates"]
        data = (read_part((path / f"{STATE}.json").read_bytes(), "settings") or {}).get("input_", "")
        members = [plain_values(member) for member in described["members"]]
        about = {"algorithm": described["algorithm"], "dataset": str(data), "data_fingerprint": _fingerprint(data)}
        configs = [_checked_config(about | member) for member in members]
        hashes = json.loads((path / MEMBERS).read_text()) if (path / MEMBERS).is_file() else []
    except DAMAGES as error:
        raise UserError(f"the checkpoint {path} is damaged ({first_line(error)}): go on from another one") from None
    digest = hashlib.sha256(files[MODULE] + (path / PLACE / f"{NAME}.safetensors").read_bytes()).hexdigest()
    if len(hashes) != len(members):  # some were cut
        hashes = [f"{digest[:12]}{place:04x}" for place in range(len(members))]
    if which and not (which.isdecimal() and int(which) < len(members)) and which not in hashes:
        raise UserError(f"{path} has {len(members)} members: give a place from 0 to {len(members) - 1} after the colon")
    parents = [Parent(f"{name}@{made}", config, kind, str(path)) for name, config in zip(hashes, configs, strict=True)]
    if not which:
        return parents
    return [parents[hashes.index(which) if which in hashes else int(which)]]


def _fingerprint(source: str) -> str:
    """Return the fingerprint of the data in a place; empty where nothing is any more."""
    try:
        return str(load_dataset(source).fingerprint) if source else ""
    except UserError:
        return ""
