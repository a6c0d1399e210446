"""Run directories as sweeps leave them, by what writes them in sweeps and without training, Ray or its start."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.directory import read_run
from dr3_ray.runs.histories import Histories
from dr3_ray.runs.results import MEMBERS, RESULTS, rows_of
from dr3_ray.runs.storage import claim
from dr3_ray.sweep.directory import open_run
from dr3_ray.sweep.packs.packing import pack_members
from dr3_ray.sweep.spec.names import option_types
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec

STEPS, EVERY = 20, 10


def asked(data: str, out: Path, **more: Any) -> SweepSpec:
    """Five packs of three members; each algorithm has losses of its own."""
    return SweepSpec(
        datasets=[data], algorithms=["DR3-CQL", "DR3-IQL", "BC"], coefficients=[0, 0.1], seeds=[0, 1, 2], pack=3,
        steps=STEPS, evaluations=STEPS // EVERY, environment="none", out=out, **more,
    )  # fmt: skip


def results_of(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As a trial has them: the second member of a pack diverges, the third is cut."""
    rows = [{"loss_" + each["algorithm"][-3:].lower(): each["seed"] + 0.5, "q_mean": -1.0} for each in members]
    found = []
    for number, updates in enumerate(range(EVERY, STEPS + 1, EVERY)):
        measured: list[dict[str, Any] | None] = [
            row | {"diverged": place == 1, "seed": each["seed"], "td_error": updates / 7}
            for place, (row, each) in enumerate(zip(rows, members, strict=True))
        ]
        if number and len(measured) > 2:
            measured[2] = None
        cut = [2] if not number and len(measured) > 2 else []
        about = {"num_updates": updates, "updates_per_second": 9.0, "time_s": float(number), "cut": cut}
        found.append({"members": measured, **about})
    return found


def trained(
    spec: SweepSpec, names_members: bool = True, left: int = 1, acknowledge: Callable[[str], None] = lambda text: None
) -> None:
    """A run directory as a sweep leaves it, in which so many packs have still to be finished.

    `acknowledge` is told of what is on the disk from then on: `begun`, `checkpoint PACK UPDATES`, `STATUS MEMBER`.
    """
    planned = members(spec)
    with open_run(spec, planned, ["sweep"]) as index:
        acknowledge("begun")
        run = read_run(spec.out)
        claim(spec.checkpoints, run["id"], str(spec.out.resolve()))
        histories = Histories(spec.out, planned, ("algorithm", "dataset", "seed", *run["axes"]), option_types())
        packs = pack_members(planned, 3, 1)
        for number, pack in enumerate(packs):
            index.write(pack.members, "running", pack=pack.name)
            results = results_of(list(pack.members.values()))
            if number >= len(packs) - left:
                results = results[:1]

            files = {RESULTS: results} | ({MEMBERS: list(pack.members)} if names_members else {})

            def write(directory: str, files: dict[str, Any] = files) -> None:
                for name, content in files.items():
                    (Path(directory) / name).write_text(json.dumps(content))

            for updates in [result["num_updates"] for result in results]:
                Checkpoints(spec.checkpoints, pack.name, run["id"]).save(updates, write)
                acknowledge(f"checkpoint {pack.name} {updates}")
            for row in rows_of(results, list(pack.members)):
                histories.add(*row)
            histories.flush()
            if len(results) > 1:
                for member, status in zip(pack.members, ("finished", "diverged", "cut"), strict=True):
                    index.write([member], status)
                    acknowledge(f"{status} {member}")
