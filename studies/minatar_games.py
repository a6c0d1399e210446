"""Does DR3 raise returns on MinAtar, with a coefficient that was chosen on another game?

    dr3-ray reproduce minatar_games --scale desk --out runs/minatar_games

The DR3 paper's main experiment (Kumar et al. 2022, section 5), on games that a desk can pay. Everything below was fixed
before the first run of its scale.

Tuning: Breakout, the data set of this package (10% of the rows of an online DQN's replay), whole, a tenth of its rows
(1% of the replay), and the rows of its first tenth. Held out: Asterix and Space Invaders, replays of a DQN that is
trained while they are collected (`RECIPE`): 1% and 10% of the rows, drawn uniformly, and the first 10%. Learners: DQN,
CQL and REM, with the settings of `SETTINGS`, and behaviour cloning. Seeds of tuning count from 100, those held out
from 0.

A run's *final* return is the mean of its last two evaluations, its *average* return that over training, and its
*unlearning* the highest mean of two neighbouring evaluations less the final one. A run that diverged ends at 0, the
lowest return of these games. The c₀ of a learner is the one of `TRIED` whose final return is highest, in the mean over
seeds and the three tuning sets. On the tuning set of 10% of the rows L2 on features, the srank penalty, LayerNorm, unit
features and another step size are tried with DQN, three settings each (two other step sizes), as DR3 is. The best of
each goes on to the held-out sets of 10% of the rows.

Claims are judged by `CLAIMS` on each held-out set: the mean difference of runs with equal seeds, with Student's t
interval of 95%. A claim holds where the interval lies on its side of 0, fails where it lies on the other, and is
undecided else. P(better) is the share of pairs of equal seeds in which the first is better, over all held-out sets,
with the exact binomial interval; it is not rliable's, which compares every run with every other. No run is left out,
and no seed is added. Not tried, for what they cost: IQL, QR-CQL, comparators of CQL and REM, and comparators on the
smaller sets. There is no scale for a GPU yet.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

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
    tallied,
    verdict,
)

from dr3_ray.cli.paths import PATH
from dr3_ray.cli.script import PlannedSweeps, run_script
from dr3_ray.stats import (
    Estimate,
    bootstrap_band,
    bootstrap_estimate,
    iqm,
    paired_difference,
    probability_of_improvement,
)

RECIPE: dict[str, Any] = {
    "hidden_sizes": [64, 64],
    "batch_size": 32,
}  # of the DQN that collects, beside `--learner dqn`
SETTINGS: dict[str, Any] = {"hidden_sizes": [64, 64], "adam_eps": 1e-8}
USUAL = 3e-4  # step size of the critic
TARGET_PERIOD = 50  # 200 copies in 10,000 updates, against a horizon of 100 steps
HEADS = 32  # of REM; the paper's 200 take twice the time
LEARNERS = {"DR3-DQN": "DQN", "DR3-CQL": "CQL", "DR3-REM": "REM", "BC": "behaviour cloning"}
TRIED = (0.003, 0.03, 0.3)
STRENGTHS = (1e-4, 1e-3, 1e-2)
STEP_SIZES = (1e-4, 3e-4, 1e-3)
OPTIONS = ("feature_l2_coeff", "srank_coeff", "critic_norm", "critic_lr")
NO_COMPARATOR = {"feature_l2_coeff": 0.0, "srank_coeff": 0.0, "critic_norm": "none", "critic_lr": USUAL}
TUNING = {
    "Breakout, 1%": "breakout-replay?take=uniform:0.1",
    "Breakout, 10%": "breakout-replay",
    "Breakout, first 10%": "breakout-replay?take=first:0.1",
}
GAMES = {"asterix": "Asterix", "space_invaders": "Space Invaders"}
SUBSETS = {"1%": "?take=uniform:0.01", "10%": "?take=uniform:0.1", "first 10%": "?take=first:0.1"}
HELD_OUT = {f"{name}, {share}": f"{game}{way}" for game, name in GAMES.items() for share, way in SUBSETS.items()}
WIDE = tuple(name for name in (*TUNING, *HELD_OUT) if name.endswith(", 10%"))  # where comparators are trained
SCALES = {
    "smoke": Scale(updates=30, evaluations=3, seeds=2, collected=1_200),
    "desk": Scale(updates=10_000, evaluations=10, seeds=5, collected=100_000),
    "full": Scale(updates=100_000, evaluations=50, seeds=10, collected=5_000_000),
}
EPISODES = {"smoke": 1, "desk": 10, "full": 30}
TUNING_SEEDS = {"smoke": 1, "desk": 2, "full": 5}


class Claim(NamedTuple):
    """What the paper's account leads to expect of a difference between two arms, in a column of `outcomes`."""

    said: str
    learner: str
    arm: str
    against: tuple[str, str]
    """A learner and its arm, at equal seeds."""
    column: str
    above: bool = True


