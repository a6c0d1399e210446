"""D4RL's HDF5 files: flat rows, without the observation that follows the last step of an episode.

Layout: `observations`, `actions`, `rewards`, `terminals` and `timeouts`, [N, ...] or [N, 1]; `infos/*` and `metadata/*`
are not taken. Where D4RL's own `qlearning_dataset` with `terminate_on_end` takes the next episode's first observation
for the next one (https://github.com/Farama-Foundation/D4RL, d4rl/__init__.py), we do not.
"""

from pathlib import Path

from dr3_ray.data.importers.files import existing, hdf5, hdf5_keys
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import ArrayTable
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError

COLUMNS = {
    "observations": "observations",
    "actions": "actions",
    "rewards": "rewards",
    "terminateds": "terminals",
    "truncateds": "timeouts",
    "next_observations": "next_observations",  # which some files have
}
NEEDED = {"observations", "actions", "rewards", "terminals"}


def is_d4rl(path: Path) -> bool:
    """Return whether a file has the arrays of a D4RL file."""
    return hdf5_keys(path) >= NEEDED


def d4rl_source(path: str, options: Options) -> Source:
    """Return the episodes of a D4RL file.

    Raises:
        UserError: it lacks an array, or nothing says where episodes are cut.
    """
    file = hdf5(existing(path))
    if missing := NEEDED - set(file):
        raise UserError(f"{path} has no {sorted(missing)[0]}: a D4RL file has {', '.join(sorted(NEEDED))}")
    if "timeouts" not in file and options.max_steps is None:
        raise UserError(
            f"{path} has no timeouts: give --max-steps, the limit of its environment (1000 for Gym's locomotion)"
        )
    table = ArrayTable(file, {ours: [theirs] for ours, theirs in COLUMNS.items() if theirs in file})
    provenance = Provenance(source=f"d4rl:{path}")
    return table_source(table, options, name=Path(path).stem, provenance=provenance, names=file)
