"""Does every algorithm that can act learn more than behaviour cloning does from the same data?

    python studies/learning.py --scale full --out runs/learning [--dataset pendulum] [--algorithm DR3-CQL]

Five seeds are one pack. The score of a seed is the mean return of its last policy.
A cell that is finished is not computed again; two processes with other --dataset or --algorithm may share a directory.
Writes DIR/cells.jsonl, DIR/learning.json and DIR/learning.md.
"""

import json
import os
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import typer
from packs import Cells, Scores, main, markdown, pack_scores, population_of, with_interval

from dr3_ray import load_dataset
from dr3_ray.algorithms.registry import ALGORITHMS
from dr3_ray.cli.paths import PATH
from dr3_ray.errors import UserError
from dr3_ray.stats import bootstrap_estimate, mean

BASELINE = "BC"


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    updates: int
    seeds: int
    episodes: int
    coefficients: tuple[float, ...]  # of DR3
    options: dict[str, Any]


SCALES = {
    "smoke": Scale(20, 2, 1, (0.0, 0.01), {"hidden_sizes": [16, 16], "batch_size": 8}),
    "full": Scale(10_000, 5, 20, (0.0, 0.01), {}),
}

# Every algorithm has its defaults but for these.
COMMON: dict[str, dict[str, Any]] = {
    # the data are 30,000 rows: 10,000 updates see each of them ten times
    "breakout": {"batch_size": 32, "hidden_sizes": [128, 128]},
    # 20,000 rows, and three numbers are observed
    "pendulum": {"batch_size": 64, "hidden_sizes": [64, 64]},
}
# Large step sizes and a target that follows within the 10,000 updates: the defaults are made for 1,000,000 of them. On
# seed 100, which is not in the study, CQL with Adam's ε of Atari (3e-4) had learned half as much after 7,000 updates.
CRITIC: dict[str, dict[str, Any]] = {
    "breakout": {"critic_lr": 3e-4, "target_period": 250, "adam_eps": 1e-8},
    "pendulum": {"critic_lr": 1e-3, "actor_lr": 1e-3},
}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "breakout": {
        "DR3-DQN": CRITIC["breakout"],
        "DR3-CQL": CRITIC["breakout"] | {"cql_alpha": 0.5},  # of 0.1, 0.5, 1 and 2, on seed 100
        "DR3-SARSA": CRITIC["breakout"],
        "DR3-TD": CRITIC["breakout"],
        "DR3-MC": {"critic_lr": 3e-4, "adam_eps": 1e-8},
        # 50 heads and 20 quantiles in the place of 200 each: for time
        "DR3-REM": CRITIC["breakout"] | {"n_heads": 50},
        "DR3-QRDQN": CRITIC["breakout"] | {"n_quantiles": 20},
        "DR3-QRCQL": CRITIC["breakout"] | {"n_quantiles": 20},
    },
    "pendulum": {
        # actions have one component: four samples in the place of ten
        "DR3-CQL": CRITIC["pendulum"] | {"temperature_lr": 1e-3, "n_sampled_actions": 4},
        # β = 3 weighs rows by the noise of advantages as large as these; of 0, 0.01, 0.03 and 0.1, on seed 100
        "DR3-IQL": CRITIC["pendulum"] | {"value_lr": 1e-3, "advantage_temperature": 0.03},
        "DR3-TD3BC": CRITIC["pendulum"],
        # the largest weights of the paper's grid; CORL's defaults of 1 are in none of its configurations
        "DR3-ReBRAC": CRITIC["pendulum"] | {"actor_bc_coeff": 0.1, "critic_bc_coeff": 0.1},
        # its behaviour model and warm start take 320,000 updates by default; α of 1, 3, 10 and 30, on seed 100
        "DR3-BRAC": CRITIC["pendulum"]
        | {"behaviour_lr": 1e-3, "behaviour_steps": 2000, "warm_start_steps": 1000, "brac_alpha": 10.0},
        "BC": {"actor_lr": 1e-3},
    },
}


def algorithms_for(kind: str) -> list[str]:
    """Return the algorithms that act on this kind of actions, behaviour cloning first."""
    able = [name for name, forms in ALGORITHMS.items() if kind in forms and forms[kind].act is not None]
    return sorted(able, key=lambda name: name != BASELINE)