PLAIN, DR3 = "as it is", "DR3"
COMPARATORS = ("L2 on features", "srank penalty", "LayerNorm", "unit features", "another step size")
CRITIC_NAMES = ("DR3-DQN", "DR3-CQL", "DR3-REM")
CLAIMS = (
    *(
        Claim(said.format(LEARNERS[name]), name, DR3, (name, PLAIN), column, above)
        for said, column, above in (
            ("DR3 raises the final return of {}", "final", True),
            ("DR3 raises the average return of {}", "average", True),
            ("DR3 lessens the unlearning of {}", "unlearning", False),
            ("DR3 raises the effective rank of {}", "effective_rank", True),
        )
        for name in CRITIC_NAMES
    ),
    *(
        Claim(f"{LEARNERS[name]} with DR3 ends above behaviour cloning", name, DR3, ("BC", PLAIN), "final")
        for name in CRITIC_NAMES
    ),
    *(Claim(f"DQN with DR3 ends above DQN with {other}", "DR3-DQN", DR3, ("DR3-DQN", other), "final")
      for other in COMPARATORS),
)  # fmt: skip


def plan(
    scale: ScaleOption = "desk",
    out: Annotated[Path, typer.Option(help="Where sweeps, data and results are.", **PATH)] = Path("runs/minatar_games"),
    concurrent: ConcurrentOption = None,
) -> PlannedSweeps:
    """Tune, and plan the held-out sweep of a scale with what was chosen."""
    import shlex
    import sys

    from dr3_ray import SweepSpec
    from dr3_ray.cli.sweeping import train

    size = Scale.named(scale, SCALES)
    data = {game: size.replay(f"minatar:{game}", out / "data" / game, RECIPE) for game in GAMES}
    spec = tuning(scale) | {"out": out / "tuning", "concurrent": concurrent}
    train(SweepSpec(**spec), force=False, trust=False, again=shlex.join(sys.argv))
    best = chosen(outcomes(Published.of(scale, [out / "tuning"], TUNING, OPTIONS).histories))
    held = {f"{data[game].resolve()}{way}": f"{name}, {share}" for game, name in GAMES.items()
            for share, way in SUBSETS.items()}  # fmt: skip
    wide = [source for source, name in held.items() if name in WIDE]
    others = compared([best["DR3-DQN", name][1] for name in COMPARATORS], wide)
    unchosen = [{"algorithm": name, "dr3_coeff": {"min": 1e-9, "not": best[name, DR3][0]}} for name in CRITIC_NAMES]
    return {
        "tuning": out / "tuning",
        "held_out": {
            **shared(scale),
            "algorithms": list(LEARNERS),
            "datasets": list(held),
            "coefficients": [0.0, *sorted({best[name, DR3][0] for name in CRITIC_NAMES})],
            "seeds": size.seeds,
            "axes": others["axes"],
            "exclude": [*others["exclude"], *unchosen],
            "concurrent": concurrent,
        },
    }


