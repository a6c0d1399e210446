"""Can c₀ be chosen without playing: by which criterion, and what does the choice cost?

    dr3-ray reproduce selection --scale desk --out runs/selection

The runs are those on the tuning game of the study `minatar_games`, taken from beside OUT or trained: DQN, CQL and REM
on three sets of MinAtar's Breakout, with c₀ = 0, 0.003, 0.03 and 0.3. Everything below was fixed before the first run
of its scale.

On each of the nine pairs of learner and set every criterion of `dr3-ray select` that these runs allow ranks the four
c₀ by the data alone. A fitted critic has as many updates as training had, and one seed. The dot product, the TD error
and SEEM's eigenvalue speak for low values, the others for high ones. The *workflow* (arXiv 2109.10813, our
thresholds) takes the smallest c₀ whose curves it most often lets pass, neither overfit nor underfit. *Regret@k* is
the return of the best c₀ less that of the best of the k that a criterion places first, as a share of the range of
returns; returns are those of the last evaluation.

Claims are judged for each criterion: Spearman's ρ with the returns is above 0, by the bootstrap interval of its mean
over the nine; and regret@1 is lower than that of a c₀ drawn at random, by the mean difference over the nine with
Student's t interval of 95%. A claim holds where the interval lies on its side of 0, fails where it lies on the other,
and is undecided else. Nothing is left out.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import minatar_games
import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from packs import markdown
from published import Published, Scale, ScaleOption, ending, interval, publish, verdict

from dr3_ray.cli.paths import PATH
from dr3_ray.cli.script import PlannedSweeps, run_script
from dr3_ray.errors import UserError
from dr3_ray.quantities import RETURN, quantity
from dr3_ray.stats import Estimate, Quality, paired_difference, pooled_quality, selection_quality

NAMES = {
    "fqe": "fitted Q evaluation", "start_value": "own Q at the starts", "dr": "doubly robust",
    "wis": "importance sampling", "td_error": "TD error", "q_mean": "data Q", "dot_product": "dot product",
    "effective_rank": "effective rank", "seem_normalized": "SEEM's eigenvalue", "mean_rank": "mean of these places",
    "workflow": "the workflow", "always_0": "always c₀ = 0", "always_largest": "always the largest c₀",
}  # fmt: skip
RANKED = tuple(NAMES)[:9]
TOP = 2
Runs = list[list[float]]


class Table(NamedTuple):
    """One learner on one set: what criteria say of each c₀'s seeds, more being better, and the returns."""

    learner: str
    data: str
    said: dict[str, Runs]
    returns: Runs


def plan(
    scale: ScaleOption = "desk",
    out: Annotated[Path, typer.Option(help="Where sweeps and results are.", **PATH)] = Path("runs/selection"),
) -> PlannedSweeps:
    """Take the runs that are there, or plan them."""
    from dr3_ray.runs.directory import is_run, read_run

    there = out.parent / "minatar_games" / "tuning"
    if not is_run(there):
        return {"tuning": minatar_games.tuning(scale)}
    steps = Scale.named(scale, minatar_games.SCALES).updates
    if read_run(there)["spec"]["steps"] != steps:
        raise UserError(f"{there} is of another scale than {scale}: give an --out elsewhere")
    return {"tuning": there}


def answer(runs: list[Path], scale: str, out: Path) -> str:
    """Rank by every criterion, write the page, and return its answer."""
    from dr3_ray.report.selection import select
    from dr3_ray.report.selection_judging import known, with_ranks

    trained = Published.of(scale, runs, minatar_games.TUNING, minatar_games.OPTIONS)
    begun = time.monotonic()
    steps = Scale.named(scale, minatar_games.SCALES).updates
    chosen = select(runs[0], RANKED, fqe_steps=steps, fqe_seeds=1, say=lambda what, done, of: None)
    ends = trained.histories.sort_values("step").groupby("member").last()[["data", "time_s"]]
    found = chosen.candidates.join(ends, on="member")
    found = found[found.apply(minatar_games.arm, axis=1).isin([minatar_games.PLAIN, minatar_games.DR3])].copy()
    with_ranks(found, [*(name for name in RANKED if known(found, name)), "mean_rank"])
    kept = ["algorithm", "data", "dr3_coeff", "seed", "step", "time_s", "fit", RETURN]
    measured = [name for name in NAMES if known(found, name)]
    about = trained.about | {"selecting_s": time.monotonic() - begun, "notes": chosen.notes}
    published = Published(found[[*kept, *measured]].reset_index(), about)
    text = publish("selection", published, page, draw, out / "results")
    return f"{text.partition('![')[0].strip()}\n\nthe page: {out}/results/selection.md"


def tables(found: pd.DataFrame) -> Iterator[Table]:
    """Yield what each criterion says of each learner on each set."""
    found = found.assign(
        workflow=(found["fit"] == "undecided").astype(float),
        always_0=-found["dr3_coeff"],
        always_largest=found["dr3_coeff"],
    )
    criteria = [name for name in NAMES if name in found]
    for data in minatar_games.TUNING:
        for learner in minatar_games.CRITIC_NAMES:
            rows = found[(found["data"] == data) & (found["algorithm"] == learner)].sort_values(["dr3_coeff", "seed"])
            groups = [group for _, group in rows.groupby("dr3_coeff")]
            said = {name: [_signed(name, group[name]) for group in groups] for name in criteria}
            if groups:
                yield Table(learner, data, said, [group[RETURN].astype(float).tolist() for group in groups])