def run_cell(cells: Cells, dataset: str, algorithm: str, coefficient: float | None, scale: Scale) -> Scores:
    """Return a score for each seed of one pack; no coefficient for an algorithm without a critic."""
    data = load_dataset(f"embedded:{dataset}-replay")
    options = COMMON[dataset] | SETTINGS[dataset].get(algorithm, {}) | scale.options
    options |= {} if coefficient is None else {"dr3_coeff": coefficient}
    members = [options | {"seed": seed} for seed in range(scale.seeds)]
    environment = data.manifest.environment
    assert environment is not None

    def compute() -> dict[str, Any]:
        start = time.monotonic()
        population = population_of(algorithm, data, members)
        population.update(scale.updates)
        found = pack_scores(population, data, environment, scale.episodes)
        return {"scores": found, "seconds": round(time.monotonic() - start)}

    cell = {
        "data": data.fingerprint,
        "algorithm": algorithm,
        "members": members,
        "updates": scale.updates,
        "episodes": scale.episodes,
    }
    return np.array(cells.result(cell, compute)["scores"], dtype=np.float64)


def compare(scores: Scores, baseline: Scores) -> dict[str, Any]:
    """Return estimates over seeds, and of the difference to the baseline at the same seed."""
    difference = bootstrap_estimate(scores - baseline, estimator=mean)
    return {
        "scores": [None if np.isnan(score) else score for score in scores.tolist()],
        "iqm": with_interval(bootstrap_estimate(scores)),
        "mean": with_interval(bootstrap_estimate(scores, estimator=mean)),
        "difference": with_interval(difference),
        "verdict": "yes" if difference.low > 0 else "no" if difference.high < 0 else "not certain",
        "diverged": difference.left_out,
    }


def study(
    scale: Annotated[str, typer.Option(help="smoke: seconds; full: the study.")] = "smoke",
    out: Annotated[Path, typer.Option(help="Directory of the results; a second run goes on there.", **PATH)] = Path(
        "runs/learning"
    ),
    dataset: Annotated[list[str], typer.Option(help="pendulum or breakout; give several times.")] = list(COMMON),  # noqa: B006
    algorithm: Annotated[list[str] | None, typer.Option(help="Only these (and BC); give several times.")] = None,
    coefficient: Annotated[list[float] | None, typer.Option(help="Only these of DR3; give several times.")] = None,
) -> None:
    """Train every algorithm that acts on the embedded data sets and compare it with behaviour cloning."""
    if scale not in SCALES:
        raise UserError(f"there is no scale {scale!r}: choose one of {', '.join(SCALES)}")
    if unknown := set(dataset) - set(COMMON):
        raise UserError(f"there is no data set {sorted(unknown)[0]!r}: choose from {', '.join(COMMON)}")
    cells = Cells(out / "cells.jsonl")
    rows: list[dict[str, Any]] = []
    for each in dataset:
        kind = "discrete" if load_dataset(f"embedded:{each}-replay").action_space.n else "continuous"
        names = [name for name in algorithms_for(kind) if algorithm is None or name in (BASELINE, *algorithm)]
        baseline = run_cell(cells, each, BASELINE, None, SCALES[scale])
        rows.append({"data": each, "algorithm": BASELINE, "dr3_coeff": None} | compare(baseline, baseline))
        for c0, name in product(coefficient or SCALES[scale].coefficients, names[1:]):
            found = run_cell(cells, each, name, c0, SCALES[scale])
            rows.append({"data": each, "algorithm": name, "dr3_coeff": c0} | compare(found, baseline))
            print(*(rows[-1][key] for key in ("data", "algorithm", "dr3_coeff", "iqm", "difference")), flush=True)
    header = ("data", "algorithm", "c0", "IQM", "mean", "difference to BC", "beats BC")
    lines = []
    for row in rows:
        against = ("", "") if row["algorithm"] == BASELINE else (row["difference"], row["verdict"])
        c0 = "" if row["dr3_coeff"] is None else f"{row['dr3_coeff']:g}"
        lines.append((row["data"], row["algorithm"], c0, row["iqm"], row["mean"], *against))
    (out / "learning.json").write_text(json.dumps(rows, indent=1))
    (out / "learning.md").write_text(markdown(header, lines) + "\n")
    print(markdown(header, lines))


if __name__ == "__main__":
    main(study)
