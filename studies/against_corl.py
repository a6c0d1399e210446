r"""Do CQL, IQL, TD3+BC and ReBRAC reach what CORL's code reaches on the same data with the same settings?

    dr3-ray data collect halfcheetah-medium --out runs/halfcheetah-medium    # and halfcheetah-replay
    git clone https://github.com/corl-team/CORL && git -C CORL checkout eeeeef26
    python studies/against_corl.py --scale full --corl CORL \
        --data runs/halfcheetah-medium --data runs/halfcheetah-replay

Without --corl only ours are trained. CORL's ReBRAC needs `pip install flax optax chex` (and jax) beside dr3-ray. Both
policies are played in the same episodes. A cell that is finished is not computed again; two processes with other --data
or --algorithm may share a directory. Writes DIR/cells.jsonl, DIR/against_corl.json and DIR/against_corl.md.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import corl
import numpy as np
import torch
import typer
from packs import Cells, Scores, main, markdown, pack_scores, population_of, scores, with_interval
from scipy import stats

from dr3_ray import load_dataset
from dr3_ray.algorithms.registry import find
from dr3_ray.cli.paths import PATH
from dr3_ray.data import Dataset
from dr3_ray.errors import UserError
from dr3_ray.stats import bootstrap_estimate, mean

# Smaller networks than the algorithms' own, and fewer updates, on both sides alike.
COMMON: dict[str, Any] = {"hidden_sizes": [64, 64], "batch_size": 256}
SETTINGS: dict[str, dict[str, Any]] = {
    "DR3-TD3BC": {},  # CORL's are our defaults
    "DR3-IQL": {"normalize_observations": True},
    # CORL's α and normalisation; its actor's step size of 3e-5 is for 1,000,000 updates, so here the critic's
    "DR3-CQL": {
        "cql_alpha": 10.0,
        "normalize_observations": True,
        "actor_lr": 3e-4,
        "temperature_lr": 3e-4,
        "batch_size": 64,
        "n_sampled_actions": 4,  # it takes several times as long as the others
    },
    # the weights that most of CORL's configurations have
    "DR3-ReBRAC": {"actor_bc_coeff": 0.01, "critic_bc_coeff": 0.01},
}


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    updates: int
    evaluations: int  # evenly spaced, the last one at the end
    seeds: int
    episodes: int
    options: dict[str, Any]


SCALES = {
    "smoke": Scale(8, 2, 2, 1, {"hidden_sizes": [16, 16], "batch_size": 8}),
    "short": Scale(4000, 2, 5, 10, {}),
    "full": Scale(10_000, 4, 5, 10, {}),
}


def ours(algorithm: str, data: Dataset, members: list[dict[str, Any]], scale: Scale) -> list[list[float | None]]:
    """Return scores [evaluations, seeds] of one pack."""
    population = population_of(algorithm, data, members)
    found = []
    for _ in range(scale.evaluations):
        population.update(scale.updates // scale.evaluations)
        found.append(pack_scores(population, data, environment_of(data), scale.episodes))
    return found


def theirs(checkout: Path, algorithm: str, data: Dataset, member: dict[str, Any], scale: Scale) -> list[float]:
    """Return scores [evaluations] of one seed with CORL's code."""
    names = ("observations", "actions", "rewards", "next_observations", "terminateds", "next_actions")
    rows = data.gather(torch.arange(len(data)), (*names, "next_actions_valid"))
    columns = {name: column.numpy() for name, column in rows.items()}
    settings = {name: value for name, value in member.items() if name != "seed"}
    options = find(algorithm, "continuous").options.from_dict(settings)
    how_long = (scale.updates, scale.evaluations)
    policies = corl.train(checkout, algorithm, columns, options, member["seed"], *how_long)
    return [float(scores(act, data, environment_of(data), 1, scale.episodes)[0]) for act in policies]


def environment_of(data: Dataset) -> str:
    """Return the data set's environment."""
    if data.manifest.environment is None:
        raise UserError(f"{data.path} names no environment to play in: choose a data set of `dr3-ray data collect`")
    return data.manifest.environment


