"""Does the dot product of φ(s, a) keep growing when a' need not be in the data, where φ sees the action?

    dr3-ray reproduce coadaptation_input --scale desk --out runs/coadaptation_input

The study `coadaptation` again with critics that take the action as input (`critic_actions=input`): with a head for each
action φ(s') does not depend on a', and expected TD and SARSA measured the same features. Learners, all without DR3:
regression to Monte-Carlo returns, offline SARSA, expected TD under a cloned behaviour policy, the same with one a' ~ β
drawn anew in every update, and Q-learning. Everything below was fixed before the first run of its scale.

Data: of the replay of `coadaptation` 10% of the rows, drawn uniformly, in which a recorded (s', a') need not be a row,
and 10% of the episodes, whole, in which it is. Settings are those of `coadaptation`; targets are copied every 250 or
every 50 updates. Training is a quarter as long, which is what a desk had. Seeds count from 0. A run's *growth* is its
dot product at the end over that after a third of the updates: at the pairs (s', a') of the backup, or at those that the
data recorded, which are the same for all learners. Claims are judged by `CLAIMS` as in `coadaptation`, on each data set
and period: a claim holds where Student's t interval of 95% of the mean logarithm lies on its side, fails where it lies
on the other, and is undecided else. Nothing is left out, and no seed is added.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import typer
from coadaptation import SETTINGS, Claim, interval, judge, judgement
from matplotlib.figure import Figure
from packs import markdown
from published import Published, Scale, ScaleOption, ending, publish, shares

from dr3_ray.cli.paths import PATH
from dr3_ray.cli.script import PlannedSweeps, run_script
from dr3_ray.stats import Estimate, bootstrap_band, iqm

BOOTSTRAPPED = ["DR3-SARSA", "DR3-TD", "DR3-DQN"]
DRAWN = "DR3-TD, sampled"
LEARNERS = {
    "DR3-MC": "Monte-Carlo regression",
    "DR3-SARSA": "SARSA",
    "DR3-TD": "expected TD",
    DRAWN: "TD with a drawn a'",
    "DR3-DQN": "Q-learning",
}
SUBSETS = {"10% of the rows": "?take=uniform:0.1", "10% of the episodes": "?split=validation"}
SCALES = {
    "smoke": Scale(updates=60, evaluations=6, seeds=2, collected=2_000),
    "desk": Scale(updates=15_000, evaluations=15, seeds=5, collected=300_000),
    "full": Scale(updates=1_000_000, evaluations=100, seeds=10, collected=5_000_000),
}
FACETS = ["data", "target_period"]
PAIRS = {"dot_product": "the backup's pairs", "dot_product_data": "the data's pairs"}


class Asked(NamedTuple):
    """A claim, and the pairs at which its dot products are measured."""

    claim: Claim
    pairs: str


CLAIMS = (
    *(
        Asked(Claim(f"{said} grows more than SARSA's, at {name}", learner, "DR3-SARSA", 1.0, above=True), pairs)
        for pairs, name in PAIRS.items()
        for said, learner in (
            ("Q-learning's", "DR3-DQN"),
            ("expected TD's", "DR3-TD"),
            ("that of TD with a drawn a'", DRAWN),
        )
    ),
    Asked(Claim("Q-learning's grows by half or more", "DR3-DQN", None, 1.5, above=True), "dot_product"),
    Asked(Claim("Monte-Carlo regression's does not grow by half", "DR3-MC", None, 1.5, above=False), "dot_product"),
    Asked(Claim("SARSA's does not grow by half", "DR3-SARSA", None, 1.5, above=False), "dot_product"),
)


def plan(
    scale: ScaleOption = "desk",
    data: Annotated[
        Path | None, typer.Option(help="The replay, whole.", show_default="OUT/data, collected", **PATH)
    ] = None,
    out: Annotated[Path, typer.Option(help="Where sweeps, data and results are.", **PATH)] = Path(
        "runs/coadaptation_input"
    ),
) -> PlannedSweeps:
    """Plan the sweep of a scale, after its data are there."""
    size = Scale.named(scale, SCALES)
    replay = size.replay("minatar:breakout", data or out / "data")
    return {
        "input": {
            "algorithms": ["DR3-MC", *BOOTSTRAPPED],
            "datasets": [f"{replay.resolve()}{subset}" for subset in SUBSETS.values()],
            "coefficients": [0],
            "seeds": size.seeds,
            "steps": size.updates,
            "evaluations": size.evaluations,
            "environment": "none",
            "options": SETTINGS | {"critic_actions": "input"},
            "axes": {
                "target_period": {"grid": [250, 50], "when": {"algorithm": BOOTSTRAPPED}},
                "td_actions": {"grid": ["expected", "sampled"], "when": {"algorithm": ["DR3-TD"]}},
            },
        }
    }


def answer(runs: list[Path], scale: str, out: Path) -> str:
    """Write the page of these runs, and return its answer."""
    found = Published.of(scale, runs, SUBSETS, ["target_period", "td_actions"])
    text = publish("coadaptation_input", found, page, draw, out / "results")
    return f"{text.partition('![')[0].strip()}\n\nthe page: {out}/results/coadaptation_input.md"


def page(found: Published) -> str:
    """Write the page from what was measured, every number of it."""
    runs = outcomes(found.histories)
    judged = [
        (asked, facet, estimate)
        for facet, own in runs.groupby(FACETS, sort=False)
        for asked in CLAIMS
        if (estimate := judge(asked.claim, own.assign(growth=own[f"growth_{asked.pairs}"])))
    ]
    return f"""# {(__doc__ or "").partition("?")[0]}?

