"""A power cut at any moment leaves a run directory that opens, with all that was acknowledged by then."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.errors import UserError
from dr3_ray.evolution.schedule import SCHEDULE, entries
from dr3_ray.report.reader import read_tables
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.directory import STUDIES, read_run
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.index import FINAL
from dr3_ray.runs.results import RESULTS
from dr3_ray.runs.status import read_status
from dr3_ray.sweep.directory import open_run
from dr3_ray.sweep.search.studies import open_studies
from dr3_ray.sweep.spec.problems import members, problems
from tests.crash.replay import LOSSES, Disk, by_chance, names_kept, nothing_kept
from tests.crash.shim import Operation, read_journal, watched
from tests.crash.work import searched
from tests.sweep.conftest import collect
from tests.sweep.untrained import STEPS, asked


@dataclass(frozen=True, repr=False)
class Recorded:
    """The folder above the run directory as it was, and what was done to it."""

    data: str
    before: Disk
    operations: list[Operation]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Recorded:
    place = tmp_path_factory.mktemp("power")
    data, folder = collect(place / "data", "CartPole-v1"), place / "folder"
    folder.mkdir()
    before = Disk(folder)
    command = [sys.executable, "-m", "tests.crash.work", data, str(folder / "run")]
    subprocess.run(command, env=os.environ | watched(folder, place / "journal"), check=True)
    return Recorded(data, before, read_journal(place / "journal"))


def check(data: str, run: Path, marks: list[str]) -> None:
    """Everything opens, and holds what was acknowledged."""
    known = [each.split() for each in marks]
    try:
        read_status(run)
    except UserError as error:
        assert not marks
        assert "is not a run directory" in str(error)
    spec, said = asked(data, run), []
    with open_run(spec, members(spec), ["sweep"], say=said.append) as index:
        records = dict(index.records)
    assert said == []  # nothing is damaged, and nothing was given up
    for status, *what in known:
        if status in FINAL:
            assert records[what[0]]["status"] == status
    if any(record["status"] in FINAL for record in records.values()):
        table = read_histories(run, ("member", "step")).to_pylist()
        reached = {row["member"]: row["step"] for row in table}
        assert all(reached[m] == STEPS for m, record in records.items() if record["status"] == "finished")
    assert read_status(run).counts["pending"] == sum(record["status"] == "pending" for record in records.values())
    assert len(read_tables(run).members) == len(records)
    saved = {pack: int(updates) for name, *what in known if name == "checkpoint" for pack, updates in [what]}
    for pack, updates in saved.items():
        assert last_checkpoint(Checkpoints(spec.checkpoints, pack, read_run(run)["id"])) >= updates
    told = sum(each[0] == "told" for each in known)
    if (run / STUDIES).exists() or told:
        (study,) = open_studies(searched(data, run), problems(searched(data, run)), "0123456789")
        assert len(study.resume()) >= told
    scheduled = [int(what[0]) for name, *what in known if name == "scheduled"]
    if scheduled:
        assert [entry["step"] for entry in entries(run / SCHEDULE)][: len(scheduled)] == scheduled


def last_checkpoint(checkpoints: Checkpoints) -> int:
    """The updates after which the last one was taken that can be loaded."""
    found: list[int] = []

    def read(folder: str) -> None:
        assert json.loads((Path(folder) / RESULTS).read_text())
        found.append(int(Path(folder).name))

    checkpoints.load(read)
    return found[0]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), loss=st.sampled_from(LOSSES) | st.integers(0, 10_000).map(by_chance))
def test_whatever_was_not_synchronised_is_lost_and_nothing_else(recorded, tmp_path_factory, at, loss):
    disk, place = copy.deepcopy(recorded.before), tmp_path_factory.mktemp("cut") / "folder"
    for operation in recorded.operations[: round(at * len(recorded.operations))]:
        disk.apply(operation)
    disk.crash(loss, place)
    check(recorded.data, place / "run", disk.marks)


def test_without_a_single_synchronisation_it_would_be_seen(recorded, tmp_path):
    disk = copy.deepcopy(recorded.before)
    for operation in recorded.operations:
        if operation.kind != "sync":
            disk.apply(operation)
    for loss in (nothing_kept, names_kept):
        disk.crash(loss, tmp_path / "folder")
        with pytest.raises((AssertionError, UserError)):
            check(recorded.data, tmp_path / "folder" / "run", disk.marks)
