"""robomimic's HDF5 files: a group for each demonstration, with observations by name.

Layout: `data/demo_i/{obs/*, next_obs/*, actions, rewards, dones}`, [T, ...]. `dones` may mean that a demonstration ends
or that its task is solved (https://robomimic.github.io/docs/datasets/overview.html): a step is terminated where it has
a reward as well, else truncated. Where rewards stand at other steps too, a time limit may have cut it there.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.files import existing, hdf5, hdf5_keys
from dr3_ray.data.importers.rows import Batch
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import BatchTable
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError

NEEDED = {"obs", "actions", "rewards", "dones"}


def is_robomimic(path: Path) -> bool:
    """Return whether a file has demonstrations."""
    if "data" not in hdf5_keys(path):
        return False
    with hdf5(path) as file:
        return any(re.fullmatch(r"demo_\d+", name) for name in getattr(file["data"], "keys", list)())


def robomimic_source(path: str, options: Options) -> Source:
    """Return the demonstrations of a robomimic file in the order of their numbers.

    Raises:
        UserError: one lacks an array.
    """
    file = hdf5(existing(path))
    if "data" not in file:
        raise UserError(f"{path} has no group `data`: it is no robomimic file")
    demos = sorted((name for name in file["data"] if re.fullmatch(r"demo_\d+", name)), key=lambda name: int(name[5:]))

    def read(findings: Findings) -> Iterator[Batch]:
        """Yield the rows of one demonstration after the other."""
        for name in demos:
            demo = file["data"][name]
            if missing := NEEDED - set(demo):
                raise UserError(f"{path}, {name} has no {sorted(missing)[0]}: import a file with observations")
            rewards, dones = np.ravel(demo["rewards"]), np.ravel(demo["dones"]) != 0
            if ((rewards > 0) & dones).any() and ((rewards > 0) & ~dones).any():
                findings.add("done", where="dones, at a step with a reward,")
            batch = {f"observations/{part}": demo["obs"][part][...] for part in demo["obs"]}
            if "next_obs" in demo:
                batch |= {f"next_observations/{part}": demo["next_obs"][part][...] for part in demo["obs"]}
            yield batch | {
                "actions": demo["actions"][...],
                "rewards": rewards,
                "terminateds": dones & (rewards > 0),
                "truncateds": dones & ~(rewards > 0),
                "episode_ids": np.full(len(rewards), int(name[5:])),
            }

    theirs = {"terminateds": ["dones with a reward"], "truncateds": ["dones without a reward"], "episode_ids": ["demo"]}
    rows = sum(len(file["data"][name].get("actions", ())) for name in demos)
    table = BatchTable(read, theirs, rows)
    return table_source(table, options, name=Path(path).stem, provenance=Provenance(source=f"robomimic:{path}"))
