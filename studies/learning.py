"""Does every algorithm learn more than behaviour cloning does from the same data?

    dr3-ray reproduce learning --scale desk --out runs/learning

On the two data sets of the package, replays of MinAtar's Breakout and of Pendulum, every algorithm that acts is trained
and plays, without DR3's term. Everything below was fixed before the first run of its scale.

The score of a run is the mean undiscounted return of its last policy over 20 episodes, which are the same for all,
acting deterministically. An algorithm *beats* behaviour cloning where the mean of the differences at equal seeds lies
above 0 with its interval, *is below* it where it lies below, and is *undecided* else. The interval is Student's t, of
95% for all comparisons on one data set together (Bonferroni). P(better) is the share of pairs of equal seeds that the
algorithm wins, a tie counting half, and not rliable's share of all pairs.

Settings stand in `SETTINGS`; all others are defaults. Seeds count from 10: those below were in an earlier table,
after which settings were changed on other seeds (CQL's batch of 256 in the place of 64 and BRAC's longer training of
its behaviour model on Pendulum; CQL's α and Adam's ε on Breakout, and BRAC's α). Nothing is left out, and no seed is
added.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from packs import markdown, with_interval
from published import Published, Scale, ScaleOption, ending, publish

from dr3_ray.cli.paths import PATH
from dr3_ray.cli.script import PlannedSweeps, run_script
from dr3_ray.stats import Estimate, bootstrap_estimate, paired_difference, probability_of_improvement

BASELINE = "BC"
DATA = {"Breakout": "embedded:breakout-replay", "Pendulum": "embedded:pendulum-replay"}
FIRST_SEED = 10
SCALES = {
    "smoke": Scale(updates=20, evaluations=2, seeds=2, collected=0),
    "desk": Scale(updates=10_000, evaluations=4, seeds=5, collected=0),
    "full": Scale(updates=100_000, evaluations=20, seeds=10, collected=0),
}
EPISODES = {"smoke": 1, "desk": 20, "full": 20}
SMALL: dict[str, Any] = {"hidden_sizes": [16, 16], "batch_size": 8}  # of the smallest scale

ALGORITHMS = {
    "Breakout": ["DR3-DQN", "DR3-CQL", "DR3-IQL", "DR3-REM", "DR3-QRDQN", "DR3-QRCQL", "DR3-SARSA", "DR3-TD", "DR3-MC"],
    "Pendulum": ["DR3-CQL", "DR3-IQL", "DR3-TD3BC", "DR3-ReBRAC", "DR3-BRAC"],
}
# the data are 30,000 rows of Breakout and 20,000 of Pendulum, whose observations are three numbers
COMMON: dict[str, dict[str, Any]] = {
    "Breakout": {"batch_size": 32, "hidden_sizes": [128, 128]},
    "Pendulum": {"batch_size": 256, "hidden_sizes": [64, 64]},
}


def _only(value: Any, *algorithms: str) -> dict[str, Any]:
    """Return an axis of one value that some algorithms have; the others keep their default."""
    return {"grid": [value], "when": {"algorithm": list(algorithms)}}


_WITH_TARGET = [each for each in ALGORITHMS["Breakout"] if each not in ("DR3-IQL", "DR3-MC")]
# Large step sizes and a target that follows within 10,000 updates: the defaults are made for 1,000,000 of them.
SETTINGS: dict[str, dict[str, Any]] = {
    "Breakout": {
        "critic_lr": _only(3e-4, *_WITH_TARGET, "DR3-MC"),
        "adam_eps": _only(1e-8, *_WITH_TARGET, "DR3-MC"),
        "target_period": _only(250, *_WITH_TARGET),
        "cql_alpha": _only(0.5, "DR3-CQL"),
        # 50 heads and 20 quantiles in the place of 200 each: for time
        "n_heads": _only(50, "DR3-REM"),
        "n_quantiles": _only(20, "DR3-QRDQN", "DR3-QRCQL"),
    },
    "Pendulum": {
        "critic_lr": _only(1e-3, *ALGORITHMS["Pendulum"]),
        "actor_lr": _only(1e-3, BASELINE, *ALGORITHMS["Pendulum"]),
        "value_lr": _only(1e-3, "DR3-IQL"),
        "temperature_lr": _only(1e-3, "DR3-CQL"),
        # actions have one component: four samples in the place of ten
        "n_sampled_actions": _only(4, "DR3-CQL"),
        # the largest weights of the paper's grid; CORL's defaults of 1 are in none of its configurations
        "actor_bc_coeff": _only(0.1, "DR3-ReBRAC"),
        "critic_bc_coeff": _only(0.1, "DR3-ReBRAC"),
        # returns of -1,600 to 0 are brought to the range for which IQL's temperature of 3 was chosen (CORL)
        "reward_scaling": _only("return_range", "DR3-IQL"),
        "reward_scale": _only(1000.0, "DR3-IQL"),
        # a behaviour model that has converged: its 320,000 updates by default are for larger data
        "behaviour_lr": _only(1e-3, "DR3-BRAC"),
        "behaviour_steps": _only(8000, "DR3-BRAC"),
        "warm_start_steps": _only(1000, "DR3-BRAC"),
        "brac_alpha": _only(10.0, "DR3-BRAC"),
        "normalize_observations": _only(True, "DR3-BRAC", "DR3-TD3BC"),  # TD3+BC: as in its paper
    },
}

SHORT = {"behaviour_steps": _only(2, "DR3-BRAC"), "warm_start_steps": _only(2, "DR3-BRAC")}  # of the smallest scale


def plan(
    scale: ScaleOption = "desk",
    out: Annotated[Path, typer.Option(help="Where sweeps and results are.", **PATH)] = Path("runs/learning"),
) -> PlannedSweeps:
    """Plan the sweeps of a scale: on each data set, behaviour cloning and every algorithm that acts."""
    size = Scale.named(scale, SCALES)
    smallest = scale == "smoke"
    shared = {
        "seeds": list(range(FIRST_SEED, FIRST_SEED + size.seeds)),
        "steps": size.updates,
        "evaluations": size.evaluations,
        "episodes": EPISODES[scale],
    }
    return {
        name.lower(): {
            **shared,
            "algorithms": [BASELINE, *ALGORITHMS[name]],
            "datasets": [DATA[name]],
            "coefficients": [0],
            "options": SMALL if smallest else COMMON[name],
            "axes": {key: SHORT.get(key, axis) if smallest else axis for key, axis in SETTINGS[name].items()},
        }
        for name in DATA
    }


def answer(runs: list[Path], scale: str, out: Path) -> str:
    """Write the page of these runs, and return its answer."""
    found = Published.of(scale, runs, DATA, [])
    text = publish("learning", found, page, draw, out / "results")
    return f"{text.partition('![')[0].strip()}\n\nthe page: {out}/results/learning.md"


def page(found: Published) -> str:
    """Write the page from what was measured, every number of it."""
    runs = outcomes(found.histories)
    return f"""# {(__doc__ or "").partition("?")[0]}?

