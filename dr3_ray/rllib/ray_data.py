"""A data set as one of Ray Data, read from its shards by as many tasks as Ray likes."""

import functools
import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ray.data
import torch
from ray.data.block import Block, BlockAccessor, BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from dr3_ray.data.columns import columns_of
from dr3_ray.data.loading import opened
from dr3_ray.data.reader import Dataset
from dr3_ray.data.spaces import named_parts

if TYPE_CHECKING:
    from ray.data.context import DataContext

BLOCK_BYTES = 2**24  # of rows that a task reads at a time


def as_ray_dataset(source: Dataset | str | os.PathLike[str]) -> "ray.data.Dataset":
    """Return the rows of a data set, opened or by its name, as a `ray.data.Dataset`.

    Columns have the names and values that they have on disk, so that actions of a Box lie in [-1, 1], and the shapes of
    their space. A row is read when it is wanted, by Arrow alone. Tasks on another machine read a copy of their own if
    `source` is a URI, and else need the folder there.

    Raises:
        UserError: there is no such data set.
    """
    dataset = opened(source)
    dataset.check_one("read")
    return ray.data.read_datasource(_Shards(dataset))


class _Shards(Datasource):
    """The rows of a data set, cut into as many parts as are asked for."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self._dataset = dataset

    def estimate_inmemory_data_size(self) -> int:
        return len(self._dataset) * _row_bytes(self._dataset)

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: "DataContext | None" = None,
    ) -> list[ReadTask]:
        """Return tasks that read a block each."""
        rows, size = len(self._dataset), self.estimate_inmemory_data_size()
        parts = min(max(parallelism, 1), -(-size // BLOCK_BYTES), rows)
        schema = next(iter(_blocks(self._dataset, 0, 1))).schema
        ends = [rows * part // parts for part in range(parts + 1)]
        return [
            ReadTask(
                functools.partial(_blocks, self._dataset, start, stop),
                BlockMetadata(stop - start, (stop - start) * _row_bytes(self._dataset), None, None),
                schema,
                per_task_row_limit,
            )
            for start, stop in itertools.pairwise(ends)
        ]


def _row_bytes(dataset: Dataset) -> int:
    return sum(column.row_bytes for column in columns_of(dataset.observation_space, dataset.action_space).values())


def _blocks(dataset: Dataset, start: int, stop: int) -> Iterator[Block]:
    """Yield rows from `start` up to `stop` in blocks of Arrow; the data set came as where it is."""
    step = max(1, BLOCK_BYTES // _row_bytes(dataset))
    for low in range(start, stop, step):
        yield BlockAccessor.batch_to_arrow_block(_rows(dataset, low, min(low + step, stop)))


def _rows(dataset: Dataset, start: int, stop: int) -> dict[str, Any]:
    """Return rows in the types that they have on disk, and the shapes of their space."""
    layout = columns_of(dataset.observation_space, dataset.action_space)
    columns = dataset.gather(torch.arange(start, stop), dataset.columns)
    return {name: part.numpy().astype(layout[name].dtype, copy=False) for name, part in named_parts(columns).items()}
