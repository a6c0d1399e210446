"""A study that a sweep cannot go on with is told of before anything starts, as the sweep itself would find it."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.errors import UserError
from dr3_ray.runs.directory import STUDIES
from dr3_ray.runs.mirror import SNAPSHOT
from dr3_ray.sweep.search.scores import MemberScores
from dr3_ray.sweep.search.studies import check_studies, sqlite_url, taken_up
from dr3_ray.sweep.search.study_files import check_study
from dr3_ray.sweep.spec.problems import problems
from dr3_ray.sweep.spec.spec import SweepSpec

RUN = "0123456789"


@pytest.fixture(scope="module")
def begun(cartpole, tmp_path_factory):
    """Two sweeps with studies that have been asked, in a database and in a journal, each with its problems and file."""
    found = {}
    for form in ("sqlite:///{}", "{}"):
        folder = tmp_path_factory.mktemp("study")
        spec = SweepSpec(
            datasets=[cartpole], seeds=1, steps=40, evaluations=2, environment="none", out=folder / "run",
            coefficients={"log_uniform": [1e-3, 1]}, objective="q_mean",
            search={"method": "random", "trials": 6, "study": form.format(folder / "study")},
        )  # fmt: skip
        about, scores = problems(spec), MemberScores(spec.objective)
        (proposals,) = taken_up(spec, about, RUN, scores, print)
        members = [name for _ in range(3) for name in proposals.next()]
        scores.row(members[0], 40, {"q_mean": 1.0})
        scores.close(members[:1], "finished")
        proposals.tell(members[:1])
        found[form] = spec, about, folder / "study"
    return found


@pytest.fixture(params=["sqlite:///{}", "{}"])
def study(begun, request, tmp_path):
    """A copy of one of them."""
    spec, about, file = begun[request.param]
    copy = tmp_path / "study"
    shutil.copy(file, copy)
    search = spec.search.model_copy(update={"study": request.param.format(copy)})
    return spec.model_copy(update={"search": search}), about, copy


def outcome(use, *given):
    """What is wrong with it; None for nothing. Anything but our own error is a failure of the test."""
    try:
        use(*given)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


def checked(spec, about):
    return outcome(check_study, spec.search) or outcome(check_studies, spec, about, RUN)


def gone_on(spec, about):
    return outcome(taken_up, spec, about, RUN, MemberScores(spec.objective), print)


def test_one_that_is_whole_passes_and_stays(study):
    spec, about, file = study
    before = file.read_bytes()
    assert checked(spec, about) is None
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == ["study"]
    assert gone_on(spec, about) is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["flip", "cut", "zero", "swap"]), st.floats(0, 1), st.integers(1, 255))
def test_the_check_finds_what_the_sweep_would(study, how, where, amount):
    spec, about, file = study
    whole = file.read_bytes()
    try:
        damaged, at = bytearray(whole), int(where * (len(whole) - 1))
        if how == "flip":
            damaged[at] ^= amount
        elif how == "cut":
            del damaged[at:]
        elif how == "zero":
            damaged[at : at + 8 * amount] = bytes(len(damaged[at : at + 8 * amount]))
        else:
            damaged = damaged[at:] + damaged[:at]
        file.write_bytes(damaged)
        said = checked(spec, about)
        assert file.read_bytes() == bytes(damaged)
        if said is None:
            assert gone_on(spec, about) is None
    finally:
        for path in file.parent.iterdir():
            path.unlink()
        file.write_bytes(whole)


@pytest.mark.parametrize(
    "damage",
    [
        "drop table trial_params",
        "drop table trial_user_attributes",
        "drop table version_info",
        "update trials set state = 'ASLEEP'",
        "update trial_user_attributes set value_json = '{'",
        "update trial_user_attributes set value_json = '[1]'",
        "update trial_params set distribution_json = '{}'",
        "update study_user_attributes set value_json = '{}'",
        "update study_user_attributes set value_json = '7'",
        "delete from study_directions",
        "delete from trial_params where param_id = 2",
        "delete from trial_values",
        "update alembic_version set version_num = 'x'",
    ],
)
def test_rows_that_cannot_be_read_are_told_before_the_sweep_begins(begun, tmp_path, damage):
    spec, about, file = begun["sqlite:///{}"]
    shutil.copy(file, tmp_path / "study")
    with closing(sqlite3.connect(tmp_path / "study")) as database, database:
        database.execute(damage)
    search = spec.search.model_copy(update={"study": f"sqlite:///{tmp_path / 'study'}"})
    spec = spec.model_copy(update={"search": search})
    said = checked(spec, about)
    assert (said is None) == damage.startswith("drop table version"), said  # which is made anew
    if not damage.startswith("drop"):  # Optuna makes tables anew
        assert gone_on(spec, about) == said


def test_a_writer_that_was_killed_leaves_a_study_to_go_on_with(begun, tmp_path):
    spec, about, file = begun["sqlite:///{}"]
    shutil.copy(file, tmp_path / "study")
    before = (tmp_path / "study").read_bytes()
    writer = f"""
import os, sqlite3
database = sqlite3.connect({str(tmp_path / "study")!r}, isolation_level=None)
database.execute("pragma cache_size = 1")
database.execute("begin immediate")
for number in range(500):
    row = (number, "x" * 500)
    database.execute("insert into study_user_attributes (study_id, key, value_json) values (1, ?, ?)", row)
os.kill(os.getpid(), {signal.SIGKILL:d})
"""
    assert subprocess.run([sys.executable, "-c", writer]).returncode == -signal.SIGKILL
    assert (tmp_path / "study").read_bytes() != before and (tmp_path / "study-journal").exists()
    search = spec.search.model_copy(update={"study": f"sqlite:///{tmp_path / 'study'}"})
    assert checked(spec.model_copy(update={"search": search}), about) is None
    assert (tmp_path / "study").read_bytes() == before


def test_the_study_of_a_run_directory_is_checked_too(begun, tmp_path):
    spec, about, file = begun["sqlite:///{}"]
    search = spec.search.model_copy(update={"study": None})
    spec = spec.model_copy(update={"search": search, "out": tmp_path})
    check_studies(spec, about, RUN)  # none is there yet
    assert not os.listdir(tmp_path)
    content = file.read_bytes()
    (tmp_path / STUDIES).write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UserError, match=f"^the study in {sqlite_url(tmp_path / STUDIES)} is damaged .*: use another one$"
    ):
        check_studies(spec, about, RUN)
    (tmp_path / SNAPSHOT).write_bytes(content)
    with pytest.raises(UserError, match=f"put its copy {SNAPSHOT} in its place$"):
        check_studies(spec, about, RUN)
