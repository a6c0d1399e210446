"""Damaged specifications and files of run directories: read, or one line that says what is wrong."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.cli.spec_options import spec_from
from dr3_ray.errors import UserError
from dr3_ray.report.reader import read_tables
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.directory import RUN
from dr3_ray.runs.histories import HISTORIES, Histories
from dr3_ray.runs.index import INDEX, Index, read_index
from dr3_ray.runs.storage import claim
from dr3_ray.sweep.directory import open_run, spec_of
from dr3_ray.sweep.spec.names import option_types
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from tests.fuzz.child import survive
from tests.fuzz.damage import as_text, changed, damaged

FUZZ = settings(
    max_examples=int(os.environ.get("DR3_RAY_FUZZ", "20")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
SPECIFICATION = {
    "algorithms": ["DR3-DQN", "DR3-CQL"],
    "datasets": ["embedded:breakout-replay"],
    "coefficients": [0, 0.1],
    "axes": {"learning_rate": [0.001, 0.0003], "hidden_sizes": [[32, 32]]},
    "options": {"batch_size": 16},
    "exclude": [{"dr3_coeff": [0], "learning_rate": [0.001]}],
    "seeds": 2,
    "steps": 100,
    "environment": "none",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with members and histories; nothing was trained."""
    out = tmp_path_factory.mktemp("runs") / "run"
    spec = SweepSpec(datasets=["embedded:breakout-replay"], coefficients=[0, 0.1], environment="none", out=out)
    planned = members(spec)
    with open_run(spec, planned, ["x"]) as index:
        index.write(planned, "running", pack="p")
        histories = Histories(out, planned, ("algorithm", "dataset", "seed", "dr3_coeff"), option_types())
        for member in planned:
            for step in (10, 20):
                histories.add(member, step, {"time_s": 1.0, "q_mean": 0.5, "loss": float(step)})
        histories.flush()
        index.write(planned, "finished")
    return out


def read_everything(run):
    """What a report and a sweep that is resumed read."""
    read_tables(run)
    spec_of(run)
    read_index(run)
    with Index(run) as index:
        configs = {member: record["config"] for member, record in index.records.items()}
        with suppress(pa.ArrowException, OSError):  # at which `restore_rows` puts the file aside
            Histories(run, configs, ("algorithm", "dataset", "seed", "dr3_coeff"), option_types()).load(
                again=list(configs)[:1]
            )


def refuses(read, path, new):
    """What went wrong with other contents of a file, which gets its own back."""
    content = path.read_bytes()
    try:
        path.write_bytes(new)
        return survive(read)
    finally:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """All that a specification needs is imported here, so that the children's time is for their cases."""
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    path.write_text(yaml.safe_dump(SPECIFICATION))
    with suppress(UserError):
        members(spec_from(path, {"out": path.parent / "out"}))


@FUZZ
@given(change=st.data())
def test_specifications(imported, tmp_path, change):
    path = tmp_path / "spec.yaml"
    text = yaml.safe_dump(SPECIFICATION).encode()
    path.write_bytes(change.draw(damaged(text) | changed(SPECIFICATION).map(as_text)))
    assert survive(lambda: members(spec_from(path, {"out": tmp_path / "out"}))) is None


@FUZZ
@given(change=st.data())
def test_run_json(run, change):
    content = (run / RUN).read_bytes()
    new = change.draw(damaged(content) | changed(json.loads(content)).map(as_text))
    assert refuses(lambda: read_everything(run), run / RUN, new) is None


@FUZZ
@given(change=st.data())
def test_indices(run, change):
    content = (run / INDEX).read_bytes()
    lines = [json.loads(line) for line in content.splitlines()]
    text = (
        changed(lines)
        .filter(lambda found: isinstance(found, list))
        .map(lambda found: b"".join(as_text(line) + b"\n" for line in found))
    )
    assert refuses(lambda: read_everything(run), run / INDEX, change.draw(damaged(content) | text)) is None


@FUZZ
@given(change=st.data())
def test_histories(run, change):
    new = change.draw(damaged((run / HISTORIES).read_bytes()))
    assert refuses(lambda: read_everything(run), run / HISTORIES, new) is None


@FUZZ
@given(name=st.sampled_from(["manifest.json", "state.json"]), change=st.data())
def test_checkpoints(tmp_path, name, change):
    store = tmp_path / "store"
    shutil.rmtree(store, ignore_errors=True)
    claim(str(store), "id", "here")
    checkpoints = Checkpoints(str(store), "p", "id")
    checkpoints.save(20, lambda folder: (Path(folder) / "state.json").write_text('{"weights": [1, 2, 3]}') and None)
    path = store / "checkpoints/p/0000000020" / name
    content = path.read_bytes()
    path.write_bytes(change.draw(damaged(content) | changed(json.loads(content)).map(as_text)))
    read = []
    assert survive(lambda: checkpoints.load(lambda folder: read.append(folder))) is None
