"""Does DR3 help CQL in mazes with a sparse reward, at the usual step size and at three times it?

    dr3-ray reproduce mazes --scale desk --out runs/mazes

After the DR3 paper's antmaze-v2 (Kumar et al. 2022, section 5), where CQL with three times the step size is trained for
long, with a point in place of an ant. Everything below was fixed before the first run of its scale.

Data: 5,000 steps of `--learner waypoints` in the maze `medium` of Gymnasium-Robotics and 1,000 in `umaze`. It begins
in any cell, goes from one random cell to the next with noise on its actions, and is cut off after 30 of them. So all
cells are crossed, and few episodes lead from the far corner, where policies begin, to the goal: a policy has to join
several. The reward is 1 where the goal is reached, and the episode ends then; a return is a success, 0 or 1. Learners:
CQL with the settings of `SETTINGS` and `OF_CQL`, and behaviour cloning. The usual step size of the critic and three
times it are `STEP_SIZES`; the actor's stays.

Tuning: the medium maze, seeds from 100. Held out: seeds from 0, in the medium maze and the U-maze. The settings, the
rows and the number of updates were settled by short trials of seeds from 100, so that CQL without DR3 succeeds at first
and then unlearns while its Q-values rise above the largest return. Those trials held two runs with DR3 in the medium
maze, of c₀ = 0.03 and 0.3 at three times the step size (0 and 0.8 at the end); in the U-maze with this many rows none.
In the large maze no run had succeeded after 2,000 updates, so it was left out. α is 1 for that; beside DR3 it is asked
whether the α of CQL's authors, 5, does as well, without DR3 and untuned.

A run's *final* success is the mean of its last two evaluations, its *average* success that over training, and its
*unlearning* the highest mean of two neighbouring evaluations less the final one. A run that diverged ends at 0. The c₀
of a step size is the one of `TRIED` with the highest sum of final and average success on the tuning seeds, and the
smallest of equal ones.

Claims are judged by `CLAIMS` on each maze at each step size: the mean difference of runs with equal seeds, with
Student's t interval of 95%; dot products are compared by their logarithms to base 10. A claim holds where the interval
lies on its side of 0, fails where it lies on the other, and is undecided else. **DR3 helps** if it raises final or
average success, or lessens unlearning, in at least one of the four comparisons, and none of these three claims fails in
any. A smaller dot product or eigenvalue alone is no help. No run is left out, and no seed is added.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from packs import markdown
from published import (
    ConcurrentOption,
    Published,
    Scale,
    ScaleOption,
    ending,
    interval,
    publish,
    returns_of,
    shares,
    tallied,
    verdict,
)

from dr3_ray.cli.paths import PATH
from dr3_ray.cli.script import PlannedSweeps, run_script
from dr3_ray.stats import Estimate, bootstrap_band, bootstrap_estimate, iqm, paired_difference

MAZES = {"medium": "medium maze", "umaze": "U-maze"}
TUNED = "medium"
SHARES = {"medium": 1.0, "umaze": 0.2}  # of a scale's steps that are collected in a maze
SETTINGS: dict[str, Any] = {
    "hidden_sizes": [64, 64],
    "batch_size": 32,
    "normalize_observations": True,
    "actor_lr": 1e-3,
}
OF_CQL: dict[str, Any] = {
    "n_sampled_actions": 2,
    "temperature_lr": 1e-3,
    "tau": 0.02,
    "reward_scale": 10.0,
}
ALPHA, AUTHORS_ALPHA = 1.0, 5.0
STEP_SIZES = {3e-4: "usual", 9e-4: "three times"}
TRIED = (0.001, 0.01, 0.1)
SCALES = {
    "smoke": Scale(updates=21, evaluations=3, seeds=2, collected=600),
    "desk": Scale(updates=5_000, evaluations=10, seeds=5, collected=5_000),
    "full": Scale(updates=500_000, evaluations=50, seeds=10, collected=20_000),
}
EPISODES = {"smoke": 1, "desk": 5, "full": 30}
TUNING_SEEDS = {"smoke": 1, "desk": 2, "full": 5}
FIRST_TUNING_SEED = 100
PLAIN, DR3, STRONG, CLONED = "CQL", "CQL, DR3", "CQL, α = 5", "behaviour cloning"
ARMS = (PLAIN, DR3, STRONG, CLONED)


class Claim(NamedTuple):
    """What the paper's account leads to expect of a difference between two arms, in a column of `outcomes`."""

    said: str
    arm: str
    against: str
    """Another arm, at equal step size and seeds; behaviour cloning has one step size."""
    column: str
    above: bool = True