{answered(runs)}

![Returns of all algorithms](learning.svg)

## Against behaviour cloning

{markdown(AGAINST, list(_against_cloning(runs)))}

{ending("learning", __doc__, found)}
"""


AGAINST = [
    "data", "algorithm", "IQM of returns", "at its best", "dot product", "effective rank", "difference to BC",
    "P(better)", "it",
]  # fmt: skip


def outcomes(histories: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run: its last measurements and the best of its mean returns."""
    ordered = histories.sort_values("step")
    last = ordered.groupby("member", sort=False).tail(1).set_index("member")
    best = ordered.groupby("member")["episode_return_mean"].max()
    return last.assign(best=best.reindex(last.index)).reset_index()


def scores(runs: pd.DataFrame, data: str, algorithm: str) -> dict[int, float]:
    """Return the scores of the runs of an algorithm by seed; NaN where a run diverged."""
    own = _runs(runs, data, algorithm)
    returns = own["episode_return_mean"].where(own["status"] == "finished").astype(float)
    return dict(zip(own["seed"], returns, strict=True))


def against_cloning(runs: pd.DataFrame, data: str, algorithm: str) -> Estimate:
    """Estimate how much more an algorithm scores than behaviour cloning, at equal seeds."""
    count = len(ALGORITHMS[data])
    return paired_difference(scores(runs, data, algorithm), scores(runs, data, BASELINE), comparisons=count)


