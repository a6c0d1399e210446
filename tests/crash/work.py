"""What a sweep, a search and a population write, in their order and without training: `python -m … DATA OUT`.

Each thing that is acknowledged is marked in the journal: see tests/crash/shim.py.
"""

import json
import sys
from pathlib import Path

from dr3_ray.evolution.schedule import SCHEDULE
from dr3_ray.stores import append_line
from dr3_ray.sweep.search.studies import open_studies
from dr3_ray.sweep.spec.problems import problems
from dr3_ray.sweep.spec.search import Search
from dr3_ray.sweep.spec.spec import SweepSpec
from tests.crash.shim import mark
from tests.sweep.untrained import asked, trained

TRIALS = 3


def searched(data: str, out: Path) -> SweepSpec:
    """A search whose study lies in the run directory."""
    search = Search(method="random", trials=TRIALS)
    return asked(data, out, search=search, objective=["td_error"]).model_copy(update={"algorithms": ("DR3-CQL",)})


def work(data: str, out: Path) -> None:
    """Everything once."""
    trained(asked(data, out), acknowledge=mark)
    (study,) = open_studies(searched(data, out), problems(searched(data, out)), "0123456789")
    for number in range(TRIALS):
        study.suggest(str(number))
        study.on_trial_complete(str(number), {"td_error": float(number)})
        mark(f"told {number}")
    for number in range(TRIALS):
        entry = {"member": "m", "step": number, "measured": {}, "copied_from": "", "numbers": {}}
        append_line(out / SCHEDULE, json.dumps(entry))
        mark(f"scheduled {number}")


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
