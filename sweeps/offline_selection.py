"""Which configuration would you choose without playing, and how good would that choice be?

Ranks the configurations of a sweep by what the data alone can say of their trained policies: the temporal-difference
error, the value that their own critics promise at the start, the dot product and the effective rank of the features,
and fitted Q evaluation, for which a fresh critic of each policy is trained. Where the sweep has rollouts, it then says
how each criterion would have chosen: Spearman's correlation with the returns, and the regret of its first choice.

    python sweeps/offline_selection.py runs/breakout
    python sweeps/offline_selection.py --dataset embedded:breakout-replay --steps 10000 --out runs/selection
    ray submit cluster.yaml sweeps/offline_selection.py -- /shared/runs/pong --fqe-steps 50000
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from dr3_ray.cli.paths import PATH
from dr3_ray.cli.script import EMBEDDED, FAST, DatasetOption, PlannedSweeps, by_kind, run_script

CRITERIA = {  # how their columns are headed
    "td_error": "TD error",
    "start_value": "own Q\nat start",
    "dot_product": "dot\nproduct",
    "effective_rank": "effective\nrank",
    "fqe": "fitted Q\nevaluation",
}


def plan(
    source: Annotated[
        Path | None, typer.Argument(metavar="[RUN|SPEC]", help="A run directory, or a YAML file.", **PATH)
    ] = None,
    dataset: DatasetOption = [EMBEDDED],  # noqa: B006
    fqe_steps: Annotated[
        int, typer.Option(min=0, help="Updates of each fitted critic; 0: no fitted critics.")
    ] = 10_000,
) -> PlannedSweeps:
    if source is None:
        return {
            kind: {"datasets": sources, "options": FAST[kind], "steps": 10_000, "evaluations": 5}
            for kind, sources in by_kind(dataset).items()
        }
    if source.is_dir():
        return {"": source}
    from dr3_ray.cli.specfile import read_spec

    return {"": read_spec(source)}


def answer(runs: list[Path], fqe_steps: int, trust: bool = False) -> Any:
    from rich.console import Group

    shown: list[Any] = []
    for run in runs:
        shown += _of_run(run, fqe_steps, trust)
    said = (
        "Means over the seeds of a configuration, and its place by each criterion; intervals: 95% bootstrap over seeds."
    )
    return Group(*shown, said)


def less(criterion: str) -> bool:
    """Return whether less of a criterion is better."""
    from dr3_ray.quantities import quantity

    return quantity(criterion).better == "less"


def _of_run(run: Path, fqe_steps: int, trust: bool) -> list[Any]:
    import numpy as np

    from dr3_ray.data.labels import dataset_label
    from dr3_ray.report.answers import answer_table, told
    from dr3_ray.report.reader import read_tables
    from dr3_ray.report.tables import number
    from dr3_ray.runs.histories import read_histories
    from dr3_ray.stats import iqm, selection_quality
    from dr3_ray.stores import inside, replace_file

    loaded = read_tables(run)
    columns = ("member", "step", "td_error", "dot_product", "effective_rank", "episode_return_mean")
    measured = read_histories(run, columns).to_pandas().sort_values("step").groupby("member").last()
    members = loaded.members[loaded.members["status"] == "finished"].join(offline_values(run, fqe_steps, trust))
    for column in columns[2:]:
        members[column] = measured[column].reindex(members.index) if column in measured else np.nan
    table = members.drop(columns=["error", "fingerprint"]).to_csv()
    replace_file(inside(run, "selection.csv"), table.encode())
    shown: list[Any] = []
    settings = [*loaded.facets[2:], "dr3_coeff"]
    for (algorithm, dataset), here in members.groupby(["algorithm", "dataset"]):
        known = {key: each for key, each in CRITERIA.items() if here[key].notna().any()}
        groups = list(here.groupby(settings, sort=False))
        names = [", ".join(f"{name} {value}" for name, value in zip(settings, key, strict=True)) for key, _ in groups]
        names = [name.replace("dr3_coeff", "c0") for name in names]
        scores = {
            key: np.array([iqm(group[key].dropna()) if group[key].notna().any() else np.nan for _, group in groups])
            for key in (*known, "episode_return_mean")
        }
        places = {
            key: np.argsort(np.argsort(np.nan_to_num(scores[key] if less(key) else -scores[key], nan=np.inf))) + 1
            for key in known
        }
        rows = [
            [
                name,
                *(f"{number(scores[key][at])} ({places[key][at]})" for key in known),
                number(scores["episode_return_mean"][at]),
            ]
            for at, name in enumerate(names)
        ]
        title = f"{algorithm} on {dataset_label(dataset)}"
        shown.append(answer_table(title, ["configuration", *known.values(), "return"], rows))
        returns = [group["episode_return_mean"].tolist() for _, group in groups]
        if here["episode_return_mean"].isna().all():
            shown.append("No returns were measured: how well these criteria choose is not known.")
            continue
        rows = []
        for key, criterion in known.items():
            signed = [(-group[key] if less(key) else group[key]).tolist() for _, group in groups]
            found = selection_quality(signed, returns)
            picked = "\N{EN DASH}" if found.picks is None else names[found.picks]
            rows.append([criterion.replace("\n", " "), told(found.correlation), told(found.regret), picked])
        shown.append(answer_table("How each would choose", ["criterion", "Spearman's ρ", "regret@1", "picks"], rows))
    return shown


def offline_values(run: Path, fqe_steps: int, trust: bool = False) -> Any:
    """Return `start_value` and `fqe` of each member, by its hash; without a checkpoint it has neither."""
    import pandas as pd

    from dr3_ray.data import load_dataset
    from dr3_ray.errors import UserError
    from dr3_ray.evaluation.fqe import FQEOptions, Policies, fitted_q_evaluation, own_start_value
    from dr3_ray.runs.index import read_index
    from dr3_ray.sweep.trained import trained_networks
    from dr3_ray.training.process import prepare_training

    prepare_training()
    configs = {record["member"]: record["config"] for record in read_index(run)}
    found: dict[str, dict[str, float]] = {}
    for trained, members in trained_networks(run, trust):
        first = next((configs[member] for member in members if member is not None), None)
        if first is None or trained.spec.act is None:
            continue
        data = load_dataset(first["dataset"])
        if data.fingerprint != first["data_fingerprint"]:
            raise UserError(f"{first['dataset']} holds other data than this sweep was trained on: put them back")
        policies = Policies(trained.spec, trained.networks)
        values = {"start_value": own_start_value(policies, data)}
        if fqe_steps:
            same = {name: first[name] for name in ("hidden_sizes", "encoder", "normalize_observations")}
            options = FQEOptions.from_dict(same | {"gamma": first.get("gamma", data.gamma)})
            values["fqe"] = fitted_q_evaluation(policies, data, options, fqe_steps)
        for place, member in enumerate(members):
            if member is not None:
                found[member] = {name: float(each[place]) for name, each in values.items()}
    return pd.DataFrame.from_dict(found, orient="index", columns=["start_value", "fqe"], dtype=float)


if __name__ == "__main__":
    run_script(plan, answer, __doc__ or "", dict.fromkeys(("steps", "evaluations", "seeds")))