def run_cells(cells: Cells, source: str, algorithm: str, scale: Scale, checkout: Path | None) -> dict[str, Scores]:
    """Return scores [evaluations, seeds] by whose they are."""
    data = load_dataset(source)
    options = COMMON | SETTINGS[algorithm] | scale.options
    what = {"data": data.fingerprint, "algorithm": algorithm, "options": options, "updates": scale.updates}
    what |= {"evaluations": scale.evaluations, "episodes": scale.episodes}
    members = [options | {"seed": seed} for seed in range(scale.seeds)]

    def timed(compute: Any, *arguments: Any) -> dict[str, Any]:
        start = time.monotonic()
        return {"scores": compute(*arguments, scale), "seconds": round(time.monotonic() - start)}

    # DR3's penalty is measured at every update, at a weight of 0
    regularized = [member | {"dr3_coeff": 0.0} for member in members]
    mine = cells.result(
        what | {"code": "dr3_ray", "seeds": scale.seeds}, lambda: timed(ours, algorithm, data, regularized)
    )
    found = {"dr3_ray": np.array(mine["scores"], dtype=np.float64)}
    if checkout is not None:
        columns = []
        for member in members:
            cell = what | {"code": "CORL", "seed": member["seed"]}
            result = cells.result(cell, lambda each=member: timed(theirs, checkout, algorithm, data, each))  # type: ignore[misc]
            columns.append(result["scores"])
        found["CORL"] = np.array(columns, dtype=np.float64).T
    return found


def compare(found: dict[str, Scores]) -> dict[str, Any]:
    """Return the means over seeds at the end with bootstrap intervals, and Welch's interval of the difference."""
    row: dict[str, Any] = {"scores": {code: values.tolist() for code, values in found.items()}}
    row |= {code: with_interval(bootstrap_estimate(values[-1], estimator=mean)) for code, values in found.items()}
    if "CORL" in found:
        last = [values[-1][np.isfinite(values[-1])] for values in found.values()]
        interval = stats.ttest_ind(*last, equal_var=False).confidence_interval(0.95)
        difference = last[0].mean() - last[1].mean()
        row["difference"] = f"{difference:.1f} [{interval.low:.1f}, {interval.high:.1f}]"
        row["within noise"] = "yes" if interval.low <= 0 <= interval.high else "no"
        row["halfway"] = " / ".join(f"{np.nanmean(values[len(values) // 2 - 1]):.1f}" for values in found.values())
    return row


def study(
    scale: Annotated[str, typer.Option(help="smoke: seconds; short: 4,000 updates; full: 10,000.")] = "smoke",
    data: Annotated[list[str], typer.Option(help="A data set with Box actions; give several times.")] = [  # noqa: B006
        "embedded:pendulum-replay"
    ],
    corl_checkout: Annotated[Path | None, typer.Option("--corl", help="Checkout of CORL.", **PATH)] = None,
    out: Annotated[Path, typer.Option(help="Directory of the results; a second run goes on there.", **PATH)] = Path(
        "runs/against_corl"
    ),
    algorithm: Annotated[list[str], typer.Option(help="Only these; give several times.")] = list(SETTINGS),  # noqa: B006
) -> None:
    """Train ours and CORL's on the same data with the same settings and print both."""
    if scale not in SCALES:
        raise UserError(f"there is no scale {scale!r}: choose one of {', '.join(SCALES)}")
    if unknown := set(algorithm) - set(SETTINGS):
        raise UserError(f"{sorted(unknown)[0]!r} is not compared: choose from {', '.join(SETTINGS)}")
    cells = Cells(out / "cells.jsonl")
    rows = []
    for source in data:
        for name in algorithm:
            found = run_cells(cells, source, name, SCALES[scale], corl_checkout)
            rows.append({"data": load_dataset(source).manifest.name, "algorithm": name} | compare(found))
            print(*(f"{key}: {value}" for key, value in rows[-1].items() if key != "scores"), sep="  ", flush=True)
    header = ("data", "algorithm", "dr3_ray", "CORL", "difference", "within noise", "halfway")
    table = markdown(header, [[str(row.get(name, "")) for name in header] for row in rows])
    (out / "against_corl.json").write_text(json.dumps(rows, indent=1))
    (out / "against_corl.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main(study)
