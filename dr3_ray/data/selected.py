"""Some rows of a data set as a data set: row indices are mapped, and no column is copied."""

from collections.abc import Sequence

import numpy as np

from dr3_ray.data import identity
from dr3_ray.data.columns import Columns
from dr3_ray.data.identity import Identities
from dr3_ray.data.moments import described
from dr3_ray.data.n_step import Apart
from dr3_ray.data.number_types import Array
from dr3_ray.data.reader import Dataset
from dr3_ray.data.schema import Counts, Manifest, Statistic
from dr3_ray.data.subsets import Subset, table_of

ROWS_AT_ONCE = 65_536


class SubsetManifest(Manifest):
    """What a manifest would say of some rows of a data set. Its files are those of the whole."""

    whole: Manifest
    subset: str

    @property
    def identities(self) -> Identities:
        """The identities: those of the whole, and which rows."""
        return Identities(*(identity.of_subset(whole, self.subset) for whole in self.whole.identities))

    @property
    def note(self) -> str | None:
        """What a reader should know about the manifest on disk."""
        return self.whole.note


class Selected(Dataset):
    """The rows of `whole` that `subset` names.

    All columns say of a row what they say in the whole, `next_observations` and `monte_carlo_returns` too. Where rows
    are drawn one by one, several steps (`gather_n_step`) go on in the whole.

    Raises:
        UserError: the whole has fewer episodes than it takes.
    """

    def __init__(self, whole: Dataset, subset: Subset) -> None:
        vars(self).update(vars(whole))  # its open files
        self.whole, self.subset = whole, subset
        self.rows = rows = subset.rows(whole.episodes, str(whole.path))
        self.episodes = table_of(whole.episodes, rows)
        theirs = np.isin(whole.episodes["episode_ids"], self.episodes["episode_ids"])
        uncut = bool((whole.episodes["lengths"][theirs] == self.episodes["lengths"]).all())
        flags = self._select(np.arange(len(rows)), ("terminateds", "truncateds"))
        ends = {name: int(values.sum()) for name, values in flags.items()}
        self.manifest = SubsetManifest.model_validate(
            dict(whole.manifest)
            | {
                "counts": Counts(rows=len(rows), episodes=len(self.episodes["lengths"]), **ends),
                "complete_episodes": whole.manifest.complete_episodes and uncut,
                "statistics": {},
                "whole": whole.manifest,
                "subset": str(subset),
            }
        )
        self.apart = Apart(whole, self.rows) if subset.way == "uniform" else None

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as the whole and the subset."""
        return Selected, (self.whole, self.subset)

    def statistics(self) -> dict[str, Statistic]:
        """Compute those of these rows, which are read for it."""
        return statistics_of([self])

    @property
    def wholes(self) -> tuple[Dataset, ...]:
        """The data sets on disk in which the rows lie."""
        return self.whole.wholes

    def on_disk(self, rows: Array) -> list[tuple[Dataset, Array]]:
        """Return in which data sets on disk some rows [R] lie, and where there."""
        return self.whole.on_disk(self.rows.take(rows))

    def _select(self, rows: Array, stored: Sequence[str]) -> Columns:
        return self.whole._select(self.rows.take(rows), stored)


def statistics_of(datasets: Sequence[Dataset]) -> dict[str, Statistic]:
    """Compute the statistics of the rows of data sets of one space together, which are read for it."""
    moments = described(datasets[0].observation_space)
    names = [name for name in moments if name != "episode_returns"]
    for data in datasets:
        moments["episode_returns"].add(data.episodes["returns"])
        for start in range(0, len(data), ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, len(data)))
            for name, values in data._select(rows, names).items():
                moments[name].add(values)
    return {name: moment.result() for name, moment in moments.items()}


def subset_of(dataset: Dataset) -> str:
    """Return in words which rows of how many a data set has; nothing of a whole one."""
    return f"{dataset.subset}, of {len(dataset.whole):,} rows" if isinstance(dataset, Selected) else ""
