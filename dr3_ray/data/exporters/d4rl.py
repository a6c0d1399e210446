"""D4RL's HDF5 files: flat arrays with a row for each step, and next observations, so that nothing is lost.

The layout is that of https://github.com/Farama-Foundation/D4RL, as `d4rl/offline_env.py` reads it. `metadata` has a
text for each thing that is known of the data.
"""

from dr3_ray.data.exporters.job import Job
from dr3_ray.data.exporters.played import about
from dr3_ray.data.exporters.rows import rows_of
from dr3_ray.data.importers.d4rl import COLUMNS


def write_d4rl(job: Job) -> None:
    """Write one file, whose arrays have their final size from the start."""
    import h5py

    with h5py.File(job.path, "w") as file:
        start = 0
        for episode in job.episodes:
            rows, stop = rows_of(episode), start + len(episode.rewards)
            for ours, theirs in COLUMNS.items():
                values = rows[ours]
                if theirs not in file:
                    file.create_dataset(theirs, (len(job.dataset), *values.shape[1:]), values.dtype)
                file[theirs][start:stop] = values
            start = stop
        for key, text in about(job.dataset).items():
            file[f"metadata/{key}"] = text