{answered(judged)}

No policy was played, and training was short: [coadaptation](coadaptation.md) has four times the updates, with a head
for each action.

![Dot products over training](coadaptation_input.svg)

## What was claimed, and what came of it

{
        markdown(
            ["claim", "data", "target period", "growth, or its ratio", "it"],
            [
                [asked.claim.said, *map(str, facet), interval(estimate), judgement(asked.claim, estimate)]
                for asked, facet, estimate in judged
            ],
        )
    }

## What was measured

Interquartile means over seeds, at the last update; growth and change of mean Q are those since a third of the updates.
The second of two numbers is at the data's pairs (s′, a′), and of norms that of φ′.

{markdown(MEASURED, [_row(own) for _, own in runs.groupby(["learner", *FACETS], sort=False)])}

{shares(found)}

{ending("coadaptation_input", __doc__, found)}
"""


MEASURED = [
    "learner", "data", "target period", "dot product", "growth", "cosine", "‖φ‖, ‖φ′‖", "SEEM's eigenvalue",
    "by its kernel's norm", "effective rank", "mean Q", "change of mean Q", "diverged",
]  # fmt: skip


def outcomes(histories: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run, in the page's order: its last measurements, what grew since a third, who learned."""
    rows = []
    for _, run in histories.sort_values("step").groupby("member", sort=False):
        third, last = run[run["step"] >= run["step"].max() / 3].iloc[0], run.iloc[-1]
        key = DRAWN if last["td_actions"] == "sampled" else last["algorithm"]
        grown = {f"growth_{pairs}": last[pairs] / third[pairs] for pairs in PAIRS}
        change = (last["q_mean"] - third["q_mean"]) / abs(third["q_mean"])
        rows.append(last.to_dict() | grown | {"q_change": change, "algorithm": key, "learner": LEARNERS[key]})
    order = [*SUBSETS, "\N{EN DASH}", "250", "50", *LEARNERS]
    return pd.DataFrame(rows).sort_values([*FACETS, "algorithm", "seed"], key=lambda column: _places(column, order))


def _places(column: pd.Series, order: list[str]) -> pd.Series:
    return column if column.name == "seed" else column.map(order.index)


def _row(runs: pd.DataFrame) -> list[str]:
    """Return a line of `MEASURED` of the runs of one learner."""
    first = runs.iloc[0]

    def mean(*names: str, form: str = ".3g") -> str:
        return ", ".join(f"{iqm(runs[name].to_numpy(float)):{form}}" for name in names)

    return [
        first["learner"], first["data"], first["target_period"], mean(*PAIRS),
        mean(*(f"growth_{pairs}" for pairs in PAIRS), form=".2f"), mean("cosine", "cosine_data", form=".2f"),
        mean("phi_norm", "next_phi_norm"), mean("seem_eigenvalue", form="+.2g"), mean("seem_normalized", form="+.1e"),
        mean("effective_rank", form=".0f"), mean("q_mean"), mean("q_change", form="+.0%"),
        f"{(runs['status'] == 'diverged').sum()} of {len(runs)}",
    ]  # fmt: skip


def answered(judged: list[tuple[Asked, Any, Estimate]]) -> str:
    """Return the answer in one sentence a claim."""
    said = []
    for asked in CLAIMS:
        verdicts = [judgement(asked.claim, estimate) for other, _, estimate in judged if other is asked]
        counts = ", ".join(f"{verdicts.count(each)} {each.split()[-1]}" for each in ("holds", "fails", "is undecided"))
        said.append(f"- {asked.claim.said[0].upper()}{asked.claim.said[1:]}: {counts}, of {len(verdicts)} comparisons.")
    return "\n".join(said)


def draw(found: Published) -> Figure:
    """Draw the dot product over training at the longer target period; dotted, that at the data's pairs."""
    histories = found.histories
    shown = histories[histories["target_period"].isin(["250", "\N{EN DASH}"])]
    learners = shown["algorithm"].mask(shown["td_actions"] == "sampled", DRAWN)
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(SUBSETS), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, SUBSETS, strict=True):
        for place, (key, label) in enumerate(LEARNERS.items()):
            runs = shown[(shown["data"] == name) & (learners == key)]
            for pairs, style in zip(PAIRS, ("-", ":"), strict=True):
                band = bootstrap_band(curves := runs.pivot(index="member", columns="step", values=pairs))
                axes.plot(curves.columns, band.value, style, color=f"C{place}", label=label if style == "-" else None)
                if style == "-":
                    axes.fill_between(curves.columns, band.low, band.high, color=f"C{place}", alpha=0.15, linewidth=0)
        axes.set_yscale("log")
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_xlabel("gradient updates")
    panels[0].set_ylabel("dot product φ(s, a)·φ(s\N{PRIME}, a\N{PRIME})")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


if __name__ == "__main__":
    run_script(plan, answer, __doc__ or "", dict.fromkeys(("seeds", "steps", "evaluations", "environment")))
