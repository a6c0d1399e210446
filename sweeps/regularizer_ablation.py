"""Is it DR3, or would another regulariser of the critic do? Each is tried at equal effort, and the best of each shown.

DR3, L2 on features, the srank penalty, weight decay, dropout and a variational bottleneck are tried with three
strengths each; LayerNorm, unit features, spectral norm and the critic as it is have no strength, and are tried with
three step sizes of the critic instead. Which of its three tries stands for a regulariser in seed s is chosen by the
returns of all other seeds.

    python sweeps/regularizer_ablation.py --dataset embedded:breakout-replay --out runs/regularizers
    ray submit cluster.yaml sweeps/regularizer_ablation.py -- --gpus 0.25 --dataset /shared/pong --out /shared/runs/r
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from dr3_ray.cli.script import EMBEDDED, FAST, DatasetOption, PlannedSweeps, by_kind, run_script

STRENGTHS = {  # option: three strengths
    "dr3_coeff": (0.003, 0.03, 0.3),
    "feature_l2_coeff": (1e-4, 1e-3, 1e-2),
    "srank_coeff": (1e-4, 1e-3, 1e-2),
    "critic_weight_decay": (1e-3, 1e-2, 1e-1),
    "critic_dropout": (0.05, 0.1, 0.3),
    "bottleneck_coeff": (1e-4, 1e-3, 1e-2),
}
NORMS = ("none", "layer", "unit", "spectral")  # none: the critic as it is
STEP_SIZES = (1 / 3, 1.0, 3.0)  # of the usual one
OFF: dict[str, Any] = {
    **dict.fromkeys(("feature_l2_coeff", "srank_coeff", "critic_weight_decay", "critic_dropout"), 0.0),
    **{"bottleneck_coeff": 1e-3, "critic_bottleneck": False, "critic_norm": "none"},
}
NAMES = {
    "none": "none",
    "dr3_coeff": "DR3",
    "feature_l2_coeff": "L2 on features",
    "srank_coeff": "srank penalty",
    "critic_weight_decay": "weight decay",
    "critic_dropout": "dropout",
    "bottleneck_coeff": "bottleneck",
    "layer": "LayerNorm",
    "unit": "unit features",
    "spectral": "spectral norm",
}


def tries(critic_lr: float) -> list[dict[str, Any]]:
    """Return the comparators' settings, three each."""
    found: list[dict[str, Any]] = [
        {name: strength, "critic_bottleneck": name == "bottleneck_coeff"}
        for name, strengths in STRENGTHS.items()
        if name != "dr3_coeff"
        for strength in strengths
    ]
    found += [
        {"critic_norm": norm, "critic_lr": float(f"{critic_lr * size:.4g}")} for norm in NORMS for size in STEP_SIZES
    ]
    return [{**OFF, "critic_lr": critic_lr, **each} for each in found]


def plan(
    dataset: DatasetOption = [EMBEDDED],  # noqa: B006
    algorithm: Annotated[str, typer.Option(help="What is regularised.")] = "DR3-CQL",
    critic_lr: Annotated[float, typer.Option(help="The usual step size of the critic.")] = 3e-4,
) -> PlannedSweeps:
    from dr3_ray.algorithms.registry import kinds_of
    from dr3_ray.errors import UserError

    if not any(form.has_critic for form in kinds_of(algorithm).values()):
        raise UserError(f"{algorithm} has no critic to regularise: name another --algorithm")
    columns = {name: [each[name] for each in tries(critic_lr)] for name in (*OFF, "critic_lr")}
    return {
        kind: {
            "algorithms": [algorithm],
            "datasets": sources,
            "coefficients": [0, *STRENGTHS["dr3_coeff"]],
            "options": {name: value for name, value in FAST[kind].items() if name != "critic_lr"},
            "axes": {
                "comparators": {"zip": columns, "when": {"dr3_coeff": 0}},
                "critic_lr": {"grid": [critic_lr], "when": {"dr3_coeff": {"not": 0}}},
            },
        }
        for kind, sources in by_kind(dataset).items()
    }


def regularizer(config: dict[str, Any]) -> tuple[str, str]:
    """Return which one a configuration has, and how it was tried."""
    for name in STRENGTHS:
        if name == "bottleneck_coeff" and not config["critic_bottleneck"]:
            continue
        if config[name]:
            return name, f"{config[name]:g}"
    return config["critic_norm"], f"lr {config['critic_lr']:g}"


def answer(runs: list[Path]) -> Any:
    from rich.console import Group

    from dr3_ray.data.labels import dataset_label
    from dr3_ray.report.answers import answer_table, best_setting, by_seed, chosen_by_other_seeds, told
    from dr3_ray.report.reader import read_tables
    from dr3_ray.report.tables import outcomes
    from dr3_ray.runs.index import read_index
    from dr3_ray.stats import bootstrap_estimate, probability_of_improvement

    shown: list[Any] = []
    for path in runs:
        members = outcomes(read_tables(path))
        how = {record["member"]: regularizer(record["config"]) for record in read_index(path)}
        members["regularizer"] = [how[member][0] for member in members.index]
        members["setting"] = [how[member][1] for member in members.index]
        for dataset, here in members[members["status"] == "finished"].groupby("dataset"):
            chosen = {
                name: chosen_by_other_seeds(here[here["regularizer"] == name], "setting", "return_final")
                for name in NAMES
            }
            rows = []
            for name, title in NAMES.items():
                own, fair = here[here["regularizer"] == name], chosen[name]
                against = probability_of_improvement(
                    by_seed(fair, "return_final"), by_seed(chosen["none"], "return_final")
                )
                rows.append(
                    [
                        title,
                        str(best_setting(own, "setting", "return_final") or "\N{EN DASH}"),
                        told(bootstrap_estimate(fair["return_final"])),
                        "" if name == "none" else told(against, percent=True),
                        told(bootstrap_estimate(fair["dot_product_final"])),
                        told(bootstrap_estimate(fair["effective_rank_final"])),
                    ]
                )
            columns = ["regulariser", "best\ntry", "IQM return,\nlast", "P(better\nthan none)", "dot product"]
            title = f"{dataset_label(dataset)}, {here['last_step'].max():,} updates, {here['seed'].nunique()} seeds"
            shown.append(answer_table(title, [*columns, "effective\nrank"], rows))
            if here["return_final"].isna().all():
                shown.append("No returns were measured, by which a best one could be chosen: name an --environment.")
    said = "Interquartile means with 95% intervals of the runs that were chosen by the other seeds; P: pairs of seeds."
    return Group(*shown, said)


if __name__ == "__main__":
    run_script(plan, answer, __doc__ or "", {"seeds": ["5"], "steps": 10_000, "evaluations": 5})
