"""Several data sets as one, for training: their rows lie one after the other, and batches have fixed shares of each."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import Field, model_validator

from dr3_ray.data import identity
from dr3_ray.data.columns import Column, Columns, columns_of, part_column, parts_on_disk
from dr3_ray.data.identity import Identities
from dr3_ray.data.labels import dataset_label, dataset_labels
from dr3_ray.data.mapped import routed
from dr3_ray.data.mixing import Mixing
from dr3_ray.data.mixture_names import MixtureName
from dr3_ray.data.n_step import Apart
from dr3_ray.data.number_types import Array
from dr3_ray.data.reader import Dataset
from dr3_ray.data.schema import Counts, FileEntry, Manifest, Provenance, ShardEntry, Statistic, format_of
from dr3_ray.data.selected import statistics_of
from dr3_ray.data.spaces import SpaceSpec
from dr3_ray.data.tasks import SEEN, TASK, is_vector, with_tasks
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    from dr3_ray.types import Spaces

OBSERVED = ("observations", "next_observations")
ACTED = ("actions", "next_actions")


class MixtureManifest(Manifest):
    """What a manifest would say of all rows; its environment is the target's, its files are those of all parts."""

    shards: tuple[ShardEntry, ...] = Field(min_length=1)
    parts: tuple[Manifest, ...]
    mixture: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Take equal names of files: they lie in several folders."""
        return self

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file of all parts."""
        return tuple(file for part in self.parts for file in part.files)

    @property
    def identities(self) -> Identities:
        """The identities: those of the parts, their shares and tasks."""
        return Identities(*map(self._identity, zip(*(part.identities for part in self.parts), strict=True)))

    @property
    def note(self) -> str | None:
        """What a reader should know about the manifests on disk."""
        return "; ".join(f"{part.name}: {part.note}" for part in self.parts if part.note) or None

    def _identity(self, parts: Sequence[str]) -> str:
        name = MixtureName.parse(self.mixture)
        return identity.of_mixture(parts, name.phases, name.since, name.tasks, name.pad)


