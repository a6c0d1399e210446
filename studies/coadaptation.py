"""Does the dot product of the features keep growing when a' need not be in the data?

    dr3-ray reproduce coadaptation --scale desk --out runs/coadaptation

The first experiment of the DR3 paper (Kumar et al. 2022, section 3.1), on a game that a desk can pay. Learners of a
Q-function on the replay of an online DQN on MinAtar's Breakout, which is collected first: regression to Monte-Carlo
returns, offline SARSA, expected TD under a cloned behaviour policy, Q-learning, CQL and REM, all without DR3; and
Q-learning with it. Everything below was fixed before the first run of its scale.

Data: 1% and 10% of the rows, drawn uniformly, and all rows, which are whole episodes. Settings: those of `SETTINGS`;
targets are copied every 250 updates, and every 50 for what the claims compare. Seeds count from 0; seeds from 100 on
were looked at before. A run's *growth* is its dot product at the end over that after a third of the updates, and the
*change of mean Q* is over the same time, relative. Claims are judged by `CLAIMS` on each data set and period: the mean
over seeds of the logarithm of the growth, or of its difference between two learners at equal seeds, with Student's t
interval of 95%. A claim holds where the interval lies on its side, fails where it lies on the other, and is undecided
else. Nothing is left out, and no seed is added.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from packs import markdown
from published import Published, Scale, ScaleOption, ending, publish, shares, tallied, verdict

from dr3_ray.cli.paths import PATH
from dr3_ray.cli.script import PlannedSweeps, run_script
from dr3_ray.stats import Estimate, bootstrap_band, iqm, paired_difference

SETTINGS: dict[str, Any] = {"hidden_sizes": [128, 128], "batch_size": 32, "critic_lr": 3e-4, "adam_eps": 1e-8}
COMPARED = ["DR3-SARSA", "DR3-TD", "DR3-DQN"]
LEARNERS = {
    "DR3-MC": "Monte-Carlo regression",
    "DR3-SARSA": "SARSA",
    "DR3-TD": "expected TD",
    "DR3-DQN": "Q-learning",
    "DR3-CQL": "CQL",
    "DR3-REM": "REM",
}
SUBSETS = {"1% of the rows": "?take=uniform:0.01", "10% of the rows": "?take=uniform:0.1", "all rows": ""}
SCALES = {
    "smoke": Scale(updates=60, evaluations=6, seeds=2, collected=2_000),
    "desk": Scale(updates=60_000, evaluations=30, seeds=5, collected=300_000),
    "full": Scale(updates=1_000_000, evaluations=100, seeds=10, collected=5_000_000),
}
FACETS = ["data", "target_period"]
TREATED = 0.03  # c0 of Q-learning with DR3


class Claim(NamedTuple):
    """What the paper's account leads to expect of log growth."""

    said: str
    learner: str
    against: str | None
    """Another learner, at equal seeds; None: nothing."""
    bound: float
    """The growth or ratio that is expected to be exceeded, or not reached."""
    above: bool


CLAIMS = (
    Claim("Q-learning's dot product grows more than SARSA's", "DR3-DQN", "DR3-SARSA", 1.0, above=True),
    Claim("expected TD's grows more than SARSA's", "DR3-TD", "DR3-SARSA", 1.0, above=True),
    Claim("Q-learning's grows by half or more", "DR3-DQN", None, 1.5, above=True),
    Claim("Monte-Carlo regression's does not grow by half", "DR3-MC", None, 1.5, above=False),
    Claim("SARSA's does not grow by half", "DR3-SARSA", None, 1.5, above=False),
)


