"""Are health flags and diagnoses right? Runs whose answer is known beforehand, and the share of right verdicts.

    python studies/health.py --scale full --out runs/health

Every run is on the Breakout data of the package. What is known: a penalty with its sign turned around makes the dot
product grow, once mean Q has settled with nothing but that; regression to returns and small discounts settle without
(arXiv 2112.04716, section 3.1), and so does what learns nothing; CQL on 300 rows overfits (arXiv 2109.10813); a step
size of 1 kills ReLUs, and so does an overwhelming penalty; a step size of 0.1 throws Q beyond any return; one of 1e30
diverges. A verdict is right if it has the known flag, or none where none is known.

The trained critics are then diagnosed as they are, without their histories, those of 300 rows with all rows as held-out
ones. Known is that 300 rows are learned by heart, and that TD excites itself where the dot product was made to grow.

Writes DIR/cells.jsonl, DIR/health.json and DIR/health.md.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import typer
from packs import Cells, main, markdown
from torch import Tensor

from dr3_ray import Member, Population, load_dataset
from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.cli.paths import PATH
from dr3_ray.data import Dataset
from dr3_ray.data.loading import largest_reward
from dr3_ray.diagnostics.diagnosis import HELD_OUT, TRAIN
from dr3_ray.diagnostics.verdict import DIVERGED, findings_of
from dr3_ray.networks.critics import next_features
from dr3_ray.policies.probing import Critic
from dr3_ray.regularizers.dr3 import dr3_penalty
from dr3_ray.regularizers.spec import with_penalty
from dr3_ray.runs.health import NEEDED, THRESHOLDS, flags_of, largest_q
from dr3_ray.training.process import prepare_training
from dr3_ray.training.saved import Trained
from dr3_ray.types import Backup, Transition

DATA = "embedded:breakout-replay"
FEW = f"{DATA}?take=first:0.01"
COMMON: dict[str, Any] = {"batch_size": 32, "hidden_sizes": [128, 128], "adam_eps": 1e-8, "dr3_coeff": 0.0}
TD: dict[str, Any] = {"critic_lr": 3e-4, "target_period": 250}


@dataclass(frozen=True)
class Case:
    """A run whose flags are known."""

    algorithm: str
    dataset: str
    options: dict[str, Any]
    flags: tuple[str, ...] = ()
    share: float = 1.0
    """Of the updates of the scale."""
    turned: float = 0.0
    """The weight of the penalty with its sign turned around, for which there is no option."""

    @property
    def findings(self) -> tuple[str, ...]:
        """What is known of the last moment."""
        by_heart = ("overfit to its rows",) if self.dataset == FEW else ()
        excited = ("self-exciting",) if self.turned else ()
        return by_heart + excited + tuple(flag for flag in self.flags if flag not in ("co-adapting", "overfit"))


CASES = {
    "DQN, gamma = 0.5": Case("DR3-DQN", FEW, TD | {"gamma": 0.5}),
    "DQN, gamma = 0.5, c0 = -1e-6": Case("DR3-DQN", FEW, TD | {"gamma": 0.5}, ("co-adapting",), turned=1e-6),
    "SARSA, gamma = 0.5, c0 = -1e-6": Case("DR3-SARSA", FEW, TD | {"gamma": 0.5}, ("co-adapting",), turned=1e-6),
    "DQN, gamma = 0.8, c0 = 0.1": Case("DR3-DQN", FEW, TD | {"gamma": 0.8, "dr3_coeff": 0.1}),
    "CQL on 300 rows": Case("DR3-CQL", FEW, TD, ("overfit",), 2.0),
    "regression on 300 rows": Case("DR3-MC", FEW, {"critic_lr": 3e-4}),
    "regression": Case("DR3-MC", DATA, {"critic_lr": 3e-4}, share=0.5),
    "nothing learned": Case("DR3-DQN", DATA, TD | {"critic_lr": 1e-12}, share=0.1),
    "step size 1": Case("DR3-DQN", DATA, TD | {"critic_lr": 1.0}, ("dead features",), 0.2),
    "c0 = 1e6": Case("DR3-DQN", DATA, TD | {"dr3_coeff": 1e6}, ("dead features",), 0.4),
    "step size 0.1": Case("DR3-DQN", DATA, TD | {"critic_lr": 0.1, "target_period": 1}, ("Q out of bounds",), 0.05),
    "step size 1e30": Case("DR3-DQN", DATA, TD | {"critic_lr": 1e30}, ("diverged",), 0.05),
}


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    updates: int
    evaluations: int
    seeds: int


SCALES = {"smoke": Scale(200, 4, 1), "full": Scale(6_000, 12, 3)}


def turned(form: AlgorithmSpec, weight: float) -> AlgorithmSpec:
    """Return an algorithm whose objective is lowered by a weight times the dot product, which DR3 would add."""

    def reward(networks: Any, batch: Transition, backup: Backup) -> Tensor:
        next_phi = next_features(networks.critic, batch, backup)
        return -weight * dr3_penalty(backup.phi, next_phi, backup.in_backup)

    return replace(form, objective=lambda options: with_penalty(form.objective(options), "turned", reward))


def population_of(case: Case, data: Dataset, seeds: Sequence[int]) -> Population:
    """Return one pack with a member for each seed."""
    form = find(case.algorithm, "discrete")
    members = [Member.from_dict(form, COMMON | case.options | {"seed": seed}) for seed in seeds]
    prepare_training()
    return Population.of(turned(form, case.turned) if case.turned else form, members, data, data.spaces)


def train(case: Case, scale: Scale) -> dict[str, Any]:
    """Train a pack of one member a seed; return the curves, and whether it diverged, of each."""
    data = load_dataset(case.dataset)
    population = population_of(case, data, range(scale.seeds))
    every = max(1, round(scale.updates * case.share / scale.evaluations))
    rows = []
    for evaluation in range(1, scale.evaluations + 1):
        population.update(every)
        probe = population.probe()
        rows.append({"step": [evaluation * every] * scale.seeds} | {name: probe[name].tolist() for name in NEEDED})
    moments = [diagnosed(case, population, data, seed) for seed in range(scale.seeds)]
    curves = [{name: [row[name][seed] for row in rows] for name in rows[0]} for seed in range(scale.seeds)]
    return {"curves": curves, "diverged": population.diverged.tolist(), "moments": moments}


def diagnosed(case: Case, population: Population, data: Dataset, row: int) -> list[str]:
    """Return the names of the findings on a trained member, without its history."""
    members = [member.to_dict() for member in population.members]
    form = find(case.algorithm, "discrete")
    critic = Critic(Trained(form, population.spaces, members, population.networks, {}), row)
    if not critic.finite:
        return [DIVERGED.name]
    probes = {TRAIN: critic.probe(data)} | ({HELD_OUT: critic.probe(load_dataset(DATA))} if case.dataset == FEW else {})
    return [finding.name for finding in findings_of(probes, largest_q_of(case))]


def largest_q_of(case: Case) -> float | None:
    """Return the bound of Q by the rewards of the data and the largest discount of the cases."""
    return largest_q({"data_fingerprint": "", "gamma": 0.99}, {"": largest_reward(case.dataset)})


def flagged(case: Case, result: dict[str, Any]) -> list[list[str]]:
    """Return the flags of each run."""
    bound = largest_q_of(case)
    return [
        [str(flag) for flag in flags_of({name: np.array(curve, float) for name, curve in each.items()}, bound, lost)]
        for each, lost in zip(result["curves"], result["diverged"], strict=True)
    ]


def health(
    out: Annotated[Path, typer.Option(help="Where cells and tables go.", **PATH)] = Path("runs/health"),
    scale: Annotated[str, typer.Option(help="smoke or full.")] = "smoke",
) -> None:
    """Train every case, and compare its flags with those that are known."""
    cells, rows, right = Cells(out / "cells.jsonl"), [], []
    moments, right_now = [], []
    for name, case in CASES.items():
        cell = {"case": name, "options": case.options, "scale": vars(SCALES[scale]), "of": "curves and last moments"}
        result = cells.result(cell, lambda case=case: train(case, SCALES[scale]))
        found = flagged(case, result)
        names = [[flag.partition(" since ")[0] for flag in flags] for flags in found]
        good = [set(case.flags) <= set(each) if case.flags else not each for each in names]
        right += good
        shown = "; ".join(dict.fromkeys(", ".join(flags) or "none" for flags in found))
        rows.append([name, ", ".join(case.flags) or "none", shown, f"{sum(good)}/{len(good)}"])
        told = result["moments"]
        good = [set(case.findings) <= set(each) if case.findings else not each for each in told]
        right_now += good
        shown = "; ".join(dict.fromkeys(", ".join(each) or "none" for each in told))
        moments.append([name, ", ".join(case.findings) or "none", shown, f"{sum(good)}/{len(good)}"])
    table = markdown(["run", "known", "flags", "right"], rows)
    share = f"{sum(right)} of {len(right)} verdicts are right ({np.mean(right):.0%})"
    thresholds = {name: each.value for name, each in THRESHOLDS.items()}
    now = markdown(["run", "known", "diagnosis of the last moment", "right"], moments)
    share_now = f"{sum(right_now)} of {len(right_now)} diagnoses are right ({np.mean(right_now):.0%})"
    document = {"right": sum(right), "of": len(right), "thresholds": thresholds, "rows": rows}
    document |= {"right_diagnoses": sum(right_now), "diagnoses": moments}
    (out / "health.json").write_text(json.dumps(document))
    text = f"{table}\n\n{share}\n\n{now}\n\n{share_now}"
    (out / "health.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(health)
