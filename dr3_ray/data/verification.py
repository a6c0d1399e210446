"""Whether a data set is right: its contents by the rules of import, and its files as they were written."""

import hashlib
from pathlib import Path

import numpy as np

from dr3_ray.data.columns import Columns, columns_of
from dr3_ray.data.content import read_content
from dr3_ray.data.moments import described
from dr3_ray.data.number_types import Array
from dr3_ray.data.reader import Dataset
from dr3_ray.data.rules import ROUNDING, Places, first_fault
from dr3_ray.data.schema import MANIFEST, Manifest, Statistic, damaged
from dr3_ray.data.selected import Selected
from dr3_ray.stores import replace_file

CHUNK = 2**24  # bytes of rows that are looked at together


def verify(dataset: Dataset) -> None:
    """Check every row, episode, statistic and file of an opened data set.

    Of a subsample of rows, comparisons with missing rows are left out: returns and actions are compared where the next
    step is there, returns of episodes where all of their steps are. Of a subset, the whole data set is checked.

    Raises:
        UserError: says what is wrong first, and where.
    """
    dataset.check_one("verify")
    dataset = dataset.whole if isinstance(dataset, Selected) else dataset
    manifest = dataset.manifest
    if manifest.digests is not None and manifest.digests.manifest != manifest.digest:
        raise damaged(
            dataset.path,
            f"{MANIFEST} was edited since it was written (`dr3-ray data verify {dataset.path} --seal` accepts it)",
        )
    for entry in manifest.files:
        with open(dataset.path / entry.file, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                raise damaged(dataset.path, f"the contents of {entry.file} have changed since they were written")
    verify_contents(dataset if dataset.gamma == manifest.gamma else Dataset(dataset.path))


def verify_contents(dataset: Dataset) -> None:
    """Check rows, episodes and statistics alone.

    Raises:
        UserError: as `verify`.
    """
    manifest, table = dataset.manifest, dataset.episodes
    moments = described(manifest.observation_space)
    sums, sizes = np.zeros(len(table["lengths"])), np.zeros(len(table["lengths"]))
    whole = np.zeros(len(table["lengths"]), bool)
    row_bytes = sum(column.row_bytes for column in columns_of(dataset.observation_space, dataset.action_space).values())
    step = max(1, CHUNK // row_bytes)
    for start in range(0, len(dataset), step):
        dataset.check_files()
        stop = min(start + step, len(dataset))
        # one row more, so that every row is seen with the one after it
        columns = dataset.stored(start, min(stop + 1, len(dataset)))
        episode = np.searchsorted(
            table["offsets"] + table["lengths"], np.arange(start, start + len(columns["rewards"])), "right"
        )
        _check_rows(dataset, columns, start, episode)
        columns, episode = {name: values[: stop - start] for name, values in columns.items()}, episode[: stop - start]
        rewards = columns["rewards"].astype(np.float64)
        np.add.at(sums, episode, rewards)
        np.add.at(sizes, episode, np.abs(rewards))
        _check_ends(dataset, columns, episode, whole)
        for name, moment in moments.items():
            moment.add(table["returns"][:0] if name == "episode_returns" else columns[name])
    wrong = whole & (np.abs(sums - table["returns"]) > ROUNDING * sizes + np.finfo(np.float32).tiny)
    if wrong.any():
        number = table["episode_ids"][wrong.argmax()]
        raise damaged(dataset.path, f"episode {number} does not have the return of its rewards")
    if whole.all() and not manifest.complete_episodes:
        raise damaged(dataset.path, f"{MANIFEST} calls the rows a subsample, and no step of an episode is missing")
    moments["episode_returns"].add(table["returns"])
    results = {name: moment.result() for name, moment in moments.items()}
    if results.keys() != manifest.statistics.keys():
        raise damaged(dataset.path, f"{MANIFEST} does not have the statistics {', '.join(results)}")
    for name, statistic in results.items():
        if not _close(statistic, manifest.statistics[name]):
            raise damaged(dataset.path, f"the statistics of {name} in {MANIFEST} are not those of the rows")
    if manifest.content is not None and read_content(dataset) != manifest.content:
        raise damaged(dataset.path, f"{MANIFEST} has the digest of other rows and episodes")


def seal(path: Path) -> Manifest:
    """Write the manifest of a data set anew, in today's format with digests, if all contents are right.

    It serves data of an older version, and manifests that were corrected by hand.

    Raises:
        UserError: as `verify`.
    """
    dataset = Dataset(path, accept=True)
    manifest = dataset.manifest.model_copy(update={"content": read_content(dataset)}).sealed()
    dataset.manifest = manifest
    verify(dataset)
    replace_file(path / MANIFEST, manifest.text().encode())
    return manifest


def _check_rows(dataset: Dataset, columns: Columns, start: int, episode: Array) -> None:
    table = dataset.episodes
    rows = np.arange(start, start + len(episode))
    places = Places(table["episode_ids"][episode], rows - table["offsets"][episode], table["lengths"][episode])
    fault = first_fault(
        columns,
        places,
        gamma=dataset.gamma,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        complete=dataset.manifest.complete_episodes,
    )
    if fault:
        raise damaged(dataset.path, f"episode {places.ids[fault.row]} (row {start + fault.row}): {fault.what}")


def _check_ends(dataset: Dataset, columns: Columns, episode: Array, whole: Array) -> None:
    """Compare terminal flags with the table of episodes, and mark in `whole` [E] the episodes with all their steps.

    Timesteps grow within an episode, so the last one says whether a step is missing.
    """
    table = dataset.episodes
    ends = columns["terminateds"] | columns["truncateds"]
    ended = episode[ends]
    if (wrong := columns["terminateds"][ends] != table["terminated"][ended]).any():
        number = table["episode_ids"][ended[wrong.argmax()]]
        raise damaged(dataset.path, f"episode {number} is terminated by its rows or by its entry, not by both")
    whole[ended] = columns["timesteps"][ends] == table["lengths"][ended] - 1


def _close(stored: Statistic, said: Statistic) -> bool:
    """Return whether extremes are equal; mean and deviation up to the order in which they were summed."""
    allowed = ROUNDING * max(abs(stored.min), abs(stored.max))
    near = abs(stored.mean - said.mean) <= allowed and abs(stored.std - said.std) <= allowed
    return (stored.min, stored.max) == (said.min, said.max) and near
