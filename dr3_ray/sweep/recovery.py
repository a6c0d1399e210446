"""What is damaged or lost of a run directory, rebuilt from what is there; nothing is removed.

The checkpoints of a pack hold the results of all its evaluations. So rows come back from them, and a member that is
said to have ended counts as such only with its rows.
"""

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from dr3_ray.errors import first_line
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.histories import HISTORIES, Histories, lacks_rows, read_histories
from dr3_ray.runs.index import Index
from dr3_ray.runs.results import MEMBERS, RESULTS, rows_of
from dr3_ray.runs.storage import has_checkpoints
from dr3_ray.stores import set_aside
from dr3_ray.sweep.packs.packing import pack_name
from dr3_ray.sweep.spec.names import option_types
from dr3_ray.sweep.spec.spec import SweepSpec


def restore_rows(spec: SweepSpec, run: dict[str, Any], index: Index, say: Callable[[str], None]) -> None:
    """Restore the rows of every member that has ended, by the document `run` of the directory, or make it pending.

    Histories that cannot be read are put aside. `say` is told of every repair.

    Raises:
        UserError: checkpoints that are needed are in a storage that this machine does not see.
    """
    path = spec.out / HISTORIES
    try:
        reached = _reached(spec, index)
    except (pa.ArrowException, OSError) as error:
        say(f"{path} is damaged ({first_line(error)}): it is put aside as {set_aside(path).name}, and rebuilt")
        reached = {}
    lacking = {member: record for member, record in index.records.items() if lacks_rows(record, reached)}
    if not lacking:
        return
    configs = {member: record["config"] for member, record in index.records.items()}
    histories = Histories(spec.out, configs, ("algorithm", "dataset", "seed", *run.get("axes", ())), option_types())
    histories.load(again=lacking)
    for pack in dict.fromkeys(record["pack"] for record in lacking.values() if record["pack"]):
        for member, step, row in _saved_rows(spec, run, pack, index):
            if member in lacking:
                histories.add(member, step, row)
    histories.flush()
    reached = _reached(spec, index)
    lost = [member for member, record in lacking.items() if lacks_rows(record, reached)]
    index.write(lost, "pending", error="its rows were lost")
    again = f"; {len(lost)} have no checkpoint that holds them, and are trained again" if lost else ""
    say(f"{len(lacking)} runs that had ended were without their rows: {len(lacking) - len(lost)} restored{again}")


def _reached(spec: SweepSpec, index: Index) -> dict[str, int]:
    """Return the last step of every member that has rows; raises as `Histories.load` for a damaged file."""
    if not (spec.out / HISTORIES).exists():
        return {}
    Histories(
        spec.out, {member: record["config"] for member, record in index.records.items()}, (), option_types()
    ).load(again=())
    last = read_histories(spec.out, ("member", "step")).group_by("member").aggregate([("step", "max")])
    return dict(zip(last["member"].to_pylist(), last["step_max"].to_pylist(), strict=True))


def _saved_rows(spec: SweepSpec, run: dict[str, Any], pack: str, index: Index) -> list[tuple[str, int, dict[str, Any]]]:
    """Return the rows in the last checkpoint of a pack; none without one."""
    if "id" not in run or (spec.storage is None and not has_checkpoints(spec.checkpoints)):
        return []  # somebody has removed them, as anybody may
    saved = Checkpoints(spec.checkpoints, pack, run["id"]).read(RESULTS, MEMBERS)
    if saved is None or RESULTS not in saved:
        return []
    if MEMBERS in saved:
        members = json.loads(saved[MEMBERS])
    else:  # of earlier versions
        configs = {member: record["config"] for member, record in index.records.items() if record["pack"] == pack}
        if pack_name(configs) != pack:
            return []
        members = list(configs)
    return list(rows_of(json.loads(saved[RESULTS]), members))
