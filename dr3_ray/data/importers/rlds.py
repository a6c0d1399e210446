"""RLDS tables of episodes: Parquet or Arrow files with a row for each episode, and its `steps` as a list of structs.

Layout: `steps: list<struct<observation, action, reward, discount, is_first, is_last, is_terminal>>`
(https://github.com/google-research/rlds), whatever else a row has. An observation is an array or a struct of such. The
step that is last holds the final observation: its action and reward mean nothing. Without `is_terminal` it was cut.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.files import SUFFIXES, arrow_data, existing, natural
from dr3_ray.data.importers.reading import reading
from dr3_ray.data.importers.rows import Batch
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import BatchTable, from_arrow
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    import pyarrow.dataset as pads

NEEDED = ("observation", "action", "reward", "is_last", "is_terminal")
FORMATS = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}


def is_rlds(path: Path) -> bool:
    """Return whether a file, or each of a folder, has a column `steps` of RLDS."""
    first = next(iter(_files(path)), None)
    return first is not None and has_episodes(arrow_data(first, FORMATS[first.suffix]).schema)


def rlds_source(path: str, options: Options) -> Source:
    """Return the episodes of a file, or of all files of a folder in the order of their names.

    Raises:
        UserError: there is none, or it lacks a part of RLDS's steps.
    """
    files = _files(existing(path))
    if not files:
        raise UserError(f"{path} has no file that ends with {', '.join(FORMATS)}: name one, or their folder")
    data = [arrow_data(file, FORMATS[file.suffix]) for file in files]
    for file, episodes in zip(files, data, strict=True):
        if missing := _missing(episodes.schema):
            raise UserError(f"{file} has no {missing}: an RLDS table has a column steps, of {', '.join(NEEDED)}")
    return episodes_source(data, options, Path(path).stem, f"rlds:{path}")


def has_episodes(schema: pa.Schema) -> bool:
    """Return whether a table has the column `steps` of RLDS."""
    return not _missing(schema)


def episodes_source(data: "Sequence[pads.Dataset]", options: Options, name: str, source: str) -> Source:
    """Return the episodes of tables one after the other; `name` and `source` say what they are."""

    def read(findings: Findings) -> Iterator[Batch]:
        for number, steps in enumerate(steps for episodes in data for steps in _episodes(episodes)):
            yield _transitions(steps, number, findings)

    theirs = {"observations": ["steps.observation"], "actions": ["steps.action"], "rewards": ["steps.reward"]}
    return table_source(BatchTable(read, theirs), options, name=name, provenance=Provenance(source=source))


def _files(path: Path) -> list[Path]:
    files = path.glob("*") if path.is_dir() else [path]
    return sorted((file for file in files if file.suffix in FORMATS and file.is_file()), key=natural)


def _missing(schema: pa.Schema) -> str:
    """Return the name of what is missing in the type of steps; empty if nothing is."""
    kind = schema.field("steps").type if "steps" in schema.names else None
    if kind is None or not hasattr(kind, "value_type") or not pa.types.is_struct(kind.value_type):
        return "steps"
    return next((f"steps.{name}" for name in NEEDED if kind.value_type.get_field_index(name) < 0), "")


def _episodes(data: "pads.Dataset") -> Iterator[pa.StructArray]:
    """Yield the steps of one episode after the other; memory holds a few."""
    for batch in data.to_batches(columns=["steps"], batch_size=1):
        for row in range(batch.num_rows):
            yield batch.column("steps").slice(row, 1).flatten()


def _transitions(steps: pa.StructArray, number: int, findings: Findings) -> Batch:
    """Return the steps of an episode but the last, each with the observation that follows."""
    where = f"episode {number}, steps"
    if not len(steps):
        raise UserError(f"{where} is empty: drop that episode from the source")
    with reading(where):
        observed = _parts(steps, "observation", where)
        actions, rewards, ends, terminal = (from_arrow(steps.field(name), f"{where}.{name}", 0) for name in NEEDED[1:])
    if early := np.flatnonzero((ends | terminal)[:-1]).tolist():
        raise UserError(f"{where} go on after step {early[0]}, which is last or terminal: cut it there in the source")
    if not ends[-1] and not terminal[-1]:
        findings.add("no-end")
    findings.add("last-reward", int(rewards[-1] != 0), f"step {len(rewards) - 1}", number)
    last = np.arange(len(steps) - 1) == len(steps) - 2
    return {
        **{f"observations{part}": values[:-1] for part, values in observed.items()},
        "actions": actions[:-1],
        "rewards": rewards[:-1],
        "terminateds": last & bool(terminal[-1]),
        "truncateds": last & (not terminal[-1]),
        **{f"next_observations{part}": values[1:] for part, values in observed.items()},
        "episode_ids": np.full(len(last), number),
    }


def _parts(steps: pa.StructArray, name: str, where: str, part: str = "") -> dict[str, Any]:
    """Return the arrays of an observation, those of nested structs as `/outer/inner`."""
    values = steps.field(name)
    if not pa.types.is_struct(values.type):
        return {part: from_arrow(values, f"{where}.observation{part}", 0)}
    return {
        path: array
        for field in values.type
        for path, array in _parts(values, field.name, where, f"{part}/{field.name}").items()
    }
