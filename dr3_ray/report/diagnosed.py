"""Diagnoses that lie beside a run: the spectra of its critics, and how far Q is above the returns of the data."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from dr3_ray.diagnostics.diagnosis import TRAIN
from dr3_ray.errors import UserError, first_line
from dr3_ray.quantities import quantity
from dr3_ray.report.tables import number
from dr3_ray.stores import content_of, inside
from dr3_ray.trust.text import printable_json

FOLDER = "diagnoses"  # of a run: what `dr3-ray diagnose RUN --json` prints, a file a member
SHOWN = (
    "q_data",
    "overestimation",
    "dot_product",
    "effective_rank",
    "stable_rank",
    "dead_units",
    "dormant_units",
    "seem_eigenvalue",
    "r_td",
)


class Diagnosed(NamedTuple):
    """A member that was diagnosed, on the rows that it was trained on."""

    member: str
    coefficient: float
    seed: int
    wrong: str
    """The names of what is wrong."""
    cells: list[str]
    """Under the titles of `titles`."""
    spectrum: list[float]
    """Singular values of the features over √rows, the largest first."""


def titles() -> list[str]:
    """Return what the cells of a diagnosis are."""
    return [quantity(name).label for name in SHOWN]


def read_diagnoses(run: Path, members: Collection[str]) -> list[Diagnosed]:
    """Return the diagnoses of members that lie in `RUN/diagnoses`, by coefficient and seed.

    Raises:
        UserError: a file there is no diagnosis.
    """
    diagnoses = []
    for path in sorted(inside(run, FOLDER).glob("*.json")):
        try:
            told = printable_json(content_of(path))
            about, probe = told["about"], told["probes"].get(TRAIN, {"numbers": {}, "spectrum": []})
            wrong = ", ".join(str(finding["name"]) for finding in told["verdict"] if finding["wrong"])
            if about["member"] in members:
                numbers, spectrum = probe["numbers"], [float(value) for value in probe["spectrum"]]
                if not all(map(math.isfinite, spectrum)):
                    raise ValueError("a singular value is not finite")
                known = (str(about["member"]), float(about["dr3_coeff"]), int(about["seed"]))
                diagnoses.append(Diagnosed(*known, wrong, _cells(numbers), spectrum))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise UserError(
                f"{path} is not what `dr3-ray diagnose RUN --json` prints ({first_line(error)}): remove it"
            ) from error
    return sorted(diagnoses, key=lambda diagnosis: (diagnosis.coefficient, diagnosis.seed))


def _cells(numbers: dict[str, float | None]) -> list[str]:
    values = (numbers.get(name) for name in SHOWN)
    return [number(math.nan if value is None else float(value)) for value in values]