CLAIMS = (
    Claim("DR3 raises the final success of CQL", DR3, PLAIN, "final"),
    Claim("DR3 raises the average success of CQL", DR3, PLAIN, "average"),
    Claim("DR3 lessens the unlearning of CQL", DR3, PLAIN, "unlearning", above=False),
    Claim("DR3 lowers the dot product's logarithm", DR3, PLAIN, "dot_product_log10", above=False),
    Claim("DR3 lowers SEEM's eigenvalue, by its kernel's norm", DR3, PLAIN, "seem_normalized", above=False),
    Claim("CQL with DR3 ends above CQL with α = 5", DR3, STRONG, "final"),
    Claim("CQL with DR3 ends above behaviour cloning", DR3, CLONED, "final"),
)
OF_HELP = CLAIMS[:3]


def plan(
    scale: ScaleOption = "desk",
    out: Annotated[Path, typer.Option(help="Where sweeps, data and results are.", **PATH)] = Path("runs/mazes"),
    concurrent: ConcurrentOption = None,
) -> PlannedSweeps:
    """Tune, and plan the held-out sweeps of a scale with what was chosen."""
    import shlex
    import sys

    from dr3_ray import SweepSpec
    from dr3_ray.cli.sweeping import train

    size = Scale.named(scale, SCALES)
    data = {maze: collected(maze, round(size.collected * SHARES[maze]), out / "data" / maze) for maze in MAZES}
    first = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[scale])
    spec = sweep(scale, TUNED, data[TUNED], list(first), dict.fromkeys(STEP_SIZES, TRIED))
    train(SweepSpec(**spec, out=out / "tuning", concurrent=concurrent), False, False, shlex.join(sys.argv))
    best = chosen(outcomes(measured(scale, [out / "tuning"]).histories))
    held_out = {size: (coefficient,) for size, coefficient in best.items()}
    return {"tuning": out / "tuning"} | {
        maze: sweep(
            scale, maze, data[maze], list(range(size.seeds)), held_out, ("DR3-CQL", "BC"), (ALPHA, AUTHORS_ALPHA)
        )
        | {"concurrent": concurrent}
        for maze in MAZES
    }


def collected(maze: str, steps: int, folder: Path) -> Path:
    """Return the folder with episodes of `waypoints` that begin anywhere in a maze, collected where it lacks."""
    from dr3_ray.evaluation.collect import collect
    from dr3_ray.evaluation.mazes import ANYWHERE
    from dr3_ray.evaluation.recipes import recipe_of
    from dr3_ray.policies.waypoints import WAYPOINTS, waypoints

    if not (folder / "manifest.json").exists():
        print(f"collecting {steps:,} steps of {maze} to {folder}", flush=True)
        collect(recipe_of(f"maze:{maze}{ANYWHERE}", steps=steps, player=WAYPOINTS), folder, player=waypoints(0))
    return folder


def sweep(
    scale: str,
    maze: str,
    data: Path,
    seeds: list[int],
    tried: dict[float, tuple[float, ...]],
    algorithms: Sequence[str] = ("DR3-CQL",),
    alphas: Sequence[float] = (ALPHA,),
) -> dict[str, Any]:
    """Return a sweep in one maze, in which each step size has its own c₀ beside 0."""
    size = Scale.named(scale, SCALES)
    coefficients = sorted({0.0, *(each for own in tried.values() for each in own)})
    return {
        "algorithms": list(algorithms),
        "datasets": [str(data.resolve())],
        "environment": f"maze:{maze}",
        "coefficients": coefficients,
        "seeds": seeds,
        "steps": size.updates,
        "evaluations": size.evaluations,
        "evaluation_episodes": EPISODES[scale],
        "options": SETTINGS,
        "axes": {
            "critic_lr": {"grid": list(STEP_SIZES), "when": {"algorithm": "DR3-CQL"}},
            "cql_alpha": {"grid": list(alphas), "when": {"algorithm": "DR3-CQL"}},
            **{name: {"grid": [value], "when": {"algorithm": "DR3-CQL"}} for name, value in OF_CQL.items()},
        },
        "exclude": [
            *({"cql_alpha": each, "dr3_coeff": {"not": 0.0}} for each in alphas if each != ALPHA),
            *(
                {"critic_lr": size, "dr3_coeff": each}
                for size, own in tried.items()
                for each in coefficients
                if each not in (0.0, *own)
            ),
        ],
    }