def plan(
    scale: ScaleOption = "desk",
    data: Annotated[
        Path | None, typer.Option(help="The replay, whole.", show_default="OUT/data, collected", **PATH)
    ] = None,
    out: Annotated[Path, typer.Option(help="Where sweeps, data and results are.", **PATH)] = Path("runs/coadaptation"),
) -> PlannedSweeps:
    """Plan the sweeps of a scale, after its data are there."""
    size = Scale.named(scale, SCALES)
    replay = size.replay("minatar:breakout", data or out / "data")
    shared = {
        "datasets": [f"{replay.resolve()}{subset}" for subset in SUBSETS.values()],
        "coefficients": [0],
        "seeds": size.seeds,
        "steps": size.updates,
        "evaluations": size.evaluations,
        "environment": "none",
        "options": SETTINGS,
    }
    both = {"target_period": {"grid": [250, 50], "when": {"algorithm": COMPARED}}}
    one = {"target_period": {"grid": [250], "when": {"algorithm": ["DR3-CQL", "DR3-REM"]}}}
    return {
        "base": {**shared, "algorithms": ["DR3-MC", *COMPARED], "axes": both},
        "dr3": {**shared, "algorithms": ["DR3-DQN"], "coefficients": [TREATED], "axes": both},
        "others": {**shared, "algorithms": ["DR3-CQL", "DR3-REM"], "axes": one},
    }


def answer(runs: list[Path], scale: str, out: Path) -> str:
    """Write the page of these runs, and return its answer."""
    found = Published.of(scale, runs, SUBSETS, ["target_period"])
    text = publish("coadaptation", found, page, draw, out / "results")
    return f"{text.partition('![')[0].strip()}\n\nthe page: {out}/results/coadaptation.md"


def page(found: Published) -> str:
    """Write the page from what was measured, every number of it."""
    runs = outcomes(found.histories).sort_values(FACETS, key=_places, kind="stable")
    judged = [
        (claim, facet, estimate)
        for facet, own in runs.groupby(FACETS, sort=False)
        for claim in CLAIMS
        if (estimate := judge(claim, own))
    ]
    return f"""# {(__doc__ or "").partition("?")[0]}?

{tallied(CLAIMS, [(claim, judgement(claim, estimate)) for claim, _, estimate in judged])}

{caution(runs)}

![Dot products over training](coadaptation.svg)

## What was claimed, and what came of it

{
        markdown(
            ["claim", "data", "target period", "growth, or its ratio", "it"],
            [
                [claim.said, *map(str, facet), interval(estimate), judgement(claim, estimate)]
                for claim, facet, estimate in judged
            ],
        )
    }

## What was measured

Interquartile means over seeds; growth and change of mean Q are those since a third of the updates.

{markdown(MEASURED, [_row(own) for _, own in runs.groupby(["learner", *FACETS], sort=False)])}

{shares(found)}

{ending("coadaptation", __doc__, found)}
"""


MEASURED = [
    "learner", "data", "target period", "dot product, first", "at a third", "last", "growth", "change of mean Q",
    "mean Q", "cosine", "effective rank", "diverged",
]  # fmt: skip


def _places(column: pd.Series) -> pd.Series:
    """Return the places of data sets and target periods in the order of the page."""
    order = {name: place for place, name in enumerate([*SUBSETS, "\N{EN DASH}", "250", "50"])}
    return column.map(order)


def _row(runs: pd.DataFrame) -> list[str]:
    """Return a line of `MEASURED` of the runs of one learner."""
    first = runs.iloc[0]
    numbers = ("first", "third", "last", "growth", "q_change", "q_mean", "cosine", "effective_rank")
    means = {name: iqm(runs[name].to_numpy(float)) for name in numbers}
    return [
        first["learner"], first["data"], first["target_period"],
        *(f"{means[name]:.3g}" for name in ("first", "third", "last")),
        f"×{means['growth']:.2f}", f"{means['q_change']:+.0%}",
        f"{means['q_mean']:.3g}", f"{means['cosine']:.2f}", f"{means['effective_rank']:.0f}",
        f"{(runs['status'] == 'diverged').sum()} of {len(runs)}",
    ]  # fmt: skip


