"""Studies in a PostgreSQL server of this machine."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from dr3_ray.sweep.search.proposals import Proposals
from dr3_ray.sweep.search.scores import MemberScores
from dr3_ray.sweep.search.studies import open_studies
from dr3_ray.sweep.spec.problems import problems
from dr3_ray.sweep.spec.spec import SweepSpec

pytestmark = pytest.mark.slow


@pytest.fixture
def database() -> Iterator[str]:
    """URL of a database on a server that is stopped afterwards. It refuses to be root's."""
    initdb = shutil.which("initdb") or str(max(Path("/usr/lib/postgresql").glob("*/bin/initdb")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="postgresql"))  # not pytest's, which only its own user may enter
    if user:
        shutil.chown(folder, "postgres")

    def control(*arguments: str) -> None:
        command = [*user, str(Path(initdb).with_name("pg_ctl")), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    try:
        control("init", "-s", "-o", "--auth=trust --username=dr3 --no-sync")
        options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
        control("start", "-w", "-s", "-l", str(folder / "log"), "-o", options)
        yield f"postgresql+psycopg://dr3@127.0.0.1:{port}/postgres"
        control("stop", "-s", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_study_in_postgresql_goes_on_where_it_was_left(database, cartpole, tmp_path):
    spec = SweepSpec(
        datasets=[cartpole], seeds=1, steps=40, evaluations=2, environment="none", objective="q_mean", out=tmp_path,
        coefficients={"log_uniform": [1e-3, 1]}, search={"trials": 3, "study": database, "points": [{"dr3_coeff": 0}]},
    )  # fmt: skip
    (problem,) = problems(spec)

    def begin() -> tuple[Proposals, MemberScores]:
        (searcher,) = open_studies(spec, [problem], "0123456789")
        scores = MemberScores(spec.objective)
        proposals = Proposals(problem, searcher, 3, scores)
        for trial, options in searcher.resume():
            proposals.know(options, trial)
        return proposals, scores

    first, scores = begin()
    for number in range(2):
        members = first.next()
        for member in members:
            scores.row(member, 40, {"q_mean": float(number)})
    scores.close(members, "finished")
    first.tell(members)
    again, _ = begin()
    assert again.members == first.members
    assert again.left == 1
    study = optuna.load_study(study_name="DR3-CQL on cartpole (01234567)", storage=database)
    assert [(trial.state.name, trial.value) for trial in study.trials] == [("RUNNING", None), ("COMPLETE", 1.0)]
