"""What the studies share: packs trained and played, a JSON line for every finished cell, and intervals."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import typer
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.data import Dataset
from dr3_ray.errors import UserError
from dr3_ray.evaluation.contract import Recorded
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.evaluation.rollout import Rollout
from dr3_ray.stats import Estimate
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from dr3_ray.training.process import prepare_training

FIRST_EPISODE = 10_000  # seeds of the evaluation's episodes count from here, for every member of every study
Scores = npt.NDArray[np.float64]


class Cells:
    """Results of a study, each under what it is the result of.

    The file has one JSON line a cell, written when the cell is finished: a study that was stopped goes on with what is
    missing, and a cell whose settings changed is another cell.
    """

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        try:
            self._results = {json.dumps(row["cell"], sort_keys=True): row["result"] for row in map(json.loads, lines)}
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is not of this study: give --out another directory") from None

    def result(self, cell: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the cell's result, computed where it is not in the file."""
        name = json.dumps(cell, sort_keys=True)
        if name not in self._results:
            result = compute()
            with self.path.open("a") as file:
                file.write(json.dumps({"cell": cell, "result": result}) + "\n")
            self._results[name] = json.loads(json.dumps(result))
        return self._results[name]


def population_of(algorithm: str, data: Dataset, members: Sequence[dict[str, Any]]) -> Population:
    """Return one pack with a member for each of the options."""
    spec = find(algorithm, data.spaces.action_kind)
    prepare_training()
    return Population.of(spec, [Member.from_dict(spec, member) for member in members], data, data.spaces)


def scores(act: Callable[[Tensor], Tensor], data: Dataset, environment: str, members: int, episodes: int) -> Scores:
    """Return the mean return of `episodes` episodes of each member, [members]; the same episodes in every call."""
    rollout = Rollout(lambda: make_environment(environment), Recorded.of(data), members, episodes)
    played = rollout.play(act, range(FIRST_EPISODE, FIRST_EPISODE + episodes))
    rollout.close()
    return played.returns.mean(1)


def pack_scores(population: Population, data: Dataset, environment: str, episodes: int) -> list[float | None]:
    """Return `scores` of a trained pack; None for a member that diverged, or without a score."""
    found = scores(population.act, data, environment, len(population.members), episodes)
    lost = population.diverged.numpy(force=True) | np.isnan(found)
    return [None if nothing else float(score) for score, nothing in zip(found, lost, strict=True)]


def with_interval(estimate: Estimate) -> str:
    """Return `12.3 [11.0, 13.1]`."""
    if not estimate.has_interval:
        return f"{estimate.value:.1f}"
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of the README's kind."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(study: Callable[..., None]) -> None:
    """Run the study as a command. A user's mistake is one line on stderr and exit code 2."""
    app = typer.Typer(add_completion=False)
    app.command()(study)
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