def _signed(name: str, values: pd.Series) -> list[float]:
    """Return the values, negative where less is better."""
    less = name in (*RANKED, "mean_rank") and quantity(name).better == "less"
    return (-values.astype(float) if less else values.astype(float)).tolist()


def judged(every: list[Table]) -> Iterator[tuple[str, Quality, Estimate, Estimate]]:
    """Yield each criterion with its quality over all tables, its regret@1 and what a random choice's is more."""
    drawn = {place: _by_chance(table) for place, table in enumerate(every)}
    for name in every[0].said:
        quality = pooled_quality([(table.said[name], table.returns) for table in every], TOP)
        own = {place: _regret(table.said[name], table.returns) for place, table in enumerate(every)}
        yield name, quality, quality.correlation, paired_difference(own, drawn)


def _regret(said: Runs, returns: Runs) -> float:
    """Return regret@1 as a share of the range of returns."""
    means = [float(np.mean(each)) for each in returns]
    width = max(means) - min(means)
    return selection_quality(said, returns, TOP).regret.value / (width or 1.0)


def _by_chance(table: Table) -> float:
    """Return the regret@1 that a c₀ drawn at random has in the mean."""
    n = len(table.returns)
    each = [[[float(place == other)] * len(table.returns[other]) for other in range(n)] for place in range(n)]
    return float(np.mean([_regret(said, table.returns) for said in each]))


def _took(found: Published) -> str:
    """Say how long choosing took, and what was noted of it."""
    notes = " ".join(f"{note}." for note in found.about["notes"])
    return f" Fitted critics and the rest took {found.about['selecting_s'] / 3600:.1f} hours.\n{notes}"


def page(found: Published) -> str:
    """Write the page from what was measured, every number of it."""
    every = list(tables(found.histories))
    results = list(judged(every))
    chance = float(np.mean([_by_chance(table) for table in every]))
    ranked = [each for each in results if not each[0].startswith("always")]
    counts = {side: [NAMES[name] for name, _, correlation, regret in ranked
                     if verdict(*((correlation, 0.0, True) if side == "order" else (regret, 0.0, False))) == "holds"]
              for side in ("order", "regret")}  # fmt: skip
    return f"""# {(__doc__ or "").partition("?")[0]}?

- The order of returns is told better than by chance by {_listed(counts["order"])}, of {len(ranked)} criteria.
- Criteria with less regret than a c₀ drawn at random: {_listed(counts["regret"])}, of {len(ranked)}.

![Regret of each criterion](selection.svg)

## What was claimed, and what came of it

Over {len(every)} pairs of learner and set. A c₀ that is drawn at random has a regret@1 of {chance:.2f}.

{markdown(CLAIMED, [_claimed(*each) for each in results])}

## Regret@1 of each pair

As a share of the range of returns, which is that of the four c₀.

{markdown(["learner", "data", "range", *(NAMES[name] for name in every[0].said)], [_regrets(each) for each in every])}

{ending("selection", __doc__, found, _took(found))}
"""


CLAIMED = ["criterion", "Spearman's ρ", "ρ is above 0", "regret@1", "regret@2", "less than at random", "it"]


def _claimed(name: str, quality: Quality, correlation: Estimate, less: Estimate) -> list[str]:
    """Return a line of `CLAIMED`."""
    return [
        NAMES[name],
        interval(correlation), verdict(correlation, 0.0, above=True),
        interval(quality.regret), interval(quality.regret_at_k),
        interval(less), verdict(less, 0.0, above=False),
    ]  # fmt: skip


def _regrets(table: Table) -> list[str]:
    """Return a line with every criterion's regret@1 in one table."""
    means = [float(np.mean(each)) for each in table.returns]
    numbers = [f"{_regret(said, table.returns):.2f}" for said in table.said.values()]
    learner = minatar_games.LEARNERS[table.learner]
    return [learner, table.data, f"{min(means):.2f} to {max(means):.2f}", *numbers]


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def draw(found: Published) -> Figure:
    """Draw regret@1 of each criterion, over all pairs, with that of each."""
    every = list(tables(found.histories))
    results = list(judged(every))
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes: Any = figure.subplots()
    for place, (name, quality, _, _) in enumerate(results):
        own = [_regret(table.said[name], table.returns) for table in every]
        axes.plot(own, [place] * len(own), "o", color="C7", alpha=0.4, markersize=4)
        axes.plot([quality.regret.low, quality.regret.high], [place, place], color="C0")
        axes.plot(quality.regret.value, place, "D", color="C0")
    axes.axvline(float(np.mean([_by_chance(table) for table in every])), color="C3", linestyle="--", label="at random")
    axes.set_yticks(range(len(results)), [NAMES[name] for name, *_ in results])
    axes.invert_yaxis()
    axes.set_xlabel("regret@1, share of the range of returns")
    axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    run_script(plan, answer, __doc__ or "", dict.fromkeys(("seeds", "steps", "evaluations", "episodes")))