class Mixture(Dataset):
    """The rows of all `sources`, a part each of the mixture `name`; the last is the target.

    Episodes are numbered anew. With tasks, vectors end in the one-hot of their row's task, and other observations have
    it as the part `task`, an image as `observation` beside it; where vectors are padded, zeros stand before it, up to
    the longest. Neither is part of the `observation_space`, that of the target's environment. Weights decide how
    batches are drawn (`mixing`), and nothing else.

    Raises:
        UserError: the sources have other spaces, and are not to be padded or cannot be; or observations have a part of
            the task's name.
    """

    def __init__(self, name: MixtureName, sources: Sequence[Dataset]) -> None:
        target = sources[-1]
        self.name, self.sources = name, tuple(sources)
        self.path, self.gamma, self._uri, self._looked = target.path, target.gamma, None, 0.0
        (check_paddable if name.pad else check_alike)([part.data for part in name.parts], sources)
        rows = tuple(map(len, sources))
        self._ends = np.cumsum(rows)
        labels = dataset_labels(part.data for part in name.parts)
        self.mixing = Mixing(tuple(labels[part.data] for part in name.parts), rows, name.phases, name.since)
        self._shifts = [0, *np.cumsum([source.episodes["episode_ids"][-1] + 1 for source in sources]).tolist()]
        self.manifest = _manifest(name, sources)
        self.episodes = self._table(self.mixing.starts)
        self._layout = columns_of(self.observation_space, self.action_space)
        self._suffixes: list[Array] = []  # what stands behind vectors of the sources
        self._tasks: frozenset[str] = frozenset()  # columns that are tasks
        self._theirs: dict[str, str] = {}  # columns of the sources that have another name here
        self._ones: list[Array] = []  # of the sources, where tasks are a part of the observations
        if name.pad or (name.tasks and is_vector(self.observation_space)):
            self._widen()
        elif name.tasks:
            self._set_apart(np.eye(max(name.tasks) + 1, dtype=np.float32)[list(name.tasks)])
        self._parts = parts_on_disk(self._layout)
        if any(source.apart for source in sources):
            aparts = [source.apart or Apart(source, np.arange(len(source))) for source in sources]
            wholes = [apart.whole for apart in aparts]
            starts = np.cumsum([0, *map(len, wholes)]).tolist()
            places = [apart.rows + start for apart, start in zip(aparts, starts, strict=False)]
            self.apart = Apart(Mixture(name, wholes), np.concatenate(places))  # type: ignore[arg-type]  # all are data sets

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as the name and the parts."""
        return Mixture, (self.name, self.sources)

    @property
    def spaces(self) -> "Spaces":
        """The spaces as networks are built for them, with the tasks."""
        plain = super().spaces
        return plain if self.task is None else with_tasks(plain, self.observation_space, len(self.task))

    def statistics(self) -> dict[str, Statistic]:
        """Compute those of all rows, which are read for it; weights and tasks do not count."""
        return statistics_of(self.sources)

    def check_files(self) -> None:
        """Check that no mapped file of a part was cut short.

        Raises:
            UserError: one was.
        """
        for source in self.sources:
            source.check_files()
            self._looked = source._looked

    @property
    def wholes(self) -> tuple[Dataset, ...]:
        """The data sets on disk in which the rows lie."""
        return tuple(whole for source in self.sources for whole in source.wholes)

    def on_disk(self, rows: Array) -> list[tuple[Dataset, Array]]:
        """Return in which data sets on disk some rows [R] lie, and where there."""
        part_of = np.searchsorted(self._ends, rows, "right")
        starts = [0, *self._ends.tolist()]
        parts = [(source, rows[part_of == number] - starts[number]) for number, source in enumerate(self.sources)]
        return [path for source, part in parts if len(part) for path in source.on_disk(part)]

    def _select(self, rows: Array, stored: Sequence[str]) -> Columns:
        def piece(number: int, part: Array) -> Columns:
            names = {name: self._theirs.get(name, name) for name in stored if name not in self._tasks}
            lying = self.sources[number]._select(part, tuple(names.values()))
            values = {name: lying[theirs] for name, theirs in names.items()}
            for column in self._tasks.intersection(stored):
                values[column] = np.broadcast_to(self._ones[number], (len(part), self.tasks))
            if "episode_ids" in values:
                values["episode_ids"] = values["episode_ids"].astype(np.int64) + self._shifts[number]
            for column in OBSERVED if self._suffixes else ():
                if column in values:
                    behind = self._suffixes[number]
                    values[column] = np.concatenate(
                        [values[column], np.broadcast_to(behind, (len(part), len(behind)))], 1
                    )
            for column in ACTED if self.name.pad and self.action_space.kind == "box" else ():
                if column in values:
                    lacking = self.action_space.size - values[column].shape[1]
                    values[column] = np.pad(values[column], ((0, 0), (0, lacking)))
            return values

        return routed(rows, self._ends, piece)

    def _table(self, starts: Sequence[int]) -> Columns:
        """Return the table of episodes of all parts, which start at these rows."""
        moved = {"episode_ids": self._shifts, "offsets": starts}
        return {
            name: np.concatenate(
                [source.episodes[name] + moved[name][number] if name in moved else source.episodes[name]
                 for number, source in enumerate(self.sources)]
            )
            for name in self.sources[0].episodes
        }  # fmt: skip

    def _lying(self, stored: Sequence[str]) -> list[str]:
        """Return those of these columns that lie on disk, by their names there."""
        return [self._theirs.get(name, name) for name in stored if name not in self._tasks]

    def _set_apart(self, ones: Array) -> None:
        """Make the one-hots of the sources [sources, tasks] a part of the observations."""
        if TASK in self.observation_space.parts:
            raise UserError(f"{self.name}: observations have a part {TASK!r}: leave out the tasks, or rename that part")
        self._theirs = {f"{column}/{SEEN}": column for column in OBSERVED if column in self._layout}
        ours = {theirs: name for name, theirs in self._theirs.items()}
        layout = {ours.get(name, name): column for name, column in self._layout.items()}
        self._tasks = frozenset(part_column(column, TASK) for column in OBSERVED)
        self._layout = layout | {name: Column(np.dtype(np.float32), ones.shape[1:]) for name in self._tasks}
        self._ones, self.task, self.tasks = list(ones), ones[-1], ones.shape[1]

    def _widen(self) -> None:
        """Make room for padding and tasks behind the observations."""
        tasks = self.name.tasks
        ones = np.eye(max(tasks) + 1)[list(tasks)] if tasks else np.zeros((len(self.sources), 0))
        sizes = [source.observation_space.size for source in self.sources]
        self._suffixes = [
            np.concatenate([np.zeros(max(sizes) - size), one]).astype(np.float32)
            for size, one in zip(sizes, ones, strict=True)
        ]
        self.tasks = ones.shape[1]
        if max(sizes) + self.tasks > min(sizes):
            self.task = self._suffixes[-1]
        for column in OBSERVED:
            self._layout[column] = replace(self._layout[column], shape=(max(sizes) + self.tasks,))


def check_alike(names: Sequence[str], sources: Sequence[Dataset]) -> None:
    """Check that data sets with these names have the same spaces.

    Raises:
        UserError: they have not; the line shows both.
    """
    for name, source in zip(names, sources, strict=True):
        for kind in ("observation", "action"):
            one, other = (getattr(one, f"{kind}_space") for one in (sources[0], source))
            if _plain(one) != _plain(other):
                theirs, ours = (" ".join(str(source.to_gymnasium()).split()) for source in (other, one))
                raise UserError(
                    f"{dataset_label(name)} has the {kind} space {theirs}, and {dataset_label(names[0])} has {ours}: "
                    "mix data sets of one space, import them with the same bounds, or end the name in ,pad=true "
                    "where lengths differ"
                )


def check_paddable(names: Sequence[str], sources: Sequence[Dataset]) -> None:
    """Check that data sets with these names differ, and only by the lengths of vectors or the number of choices.

    Raises:
        UserError: they do not differ, or by something else; or the target has fewer actions than another part.
    """
    target = sources[-1].action_space
    for name, source in zip(names, sources, strict=True):
        observations, actions = source.observation_space, source.action_space
        if not is_vector(observations):
            said = " ".join(str(observations.to_gymnasium()).split())
            raise UserError(
                f"{dataset_label(name)}: vectors are padded, and its observations are {said}: leave out pad"
            )
        if actions.kind != target.kind or actions.choices or target.choices or actions.dtype != target.dtype:
            theirs, ours = (" ".join(str(space.to_gymnasium()).split()) for space in (actions, target))
            raise UserError(
                f"{dataset_label(name)} has the action space {theirs}, and {dataset_label(names[-1])} has {ours}: "
                "two Box spaces are padded, or two Discrete ones, so mix others"
            )
        if _choices(actions) > _choices(target):
            raise UserError(
                f"{dataset_label(name)} has {_choices(actions)} actions, and the target {dataset_label(names[-1])} has "
                f"{_choices(target)}: its policy could choose one that is none there, so name the longest last"
            )
    alike = {(source.observation_space.size, _choices(source.action_space)) for source in sources}
    if len(alike) == 1:
        raise UserError(f"{dataset_label(names[-1])} and the others have vectors of one length: leave out pad")


def _choices(space: SpaceSpec) -> int:
    """Return how many actions are chosen from, or of how many numbers one is."""
    return space.n or space.size


def _plain(space: SpaceSpec) -> object:
    return identity.space(space.model_dump())


def _manifest(name: MixtureName, sources: Sequence[Dataset]) -> MixtureManifest:
    given, target = [source.manifest for source in sources], sources[-1].manifest
    counts = {count: sum(getattr(manifest.counts, count) for manifest in given) for count in Counts.model_fields}
    origins = [manifest.provenance for manifest in given]

    def together(field: str) -> str:
        return "; ".join(dict.fromkeys(getattr(origin, field) for origin in origins))

    return MixtureManifest.model_validate(
        {field: getattr(target, field) for field in Manifest.model_fields}
        | {
            "name": dataset_label(str(name))[:500],
            "format": format_of((file for manifest in given for file in manifest.shards), None),
            "content": None,
            "complete_episodes": all(manifest.complete_episodes for manifest in given),
            "counts": Counts(**counts),
            "shards": tuple(file for manifest in given for file in manifest.shards),
            "statistics": {},
            "digests": None,
            "provenance": Provenance(
                source=together("source"),
                version=together("version"),
                licence=together("licence"),
                command=together("command"),
                created=together("created"),
                notes=tuple(dict.fromkeys(note for origin in origins for note in origin.notes)),
            ),
            "parts": tuple(given),
            "mixture": str(name),
        }
    )
