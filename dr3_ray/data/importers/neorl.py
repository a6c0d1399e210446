"""NeoRL's .npz files: flat rows with their next observations, and the rows at which trajectories begin.

Layout: `obs`, `next_obs`, `action`, `reward`, `done`, `truncated` in NeoRL-2, [N, ...] or [N, 1], and `index`, the
first row of each trajectory (https://github.com/polixir/NeoRL2).
"""

from pathlib import Path

import numpy as np

from dr3_ray.data.importers.files import existing
from dr3_ray.data.importers.npz import Npz
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import ArrayTable
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError

COLUMNS = {
    "observations": "obs",
    "actions": "action",
    "rewards": "reward",
    "terminateds": "done",
    "truncateds": "truncated",
    "next_observations": "next_obs",
}
NEEDED = {"obs", "next_obs", "action", "reward", "done", "index"}


def is_neorl(path: Path) -> bool:
    """Return whether a file has the arrays of NeoRL."""
    return path.suffix == ".npz" and path.is_file() and set(Npz(path)) >= NEEDED


def neorl_source(path: str, options: Options) -> Source:
    """Return the trajectories of a NeoRL file.

    Raises:
        UserError: it lacks an array or its index is no list of beginnings.
    """
    file = Npz(existing(path))
    if missing := NEEDED - set(file):
        raise UserError(f"{path} has no {sorted(missing)[0]}: a NeoRL file has {', '.join(sorted(NEEDED))}")
    begins, rows = np.ravel(file["index"]), len(file["reward"])
    if len(begins) == 0 or begins[0] != 0 or (np.diff(begins) <= 0).any() or begins[-1] >= rows:
        raise UserError(
            f"{path} has an index that does not begin at row 0 and grow up to its {rows} rows: copy it again"
        )
    arrays = {name: file[name] for name in COLUMNS.values() if name in file}
    if "truncated" in arrays:  # a step that is both is a terminal one there
        arrays["truncated"] = (np.ravel(arrays["truncated"]) != 0) & (np.ravel(arrays["done"]) == 0)
    arrays["index"] = np.searchsorted(begins, np.arange(rows), "right")
    columns = {ours: [theirs] for ours, theirs in COLUMNS.items() if theirs in arrays} | {"episode_ids": ["index"]}
    provenance = Provenance(source=f"neorl:{path}")
    return table_source(ArrayTable(arrays, columns), options, name=Path(path).stem, provenance=provenance)