def verdict(difference: Estimate) -> str:
    """Say on which side of 0 the interval of a difference lies."""
    if not difference.has_interval or difference.low <= 0 <= difference.high:
        return "undecided"
    return "beats it" if difference.low > 0 else "is below"


def answered(runs: pd.DataFrame) -> str:
    """Return the answer, a sentence for each data set."""
    said = []
    for data, names in ALGORITHMS.items():
        verdicts = {name: verdict(against_cloning(runs, data, name)) for name in names}
        parts = [
            f"{word}: {', '.join(found)}"
            for word, way in (("beat BC", "beats it"), ("are undecided", "undecided"), ("are below", "is below"))
            if (found := [name for name in names if verdicts[name] == way])
        ]
        said.append(f"- {data}: {'; '.join(parts)}.")
    return "\n".join(said)


def _against_cloning(runs: pd.DataFrame) -> Iterator[list[str]]:
    for data, names in ALGORITHMS.items():
        cloned = scores(runs, data, BASELINE)
        yield [data, BASELINE, *_measured(_runs(runs, data, BASELINE)), "", "", ""]
        for name in names:
            difference = against_cloning(runs, data, name)
            wins = probability_of_improvement(scores(runs, data, name), cloned)
            own = _measured(_runs(runs, data, name))
            yield [data, name, *own, with_interval(difference), f"{wins.value:.1f}", verdict(difference)]


def _runs(runs: pd.DataFrame, data: str, algorithm: str) -> pd.DataFrame:
    return runs[(runs["data"] == data) & (runs["algorithm"] == algorithm)]


def _measured(runs: pd.DataFrame) -> list[str]:
    """Return interquartile means: the last return with its interval, the best return, dot product and rank."""
    last = runs["episode_return_mean"].where(runs["status"] == "finished").to_numpy(float)
    best, product, rank = (
        bootstrap_estimate(runs[name].to_numpy(float)).value for name in ("best", "dot_product", "effective_rank")
    )
    shown = [with_interval(bootstrap_estimate(last)), f"{best:.1f}", f"{product:.3g}", f"{rank:.0f}"]
    return ["" if text == "nan" else text for text in shown]


def draw(found: Published) -> Figure:
    """Draw the score of every run and the interval of each algorithm, a panel for each data set."""
    runs = outcomes(found.histories)
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    for axes, (data, names) in zip(figure.subplots(1, len(ALGORITHMS)), ALGORITHMS.items(), strict=True):
        shown = [BASELINE, *names]
        for place, name in enumerate(shown):
            values = np.array(list(scores(runs, data, name).values()))
            estimate = bootstrap_estimate(values)
            colour = "0.4" if name == BASELINE else "C0"
            axes.scatter(values, np.full(len(values), place), s=14, color=colour, linewidth=0)
            axes.plot([estimate.low, estimate.high], [place, place], color=colour, alpha=0.5)
            if name == BASELINE:
                axes.axvline(estimate.value, color="0.6", linewidth=0.8)
        axes.set_yticks(range(len(shown)), shown)
        axes.invert_yaxis()
        axes.set_title(data, fontsize=9, loc="left")
        axes.set_xlabel("return of the last policy")
    return figure


if __name__ == "__main__":
    run_script(plan, answer, __doc__ or "", dict.fromkeys(("seeds", "steps", "evaluations", "episodes", "dataset")))
