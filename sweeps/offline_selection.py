"""Which configuration would you choose without playing, and how good would that choice be?

Trains a sweep, or takes one that is there, and does what `dr3-ray select` does: ranks configurations by fitted Q
evaluation and other criteria that need no environment, and says what each choice would have been worth by returns.

    python sweeps/offline_selection.py runs/breakout
    python sweeps/offline_selection.py --dataset embedded:breakout-replay --steps 10000 --out runs/selection
    ray submit cluster.yaml sweeps/offline_selection.py -- /shared/runs/pong --fqe-steps 50000
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from dr3_ray.cli.paths import PATH
from dr3_ray.cli.script import EMBEDDED, FAST, DatasetOption, PlannedSweeps, by_kind, run_script


def plan(
    source: Annotated[
        Path | None, typer.Argument(metavar="[RUN|SPEC]", help="A run directory, or a YAML file.", **PATH)
    ] = None,
    dataset: DatasetOption = [EMBEDDED],  # noqa: B006
    fqe_steps: Annotated[
        int, typer.Option(min=0, help="Updates of each fitted critic; 0: no fitted critics.")
    ] = 10_000,
    fqe_seeds: Annotated[int, typer.Option(min=1, max=64, help="Fitted critics of each policy.")] = 2,
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


def answer(runs: list[Path], fqe_steps: int, fqe_seeds: int, trust: bool = False) -> Any:
    from rich.console import Group

    from dr3_ray.report.selection import select
    from dr3_ray.report.selection_text import rendered

    found = [select(run, fqe_steps=fqe_steps, fqe_seeds=fqe_seeds, trust=trust) for run in runs]
    return Group(*map(rendered, found))


if __name__ == "__main__":
    run_script(plan, answer, __doc__ or "", dict.fromkeys(("steps", "evaluations", "seeds")))