def shared(scale: str) -> dict[str, Any]:
    """Return the fields that the sweeps of a scale have in common."""
    size = Scale.named(scale, SCALES)
    return {
        "steps": size.updates,
        "evaluations": size.evaluations,
        "evaluation_episodes": EPISODES[scale],
        "options": SETTINGS,
    }


def tuning(scale: str) -> dict[str, Any]:
    """Return the sweep on the tuning game."""
    sources = [f"embedded:{each}" for each in TUNING.values()]
    tries: list[dict[str, Any]] = [{name: each} for name in OPTIONS[:2] for each in STRENGTHS]
    tries += [{"critic_norm": norm, "critic_lr": each} for norm in ("layer", "unit", "none") for each in STEP_SIZES]
    tries = [each for each in tries if NO_COMPARATOR | each != NO_COMPARATOR]
    return {
        **shared(scale),
        "algorithms": list(CRITIC_NAMES),
        "datasets": sources,
        "coefficients": [0.0, *TRIED],
        "seeds": list(range(100, 100 + TUNING_SEEDS[scale])),
        **compared(tries, [f"embedded:{TUNING[name]}" for name in TUNING if name in WIDE]),
    }


def compared(tries: Sequence[Mapping[str, Any]], datasets: list[str]) -> dict[str, Any]:
    """Return axes and exclusions with which DQN without DR3 is tried so on these data sets, beside all as they are."""
    every = [NO_COMPARATOR, *(NO_COMPARATOR | each for each in tries)]
    allowed: dict[tuple[Any, ...], list[float]] = {}
    for each in every:
        allowed.setdefault(tuple(each[name] for name in OPTIONS[:3]), []).append(each["critic_lr"])
    zipped = {name: [kind[place] for kind in allowed] for place, name in enumerate(OPTIONS[:3])}
    unusual, critics = {"critic_lr": {"not": USUAL}}, {"algorithm": list(CRITIC_NAMES)}
    return {
        "axes": {
            "comparator": {
                "zip": zipped,
                "when": {"algorithm": "DR3-DQN", "dr3_coeff": 0.0, "dataset": datasets},
            },
            "critic_lr": {"grid": sorted({each["critic_lr"] for each in every}), "when": critics},
            "target_period": {"grid": [TARGET_PERIOD], "when": critics},
            "n_heads": {"grid": [HEADS], "when": {"algorithm": "DR3-REM"}},
        },
        "exclude": [
            *(dict(zip(OPTIONS[:3], kind, strict=True)) | {"critic_lr": {"not": sizes}}
              for kind, sizes in allowed.items()),
            unusual | {"algorithm": {"not": "DR3-DQN"}},
            unusual | {"dr3_coeff": {"not": 0.0}},
            unusual | {"dataset": {"not": datasets}},
        ],
    }  # fmt: skip


def answer(runs: list[Path], scale: str, out: Path) -> str:
    """Write the page of these runs, and return its answer."""
    found = Published.of(scale, runs, TUNING | HELD_OUT, OPTIONS)
    text = publish("minatar_games", found, page, draw, out / "results")
    return f"{text.partition('![')[0].strip()}\n\nthe page: {out}/results/minatar_games.md"