def outcomes(histories: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run: its last measurements, the dot product at three moments, and what grew since."""
    rows = []
    for _, run in histories.sort_values("step").groupby("member", sort=False):
        first, third, last = run.iloc[0], run[run["step"] >= run["step"].max() / 3].iloc[0], run.iloc[-1]
        treated = f", c₀ = {last['dr3_coeff']:g}" if last["dr3_coeff"] else ""
        measured = {
            "learner": f"{LEARNERS[last['algorithm']]}{treated}",
            "first": first["dot_product"],
            "third": third["dot_product"],
            "last": last["dot_product"],
            "growth": last["dot_product"] / third["dot_product"],
            "q_change": (last["q_mean"] - third["q_mean"]) / abs(third["q_mean"]),
        }
        rows.append(last.to_dict() | measured)
    return pd.DataFrame(rows)


def judge(claim: Claim, runs: pd.DataFrame) -> Estimate | None:
    """Estimate the mean logarithm that a claim speaks of; None where its learners were not trained."""
    base = runs[runs["dr3_coeff"] == 0].assign(log=lambda each: np.log(each["growth"].astype(float)))

    def growth(learner: str) -> dict[int, float]:
        own = base[base["algorithm"] == learner]
        return dict(zip(own["seed"], own["log"], strict=True))

    treated = growth(claim.learner)
    against = growth(claim.against) if claim.against else dict.fromkeys(treated, 0.0)
    return paired_difference(treated, against) if treated and against else None


def judgement(claim: Claim, estimate: Estimate) -> str:
    """Say on which side of a claim's bound the interval of a logarithm lies."""
    return verdict(estimate, float(np.log(claim.bound)), claim.above)


def caution(runs: pd.DataFrame) -> str:
    """Say what the growth of Q-learning's dot product does not show where its mean Q grows, too."""
    own = runs[(runs["algorithm"] == "DR3-DQN") & (runs["dr3_coeff"] == 0)]
    moved = own.groupby(FACETS, sort=False)["q_change"].median()
    return (
        "Mean Q of Q-learning had not settled: it moved by "
        f"{moved.min():+.0%} to {moved.max():+.0%} over the same time.\n"
        "Its dot product grows, but that it would grow at a settled Q is not shown here. With\n"
        f"c₀ = {TREATED:g} mean Q grows as well. Critics have a head for each action, whose φ does not see a':\n"
        "expected TD and SARSA measure the same features here. No policy was played."
    )


def interval(estimate: Estimate) -> str:
    """Return a mean logarithm and its interval as factors."""
    value, low, high = (f"{np.exp(each):.2f}" for each in (estimate.value, estimate.low, estimate.high))
    return f"×{value} [{low}, {high}]" if estimate.has_interval else f"×{value}"


def draw(found: Published) -> Figure:
    """Draw the dot product over training, a panel for each data set, at the longer target period."""
    histories = found.histories
    shown = histories[histories["target_period"].isin(["250", "\N{EN DASH}"])]
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(SUBSETS), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, SUBSETS, strict=True):
        here = shown[shown["data"] == name]
        for place, (algorithm, coefficient) in enumerate([*((each, 0.0) for each in LEARNERS), ("DR3-DQN", TREATED)]):
            runs = here[(here["algorithm"] == algorithm) & (here["dr3_coeff"] == coefficient)]
            curves = runs.pivot(index="member", columns="step", values="dot_product")
            band = bootstrap_band(curves)
            label = LEARNERS[algorithm] + (f", c₀ = {coefficient:g}" if coefficient else "")
            style = "--" if coefficient else "-"
            axes.plot(curves.columns, band.value, style, color=f"C{place}", label=label)
            axes.fill_between(curves.columns, band.low, band.high, color=f"C{place}", alpha=0.15, linewidth=0)
        axes.set_yscale("log")
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_xlabel("gradient updates")
    panels[0].set_ylabel("dot product φ(s, a)·φ(s\N{PRIME}, a\N{PRIME})")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


if __name__ == "__main__":
    run_script(plan, answer, __doc__ or "", dict.fromkeys(("seeds", "steps", "evaluations", "environment")))
