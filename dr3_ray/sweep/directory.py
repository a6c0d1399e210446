"""The run directory: `run.json`, and who may write in it."""

import json
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dr3_ray.errors import UserError
from dr3_ray.stores import absolute, replace_file
from dr3_ray.sweep.index import Index
from dr3_ray.sweep.resume import refuse_changes, versions
from dr3_ray.sweep.spec import Config, SweepSpec

RUN = "run.json"
FORMAT = 2


@contextmanager
def open_run(spec: SweepSpec, planned: dict[str, Config], command: list[str], force: bool = False) -> Iterator[Index]:
    """Create the run directory of a sweep, or take up the one that is there; other writers are kept out meanwhile.

    `run.json` then describes this command (all commands so far are in its `history`), and every planned member is in
    the index, but for those of a search, which are examples of what it may propose. Members that a sweep left `running`
    when it was killed become `pending`.

    Raises:
        UserError: the directory holds something else, is damaged, in use by another sweep, or cannot be written; or,
            without `force`, it was begun by other code or on other data.
    """
    path = spec.out
    try:
        if not is_run(path):
            _create(path)
        index = Index(path)
    except OSError as error:
        raise UserError(f"{path} cannot be used as run directory: {error.strerror or error}") from error
    with index:
        if not force:
            refuse_changes(path, read_run(path), planned, index)
        left = [member for member, record in index.records.items() if record["status"] == "running"]
        index.write(left, "pending", error="interrupted")
        known = {member: record["config"] for member, record in index.records.items()}
        if spec.search is None:
            index.write([member for member in planned if member not in known], "pending", configs=planned)
        configs = list({**known, **planned}.values())
        document = _document(spec, command, configs, read_run(path))
        write_json(path / RUN, document | ({"foreseen": len(planned)} if spec.search else {}))
        yield index


def is_run(path: Path) -> bool:
    """Whether the directory is a run of ours; False if it is empty or not there. UserError if it is something else."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    if not (path / RUN).is_file():
        raise UserError(f"{path} exists and is not a run directory: choose another one, or remove it first")
    read_run(path)
    return True


def read_run(path: Path) -> dict[str, Any]:
    """The document `run.json` of a run directory. UserError: damaged, or of another format."""
    try:
        document = json.loads((path / RUN).read_text())
    except ValueError as error:
        raise UserError(f"{path / RUN} is damaged ({error}): choose another directory, or remove it first") from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise UserError(f"{path / RUN} has format {found!r}, this version writes {FORMAT}: choose another directory")
    return document


def spec_of(path: Path) -> SweepSpec:
    """What a run directory was asked for last. UserError: not one, or damaged."""
    if not is_run(path):
        raise UserError(f"{path} is not a run directory: there is nothing to resume")
    asked = read_run(path).get("spec")
    if asked is None:  # killed within the moment in which it was made
        raise UserError(f"{path} does not say what was asked for: give the whole command again")
    return SweepSpec(**asked | {"out": path})


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Replace a file in one step."""
    replace_file(path, (json.dumps(document, indent=1) + "\n").encode())


def axes(configs: Iterable[Config]) -> list[str]:
    """What members differ in, apart from the seed.

    `algorithm` and `dataset` if there are several, always `dr3_coeff`, then whatever else differs between members of
    one algorithm on one data set.
    """
    groups: dict[tuple[str, str], list[Config]] = {}
    for config in configs:
        groups.setdefault((config["algorithm"], config["dataset"]), []).append(config)
    several = [name for part, name in enumerate(("algorithm", "dataset")) if len({key[part] for key in groups}) > 1]
    differing = {
        name for group in groups.values() for config in group for name in config if config[name] != group[0].get(name)
    }
    return [*several, "dr3_coeff", *sorted(differing - {"seed", "dr3_coeff"})]


def _document(
    spec: SweepSpec, command: list[str], configs: Iterable[Config], earlier: dict[str, Any]
) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    chosen = {"pack": earlier["pack"]} if "pack" in earlier else {}
    return chosen | {
        "format": FORMAT,
        "name": spec.out.resolve().name,
        "command": command,
        "id": earlier.get("id", uuid.uuid4().hex),
        "created": earlier.get("created", now),
        "versions": versions(),
        "spec": spec.model_dump(mode="json") | {"datasets": [absolute(source) for source in spec.datasets]},
        "axes": axes(configs),
        "history": [*earlier.get("history", []), {"command": command, "time": now, "versions": versions()}],
    }


def _create(path: Path) -> None:
    """A directory that can be told to be ours from the moment it exists."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        write_json(partial / RUN, {"format": FORMAT})
        partial.rename(path)
    except OSError:
        shutil.rmtree(partial)
        raise
