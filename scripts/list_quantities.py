"""List the catalogue of measured quantities in docs/development/quantities.md; `--check` only compares."""

import sys
from pathlib import Path

from pages import write_or_check

from dr3_ray.quantities import QUANTITIES, Quantity

PAGE = Path(__file__).parents[1] / "docs" / "development" / "quantities.md"
HEAD = """# What is measured

The columns of a sweep's histories, as `dr3_ray/quantities.py` declares them; `scripts/list_quantities.py` makes this
page. What a run measures itself is there without an environment, rollouts with one. The probe batch is 2,048 rows, the
same for every run on the same data, and measured where there is a critic. What is measured on the last minibatch are
the losses and metrics of the objective, by the algorithms and regularisers that have them. A diagnosis is no column: it
is what `dr3-ray diagnose` measures of a trained member, beside what the probe has, and a selection what
`dr3-ray select` measures of all of them.

"""


def row(quantity: Quantity) -> str:
    """Return one line of the table."""
    by = ", ".join(quantity.by) or (
        "all with a critic" if quantity.source in ("probe", "minibatch", "diagnosis") else "all"
    )
    label = quantity.label.replace("|", "\\|")
    cells = (f"`{quantity.name}`", label, quantity.unit, quantity.better or "", quantity.source, by)
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """Return the page."""
    head = ["| column | meaning | unit | better | measured on | by |", "|---|---|---|---|---|---|"]
    return HEAD + "\n".join([*head, *map(row, QUANTITIES), ""])


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page(), "lists other quantities"))
