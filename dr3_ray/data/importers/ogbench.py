"""OGBench's .npz files: trajectories with one observation more than steps, and rewards that its tasks define.

Layout: `observations`, `actions` and `terminals`, [N, ...], where `terminals` is 1 on an extra last row that has the
final observation; `qpos` and more of the simulator's state, [N, ...]. A task gives rewards and masks, as OGBench's
`relabel_dataset` does: where a state is at the goal, the reward is 0 and the mask 0, elsewhere -1 and 1. A mask of 0
means that no value follows; the recording goes on there (https://github.com/seohongpark/ogbench).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.columns import mapped
from dr3_ray.data.importers.files import existing
from dr3_ray.data.importers.npz import Npz
from dr3_ray.data.importers.rows import Batch
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import BatchTable
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError

NEEDED = {"observations", "actions", "terminals"}
TOLD = ("truncateds", "next_observations", "episode_ids", "timesteps")  # columns of a plain table, and not of OGBench


def is_ogbench(path: Path) -> bool:
    """Return whether a file has the arrays of OGBench: a simulator's state, or masks, and no timeouts.

    Raises:
        UserError: it has neither, but the same names as a plain table, whose rows OGBench's are not.
    """
    if path.suffix != ".npz" or not path.is_file():
        return False
    names = set(Npz(path))
    if names >= NEEDED | {"rewards"} and not names & {"qpos", "masks"} and not {*TOLD} & {*mapped(names)}:
        raise UserError(
            f"cannot tell what {path} is: write ogbench:{path} if each trajectory has a row with the final observation "
            f"alone, or npz:{path} if every row is a step"
        )
    return names >= NEEDED and bool(names & {"qpos", "masks"}) and "timeouts" not in names


def ogbench_source(path: str, options: Options) -> Source:
    """Return the trajectories of an OGBench file, cut where the task's mask is 0.

    Raises:
        UserError: the file has neither `rewards` and `masks` nor, with `goal`, `qpos`; or its last row is no end.
    """
    arrays = Npz(existing(path))
    if missing := NEEDED - set(arrays):
        raise UserError(f"{path} has no {sorted(missing)[0]}: an OGBench file has {', '.join(sorted(NEEDED))}")
    observations, actions = arrays["observations"], arrays["actions"]
    ends = np.flatnonzero(arrays["terminals"])
    if not len(ends) or ends[-1] != len(observations) - 1:
        raise UserError(f"{path} does not end with the last row of a trajectory: copy it again")
    rewards, masks = _task(path, arrays, options.goal)
    if not np.isfinite(np.asarray(masks)).all():
        raise UserError(f"{path} has masks that are NaN or infinite: copy it again")
    if {len(actions), len(rewards), len(masks)} != {len(observations)}:
        raise UserError(f"{path} has arrays of different lengths: copy it again")

    def read(findings: Findings) -> Iterator[Batch]:
        """Yield the rows of one episode after the other."""
        for number, (begin, end) in enumerate(zip(np.append(0, ends[:-1] + 1).tolist(), ends.tolist(), strict=True)):
            solved = np.asarray(masks[begin:end]) == 0
            yield {
                "observations": observations[begin:end],
                "actions": actions[begin:end],
                "rewards": rewards[begin:end],
                "terminateds": solved,
                "truncateds": ~solved & (np.arange(end - begin) == end - begin - 1),
                "next_observations": observations[begin + 1 : end + 1],
                "episode_ids": np.full(end - begin, number),
            }

    theirs = {"terminateds": ["masks"], "truncateds": ["terminals"], "next_observations": ["observations, a row later"]}
    if options.goal is not None:
        theirs |= {name: ["qpos"] for name in ("rewards", "terminateds")}
    table = BatchTable(read, theirs, len(observations) - len(ends))
    provenance = Provenance(source=f"ogbench:{path}", details={"goal": options.goal} if options.goal else {})
    return table_source(table, options, name=Path(path).stem, provenance=provenance)


def _task(path: str, arrays: Npz, goal: str | None) -> tuple[Array, Array]:
    """Return rewards and masks [N]: those in the file, or those of a maze with its goal there."""
    if goal is None:
        if {"rewards", "masks"} <= set(arrays):
            return arrays["rewards"], arrays["masks"]
        raise UserError(
            f"{path} has no rewards and masks, which depend on a task: give --goal X,Y,TOLERANCE for a maze, or save "
            "those of OGBench's relabel_dataset in the file"
        )
    try:
        x, y, tolerance = map(float, goal.split(","))
    except ValueError:
        raise UserError(f"--goal is {goal!r}: write X,Y,TOLERANCE, such as 20,24,0.5") from None
    if not np.isfinite([x, y, tolerance]).all() or tolerance <= 0:
        raise UserError(f"--goal is {goal!r}: give finite numbers, and a tolerance above 0")
    if "qpos" not in arrays:
        raise UserError(f"{path} has no qpos, in which a maze's place is: leave out --goal")
    solved = np.linalg.norm(arrays["qpos"][:, :2] - np.array([x, y]), axis=-1) <= tolerance
    return solved - 1.0, 1.0 - solved
