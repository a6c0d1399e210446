"""A sweep whose environment does not answer says so, waits, and goes on when it does."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from dr3_ray.rllib.env_runner import PopulationEnvRunner
from dr3_ray.runs.index import INDEX, read_index
from dr3_ray.runs.status import read_status, sentences
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.trials.ray_trials import RayTrials
from dr3_ray.sweep.trials.trainable import PackTrainable
from tests.sweep.odd_worlds import Deaf
from tests.sweep.test_contract import ODD, spec_of, write


class Impatient(PackTrainable):
    """A trial whose environments answer once there is a file in the run."""

    def setup(self, config: dict[str, Any]) -> None:
        """Have silence told of at once."""
        Deaf.made, Deaf.until = Path(config["storage"]) / "made", Path(config["storage"]) / "answer"
        PopulationEnvRunner.silent = 0.2
        super().setup(config)


class Ear(io.StringIO):
    """What people read, who let the environment answer once they know."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run, self.seen = run, list[str]()

    def write(self, text: str) -> int:
        """Take a line."""
        if "has not answered `make`" in " ".join(text.split()):
            (self.run / "made").touch()
        elif "has not answered" in text and not self.seen:
            self.seen = sentences(read_status(self.run), self.run, 0.0)
            (self.run / "answer").touch()
        return super().write(text)


@pytest.mark.slow
def test_the_terminal_and_status_tell_of_it(cluster, tmp_path, monkeypatch):
    spec = spec_of(write(tmp_path / "data", None), environment=f"{ODD}Deaf-v0", out=tmp_path / "run", pack=2)
    monkeypatch.setattr(sys, "stderr", ear := Ear(spec.out))
    assert train_sweep(spec, trials=RayTrials(trainable=Impatient, silent=0.2)).statuses == {"finished": 2}
    (line,) = [each for each in ear.seen if "answered" in each]
    records = read_index(spec.out)
    call = "environment Deaf-v0 has not answered `step` for 0 s (episode 0)"
    told = f"member {records[0]['member']}: {call}: it is waited for"
    assert line == f"1 running: {told}"
    made = f"environment '{ODD}Deaf-v0' has not answered `make` for 0 s: it is waited for"
    assert f"member {records[0]['member']}: {made}" in " ".join(ear.getvalue().split())
    assert f"{told}; stop this, correct the environment or give it a limit of its own, and resume" in " ".join(
        ear.getvalue().split()
    )
    assert not any(record["error"] for record in records) and "has not answered" in (spec.out / INDEX).read_text()
