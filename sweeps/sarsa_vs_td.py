"""Does the dot product of the features grow with out-of-sample actions only? The DR3 paper's first experiment.

Four learners of a Q-function on the same data, without DR3: regression to Monte-Carlo returns has no backup; offline
SARSA backs up from recorded pairs (s', a'), whose share among the rows is measured; TD with actions of a cloned
behaviour policy and Q-learning (on continuous actions the policy of SAC) from actions that need not be in the data.
The argument of the paper for SARSA needs a share near 1: take whole episodes, not single rows.

    python sweeps/sarsa_vs_td.py --dataset embedded:breakout-replay --seeds 5 --out runs/sarsa_vs_td
    ray submit cluster.yaml sweeps/sarsa_vs_td.py -- --dataset /shared/data/pong --out /shared/runs/sarsa_vs_td
"""

from pathlib import Path
from typing import Any

from dr3_ray.cli.script import EMBEDDED, FAST, DatasetOption, PlannedSweeps, by_kind, run_script

LEARNERS = {
    "DR3-MC": ("Monte-Carlo regression", "none"),
    "DR3-SARSA": ("SARSA", "recorded"),
    "DR3-TD": ("TD, cloned policy", "need not be"),
    "DR3-DQN": ("Q-learning", "need not be"),
    "DR3-CQL": ("Q-learning (SAC)", "need not be"),
}
REFERENCE = "DR3-SARSA"


def plan(dataset: DatasetOption = [EMBEDDED]) -> PlannedSweeps:  # noqa: B006
    planned: dict[str, dict[str, Any]] = {}
    for kind, sources in by_kind(dataset).items():
        learner = {"discrete": "DR3-DQN", "continuous": "DR3-CQL"}[kind]
        bootstrapping = ["DR3-SARSA", "DR3-TD", learner]
        settings = dict(FAST[kind])
        period = settings.pop("target_period", None)
        axes = {"target_period": {"grid": [period], "when": {"algorithm": bootstrapping}}} if period else {}
        if kind == "continuous":
            axes["cql_alpha"] = {"grid": [0.0], "when": {"algorithm": "DR3-CQL"}}
        planned[kind] = {
            "algorithms": ["DR3-MC", *bootstrapping],
            "datasets": sources,
            "coefficients": [0],
            "options": settings,
            "axes": axes,
        }
    return planned


def answer(runs: list[Path]) -> Any:
    from rich.console import Group

    from dr3_ray.data import load_dataset
    from dr3_ray.data.labels import dataset_label
    from dr3_ray.data.pairs import share_of_pairs
    from dr3_ray.report.answers import answer_table, told
    from dr3_ray.report.reader import read_tables
    from dr3_ray.stats import bootstrap_estimate, probability_of_improvement

    shown: list[Any] = []
    for run in map(read_tables, runs):
        finished = run.histories[run.histories["status"] == "finished"]
        for dataset, here in finished.groupby("dataset"):
            share = share_of_pairs(load_dataset(dataset))
            curves = {
                algorithm: own.sort_values("step").groupby("seed") for algorithm, own in here.groupby("algorithm")
            }
            growth = {
                name: (curve["dot_product"].last() / curve["dot_product"].first()).to_dict()
                for name, curve in curves.items()
            }
            rows = []
            for name in (each for each in LEARNERS if each in curves):
                ends = [curves[name]["dot_product"].first(), curves[name]["dot_product"].last()]
                against = probability_of_improvement(growth[name], growth.get(REFERENCE, {}))
                rows.append(
                    [
                        LEARNERS[name][0],
                        LEARNERS[name][1] + (f",\n{share:.0%} are rows" if name == REFERENCE else ""),
                        *(told(bootstrap_estimate(each)) for each in ends),
                        told(bootstrap_estimate(list(growth[name].values()))),
                        "" if name == REFERENCE else told(against, percent=True),
                        told(bootstrap_estimate(curves[name]["q_mean"].last())),
                    ]
                )
            columns = ["learner", "a' of the backup", "dot product,\nfirst", "last", "last /\nfirst"]
            columns += ["P(grows more\nthan SARSA's)", "mean Q,\nlast"]
            shown.append(answer_table(f"{dataset_label(dataset)}, {here['step'].max():,} updates", columns, rows))
    return Group(*shown, "Interquartile means over seeds with 95% intervals; P: pairs of equal seeds, exact interval.")


if __name__ == "__main__":
    # nothing is asked about returns
    run_script(plan, answer, __doc__ or "", {"seeds": ["5"], "steps": 10_000, "evaluations": 10, "environment": "none"})