def outcomes(histories: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run: its last measurements, its learner and arm, and its returns; a diverged one has 0."""
    rows = []
    for _, run in histories.sort_values("step").groupby("member", sort=False):
        last = run.iloc[-1]
        rows.append(last.to_dict() | {"arm": arm(last)} | returns_of(run))
    return pd.DataFrame(rows)


def arm(run: pd.Series) -> str:
    """Return what a run has beside its learner."""
    if run["dr3_coeff"]:
        return DR3
    if run["algorithm"] != "DR3-DQN":
        return PLAIN
    strong = {"feature_l2_coeff": COMPARATORS[0], "srank_coeff": COMPARATORS[1]}
    norms = {"layer": COMPARATORS[2], "unit": COMPARATORS[3]}
    for option, name in strong.items():
        if float(run[option]):
            return name
    if run["critic_norm"] in norms:
        return norms[run["critic_norm"]]
    return PLAIN if float(run["critic_lr"]) == USUAL else COMPARATORS[4]


def chosen(runs: pd.DataFrame) -> dict[tuple[str, str], tuple[float, dict[str, Any]]]:
    """Return c₀ and options of each learner's arm whose final return is highest on the tuning sets.

    The mean is over the tuning sets that an arm was tried on.
    """
    found: dict[tuple[str, str], tuple[float, tuple[float, dict[str, Any]]]] = {}
    for (learner, name, coefficient, options), final in tried(runs):
        if name != PLAIN and final > found.get((learner, name), (-1.0,))[0]:
            found[learner, name] = (final, (coefficient, options))
    return {each: setting for each, (_, setting) in found.items()}


def tried(runs: pd.DataFrame) -> Iterator[tuple[tuple[str, str, float, dict[str, Any]], float]]:
    """Yield learner, arm, c₀ and options of each setting that was tried, and its final return: the mean over sets."""
    tuned = runs[runs["data"].isin(TUNING)]
    for (learner, name, coefficient, *labels), own in tuned.groupby(["algorithm", "arm", "dr3_coeff", *OPTIONS]):
        options = {
            option: label if option == "critic_norm" else float(label)
            for option, label in zip(OPTIONS, labels, strict=True)
        }
        yield (learner, name, coefficient, options), own.groupby("data")["final"].mean().mean()


def judged(runs: pd.DataFrame) -> Iterator[tuple[Claim, str, Estimate]]:
    """Yield the difference that each claim speaks of, on each held-out set where both of its arms were trained."""
    for data in HELD_OUT:
        here = runs[runs["data"] == data]
        for claim in CLAIMS:
            estimate = paired_difference(*(by_seed(here, *which, claim.column) for which in sides(claim)))
            if estimate.n:
                yield claim, data, estimate


def sides(claim: Claim) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the learner and arm that a claim speaks of, and those it is compared with."""
    return (claim.learner, claim.arm), claim.against


def by_seed(runs: pd.DataFrame, learner: str, name: str, column: str) -> dict[tuple[str, int], float]:
    """Return a column of the runs of a learner's arm, by data set and seed."""
    own = runs[(runs["algorithm"] == learner) & (runs["arm"] == name)]
    return dict(zip(zip(own["data"], own["seed"], strict=True), own[column].astype(float), strict=True))


def page(found: Published) -> str:
    """Write the page from what was measured, every number of it."""
    runs = outcomes(found.histories)
    results = list(judged(runs))
    held = runs[runs["data"].isin(HELD_OUT)].sort_values(["data", "algorithm", "arm"], key=_places, kind="stable")
    better = [(claim, probability_of_improvement(*(by_seed(held, *which, claim.column) for which in sides(claim))))
              for claim in CLAIMS if claim.column in ("final", "average")]  # fmt: skip
    return f"""# {(__doc__ or "").partition("?")[0]}?

{tallied(CLAIMS, [(claim, verdict(estimate, 0.0, claim.above)) for claim, _, estimate in results])}

![Returns over training on the held-out sets](minatar_games.svg)

## What was claimed, and what came of it

{
        markdown(
            ["claim", "data", "mean difference", "it"],
            [
                [claim.said, data, interval(estimate), verdict(estimate, 0.0, claim.above)]
                for claim, data, estimate in results
            ],
        )
    }

Over all held-out sets together, the share of pairs of equal seeds and data in which it is so:

{
        markdown(
            ["claim", "P(better)", "pairs"],
            [[claim.said, interval(estimate), str(estimate.n)] for claim, estimate in better],
        )
    }

## What was measured

Interquartile means over seeds with 95% bootstrap intervals, which are too narrow for five seeds.

{markdown(MEASURED, [_row(own) for _, own in held.groupby(["data", "algorithm", "arm"], sort=False)])}

{
        markdown(
            ["data", "rows", "share of (s′, a′) that are rows"],
            [[name, f"{rows:,}", f"{share:.2f}"] for name, (rows, share, _) in found.about["data"].items()],
        )
    }

## What was chosen on Breakout

Final returns, means over the tuning sets that were tried and their seeds; the chosen ones went on.

{markdown(["learner", "setting", "final return", ""], list(_tuned(runs)))}

{ending("minatar_games", __doc__, found)}
"""


MEASURED = [
    "data", "learner", "with", "final return", "average return", "unlearning", "dot product", "effective rank",
    "mean Q", "diverged",
]  # fmt: skip


def _places(column: pd.Series) -> pd.Series:
    """Return the places of data sets, learners and arms in the order of the page."""
    order = [*HELD_OUT, *LEARNERS, PLAIN, DR3, *COMPARATORS]
    return column.map({name: place for place, name in enumerate(order)})


def _row(runs: pd.DataFrame) -> list[str]:
    """Return a line of `MEASURED` of the runs of one arm."""
    first = runs.iloc[0]
    named = f"DR3, c₀ = {first['dr3_coeff']:g}" if first["arm"] == DR3 else first["arm"]
    last = {name: iqm(runs[name].to_numpy(float)) for name in ("dot_product", "effective_rank", "q_mean")}
    measured = [f"{last['dot_product']:.3g}", f"{last['effective_rank']:.0f}", f"{last['q_mean']:.3g}"]
    return [
        first["data"], LEARNERS[first["algorithm"]], named,
        *(interval(bootstrap_estimate(runs[name])) for name in ("final", "average", "unlearning")),
        *(measured if first["algorithm"] != "BC" else ["–"] * 3),
        f"{(runs['status'] == 'diverged').sum()} of {len(runs)}",
    ]  # fmt: skip


def _tuned(runs: pd.DataFrame) -> Iterator[list[str]]:
    """Yield a line for each setting that was tried."""
    best = chosen(runs)
    for (learner, name, coefficient, options), final in tried(runs):
        said = [f"c₀ = {coefficient:g}"] if coefficient else []
        said += [f"`{option}` {value:g}" for option, value in options.items()
                 if value != NO_COMPARATOR[option] and not isinstance(value, str)]  # fmt: skip
        which = "chosen" if best.get((learner, name)) == (coefficient, options) else ""
        yield [LEARNERS[learner], ", ".join([name, *said]), f"{final:.2f}", which]


def draw(found: Published) -> Figure:
    """Draw the return over training, a panel for each held-out set, without DR3 dashed."""
    histories = found.histories.assign(arm=found.histories.apply(arm, axis=1))
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    panels = figure.subplots(len(GAMES), len(SUBSETS), sharex=True, sharey="row", squeeze=False).ravel()
    for axes, name in zip(panels, HELD_OUT, strict=True):
        here = histories[histories["data"] == name]
        for place, (algorithm, called) in enumerate(LEARNERS.items()):
            for own in (PLAIN,) if algorithm == "BC" else (PLAIN, DR3):
                runs = here[(here["algorithm"] == algorithm) & (here["arm"] == own)]
                curves = runs.pivot(index="member", columns="step", values="episode_return_mean")
                band = bootstrap_band(curves)
                label = called if own == PLAIN else f"{called}, DR3"
                axes.plot(curves.columns, band.value, "-" if own == DR3 else "--", color=f"C{place}", label=label)
                axes.fill_between(curves.columns, band.low, band.high, color=f"C{place}", alpha=0.12, linewidth=0)
        axes.set_title(name, fontsize=9, loc="left")
    for axes in panels[-len(SUBSETS) :]:
        axes.set_xlabel("gradient updates")
    for axes in panels[:: len(SUBSETS)]:
        axes.set_ylabel("return")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


if __name__ == "__main__":
    settled = ("seeds", "steps", "evaluations", "episodes")
    run_script(plan, answer, __doc__ or "", dict.fromkeys(settled))
