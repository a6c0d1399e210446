"""A Parquet table with a row for each transition, by the names of our columns.

An observation of one dimension is a list of fixed length, of more dimensions a tensor of Arrow's, of several parts a
column for each, `observations/NAME`. The schema's metadata say what the data are.
"""

from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from dr3_ray.data.exporters.job import Job
from dr3_ray.data.exporters.played import about
from dr3_ray.data.exporters.rows import batches, to_arrow

GROUP_BYTES = 2**24  # of rows that are written together


def write_parquet(job: Job) -> None:
    """Write one file, in groups of rows."""
    tables = (
        pa.table({name: to_arrow(values) for name, values in batch.items()})
        for batch in batches(job.episodes, GROUP_BYTES)
    )
    first = next(tables)
    with pq.ParquetWriter(job.path, first.schema.with_metadata(about(job.dataset))) as writer:
        for table in chain([first], tables):
            writer.write_table(table)