def measured(scale: str, runs: list[Path]) -> Published:
    """Read finished runs of a scale."""
    return Published.of(scale, runs, {name: f"/{maze}" for maze, name in MAZES.items()}, ["critic_lr", "cql_alpha"])


def answer(runs: list[Path], scale: str, out: Path) -> str:
    """Write the page of these runs, and return its answer."""
    text = publish("mazes", measured(scale, runs), page, draw, out / "results")
    return f"{text.partition('![')[0].strip()}\n\nthe page: {out}/results/mazes.md"


def outcomes(histories: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run: its last measurements, its arm and step size, and its successes."""
    rows = []
    for _, run in histories.sort_values("step").groupby("member", sort=False):
        last = run.iloc[-1]
        named = {"arm": arm(last), "size": step_size(last), "dot_product_log10": np.log10(last["dot_product"])}
        rows.append(last.to_dict() | named | returns_of(run))
    return pd.DataFrame(rows)


def arm(run: pd.Series) -> str:
    """Return which of `ARMS` a run is of."""
    if run["algorithm"] == "BC":
        return CLONED
    if run["dr3_coeff"]:
        return DR3
    return STRONG if float(run["cql_alpha"]) == AUTHORS_ALPHA else PLAIN


def step_size(run: pd.Series) -> str:
    """Return what the step size of a run's critic is called; – for behaviour cloning, which has none."""
    return "–" if run["algorithm"] == "BC" else STEP_SIZES[float(run["critic_lr"])]


def tried(runs: pd.DataFrame) -> pd.DataFrame:
    """Return final and average success of each c₀ at each step size on the tuning seeds, and their sum, `both`."""
    tuned = runs[runs["seed"] >= FIRST_TUNING_SEED]
    means = tuned.groupby(["size", "dr3_coeff"])[["final", "average"]].mean().reset_index()
    return means.assign(both=means["final"] + means["average"]).sort_values("size", ascending=False, kind="stable")


def chosen(runs: pd.DataFrame) -> dict[float, float]:
    """Return the c₀ of each step size."""
    found = tried(runs)
    found = found[found["dr3_coeff"] > 0].sort_values("dr3_coeff")
    best = {name: own.loc[own["both"].idxmax(), "dr3_coeff"] for name, own in found.groupby("size")}
    return {size: float(best[name]) for size, name in STEP_SIZES.items()}


def judged(runs: pd.DataFrame) -> Iterator[tuple[Claim, str, str, Estimate]]:
    """Yield the difference that each claim speaks of, in each maze at each step size, on the held-out seeds."""
    held = runs[runs["seed"] < FIRST_TUNING_SEED]
    for claim, maze, size in product(CLAIMS, MAZES.values(), STEP_SIZES.values()):
        here = held[(held["data"] == maze) & held["size"].isin([size, "–"])]
        sides = (
            here[here["arm"] == name].set_index("seed")[claim.column].astype(float).to_dict()
            for name in (claim.arm, claim.against)
        )
        yield claim, maze, size, paired_difference(*sides)


def helps(results: list[tuple[Claim, str]]) -> str:
    """Return the answer by the rule that was fixed beforehand, of claims and what came of them."""
    verdicts = [said for claim, said in results if claim in OF_HELP]
    holds, fails, of = verdicts.count("holds"), verdicts.count("fails"), len(verdicts)
    said = "DR3 does not help" if fails else "DR3 helps" if holds else "it is not shown that DR3 helps"
    return (
        f"By the rule that was fixed beforehand {said}: of {of} comparisons of success and unlearning\n"
        f"{holds} in favour and {fails} against."
    )


def with_care(runs: pd.DataFrame, comparisons: int) -> str:
    """Return what was said of the answer after the run: how little the rule asks for, and which runs end above 0."""
    lucky = 1 - 0.975**comparisons
    ends = {
        (name, size): runs[(runs["arm"] == name) & (runs["size"] == size)]["final"].gt(0)
        for size in STEP_SIZES.values()
        for name in (PLAIN, DR3)
    }
    counts = {key: f"{above.sum()} of {len(above)}" for key, above in ends.items()}
    usual, three = STEP_SIZES.values()
    return (
        f"Said after the run: the rule asks for little. Among {comparisons} independent comparisons without any\n"
        f"difference one or more would be in favour with probability {lucky:.2f}. Runs that end with any success:\n"
        f"at three times the step size {counts[DR3, three]} with DR3 and {counts[PLAIN, three]} without,\n"
        f"at the usual one {counts[DR3, usual]} with DR3 and {counts[PLAIN, usual]} without."
    )


def page(found: Published) -> str:
    """Write the page from what was measured, every number of it."""
    runs = outcomes(found.histories)
    results = list(judged(runs))
    verdicts = [(claim, verdict(estimate, 0.0, claim.above)) for claim, _, _, estimate in results]
    held = runs[runs["seed"] < FIRST_TUNING_SEED]
    groups = {key: own for key, own in held.groupby(["data", "size", "arm"], sort=False)}
    ordered = [groups[key] for key in product(MAZES.values(), (*STEP_SIZES.values(), "–"), ARMS) if key in groups]
    best = {STEP_SIZES[size]: coefficient for size, coefficient in chosen(runs).items()}
    return f"""# {(__doc__ or "").partition("?")[0]}?

{helps(verdicts)}

{tallied(CLAIMS, verdicts)}

![Success over training](mazes.svg)

{with_care(held, sum(claim in OF_HELP for claim, _ in verdicts))}

## What was claimed, and what came of it

{
        markdown(
            ["claim", "maze", "step size", "mean difference", "it"],
            [
                [claim.said, maze, size, interval(estimate), verdict(estimate, 0.0, claim.above)]
                for claim, maze, size, estimate in results
            ],
        )
    }

## What was measured

Interquartile means over seeds with 95% bootstrap intervals, which are too narrow for five seeds.

{markdown(MEASURED, [_row(own) for own in ordered])}

{shares(found)}

## What was chosen on tuning seeds

{
        markdown(
            ["step size", "c₀", "final success", "average success", ""],
            [
                [row["size"], f"{row['dr3_coeff']:g}", f"{row['final']:.2f}", f"{row['average']:.2f}",
                 "chosen" if row["dr3_coeff"] == best[row["size"]] else ""]
                for _, row in tried(runs).iterrows()
            ],
        )
    }

{ending("mazes", __doc__, found)}
"""  # fmt: skip


MEASURED = [
    "maze", "step size", "learner", "final success", "average success", "unlearning", "dot product",
    "SEEM's eigenvalue", "by its kernel's norm", "effective rank", "mean Q", "diverged",
]  # fmt: skip


def _row(runs: pd.DataFrame) -> list[str]:
    """Return a line of `MEASURED` of the runs of one arm."""
    first = runs.iloc[0]
    last = {name: iqm(runs[name].to_numpy(float)) for name in MEASURES}
    return [
        first["data"], first["size"], f"{DR3}, c₀ = {first['dr3_coeff']:g}" if first["arm"] == DR3 else first["arm"],
        *(interval(bootstrap_estimate(runs[name])) for name in ("final", "average", "unlearning")),
        *(f"{last[name]:{form}}" if first["arm"] != CLONED else "–" for name, form in MEASURES.items()),
        f"{(runs['status'] == 'diverged').sum()} of {len(runs)}",
    ]  # fmt: skip


MEASURES = {
    "dot_product": ".3g",
    "seem_eigenvalue": "+.2g",
    "seem_normalized": "+.1e",
    "effective_rank": ".0f",
    "q_mean": ".3g",
}


def draw(found: Published) -> Figure:
    """Draw success and dot product over training on the held-out seeds, a column for each maze and step size."""
    histories = found.histories[found.histories["seed"] < FIRST_TUNING_SEED]
    histories = histories.assign(arm=histories.apply(arm, axis=1), size=histories.apply(step_size, axis=1))
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    columns = list(product(MAZES.values(), STEP_SIZES.values()))
    panels = figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False)
    for axes, (maze, size) in zip(panels.T, columns, strict=True):
        here = histories[(histories["data"] == maze) & histories["size"].isin([size, "–"])]
        for place, name in enumerate(ARMS):
            own = here[here["arm"] == name]
            for panel, column in zip(axes, ("episode_return_mean", "dot_product"), strict=True):
                if column == "dot_product" and name == CLONED:
                    continue
                band = bootstrap_band(curves := own.pivot(index="member", columns="step", values=column))
                panel.plot(curves.columns, band.value, color=f"C{place}", label=name)
                panel.fill_between(curves.columns, band.low, band.high, color=f"C{place}", alpha=0.15, linewidth=0)
        axes[0].set_title(f"{maze},\n{size} step size", fontsize=8, loc="left")
        axes[1].set_yscale("log")
        axes[1].set_xlabel("gradient updates")
    panels[0, 0].set_ylabel("success")
    panels[1, 0].set_ylabel("dot product")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure


if __name__ == "__main__":
    settled = ("seeds", "steps", "evaluations", "episodes", "environment")
    run_script(plan, answer, __doc__ or "", dict.fromkeys(settled))
