"""The DR3 paper's comparison on the data that you have: each algorithm without DR3 and with it.

CQL and REM on discrete actions, CQL and BRAC on continuous ones, as in the paper; its data sets (Atari replay, D4RL)
are not part of this package. Name yours: directories, `embedded:NAME`, or `minari:ID`, which is imported first.

    python sweeps/paper_suite.py --scale smoke
    python sweeps/paper_suite.py --scale full --dataset minari:D4RL/door/human-v2 --gpus 0.25 --out runs/door
    ray submit cluster.yaml sweeps/paper_suite.py -- --dataset /shared/data/pong --gpus 0.25 --out /shared/runs/suite
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dr3_ray.cli.paths import PATH
from dr3_ray.cli.script import EMBEDDED, FAST, DatasetOption, PlannedSweeps, by_kind, run_script

ALGORITHMS = {"discrete": ("DR3-CQL", "DR3-REM"), "continuous": ("DR3-CQL", "DR3-BRAC")}
SMALL_NETS = {"hidden_sizes": [64, 64]}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"seeds": 2, "steps": 100, "evaluations": 2, "evaluation_episodes": 2, "options": {"hidden_sizes": [8]}},
    "small": {"seeds": 3, "steps": 10_000, "evaluations": 10, "evaluation_episodes": 10, "options": SMALL_NETS},
    "full": {"seeds": 5, "steps": 1_000_000, "evaluations": 50, "evaluation_episodes": 20, "options": {}},
}


def plan(
    dataset: DatasetOption = [EMBEDDED, "embedded:pendulum-replay"],  # noqa: B006
    scale: Annotated[Literal["smoke", "small", "full"], typer.Option(help="Seeds, updates, networks.")] = "small",
    coefficients: Annotated[str, typer.Option(help="Values of c0; 0 is always there.")] = "0.03",
    data: Annotated[Path, typer.Option(help="Where imported data sets are kept.", **PATH)] = Path("data"),
) -> PlannedSweeps:
    from dr3_ray.cli.spec_options import read_coefficients

    above = read_coefficients([coefficients])
    size = dict(SCALES[scale])
    own = size.pop("options")
    return {
        kind: {
            "algorithms": list(ALGORITHMS[kind]),
            "datasets": sources,
            "coefficients": [0, *above],
            "options": own | ({} if scale == "full" else FAST[kind]),
            **size,
        }
        for kind, sources in by_kind(imported(each, data) for each in dataset).items()
    }


def imported(source: str, data: Path) -> str:
    """Return the directory of a Minari data set, imported if it is not there; other sources as they are."""
    if not source.startswith("minari:"):
        return source
    from dr3_ray.data import import_minari

    path = data / source.removeprefix("minari:").replace("://", "-").replace("/", "-")
    if not path.exists():
        import_minari(source.removeprefix("minari:"), path)
    return str(path)


def answer(runs: list[Path]) -> Any:
    import pandas as pd
    from rich.console import Group

    from dr3_ray.data.labels import dataset_label
    from dr3_ray.report.answers import answer_table, told
    from dr3_ray.report.reader import read_tables
    from dr3_ray.report.tables import outcomes
    from dr3_ray.stats import bootstrap_estimate, probability_of_improvement

    tables = [outcomes(read_tables(run)) for run in runs]
    members = pd.concat(table[table["status"] == "finished"] for table in tables)
    rows = []
    for algorithm, own in members.groupby("algorithm"):
        pooled: dict[float, tuple[dict[Any, float], dict[Any, float]]] = {}
        for dataset, here in own.groupby("dataset"):
            keys = pd.Series([(dataset, seed) for seed in here["seed"]], index=here.index)
            base = here[here["dr3_coeff"] == 0]
            for coefficient, runs_of in here.groupby("dr3_coeff"):
                treated = dict(zip(keys[runs_of.index], runs_of["return_final"], strict=True))
                baseline = dict(zip(keys[base.index], base["return_final"], strict=True))
                before = pooled.setdefault(coefficient, ({}, {}))
                pooled[coefficient] = (before[0] | treated, before[1] | baseline)
                better = probability_of_improvement(treated, baseline)
                measures = ("return_final", "return_average", "dot_product_final")
                cells = [told(bootstrap_estimate(runs_of[measure])) for measure in measures]
                name = f"{algorithm.removeprefix('DR3-')}{f' + DR3 {coefficient:g}' if coefficient else ''}"
                rows.append([name, dataset_label(dataset), *cells, told(better, percent=True) if coefficient else ""])
        for coefficient, pairs in pooled.items():
            if coefficient and own["dataset"].nunique() > 1:
                better = probability_of_improvement(*pairs)
                name = f"{algorithm.removeprefix('DR3-')} + DR3 {coefficient:g}"
                rows.append([name, "all data sets", "", "", "", told(better, percent=True)])
    columns = ["algorithm", "data set", "IQM return,\nlast", "IQM return,\nover training", "dot product,\nlast"]
    title = f"{len(members)} finished runs"
    said = "Interquartile means over seeds with 95% intervals; P: pairs of equal data set and seed, exact interval."
    return Group(answer_table(title, [*columns, "P(better\nthan base)"], rows), said)


if __name__ == "__main__":
    # which --scale settles
    run_script(plan, answer, __doc__ or "", dict.fromkeys(("seeds", "steps", "evaluations", "episodes")))
