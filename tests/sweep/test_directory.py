"""Run directories: ours are taken up, everything else is left alone."""

import json
import os

import pytest

from dr3_ray.errors import UserError
from dr3_ray.runs.directory import read_run
from dr3_ray.runs.index import Index, read_index
from dr3_ray.sweep.directory import axes, open_run
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec


@pytest.fixture
def tiny(cartpole, tmp_path):
    return SweepSpec(datasets=[cartpole], coefficients=[0, 0.1], seeds=1, out=tmp_path / "deep" / "run")


def snapshot(path):
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_new_run_says_what_it_is(tiny):
    planned = members(tiny)
    with open_run(tiny, planned, ["dr3-ray", "sweep"]) as index:
        assert [index.status(member) for member in planned] == ["pending", "pending"]
    document = read_run(tiny.out)
    assert document["command"] == ["dr3-ray", "sweep"]
    assert document["axes"] == ["dr3_coeff"]
    assert document["spec"]["coefficients"] == [0.0, 0.1]
    assert {"dr3-ray", "ray", "torch", "python"} <= document["versions"].keys()
    assert SweepSpec(**document["spec"]) == tiny
    assert sorted(os.listdir(tiny.out)) == ["index.jsonl", "run.json"]
    assert os.listdir(tiny.out.parent) == ["run"]


def test_a_run_is_taken_up_and_may_grow(tiny, cartpole):
    planned = members(tiny)
    with open_run(tiny, planned, ["first"]) as index:
        index.write(planned, "running")  # and then it is killed
    grown = SweepSpec(datasets=[cartpole], coefficients=[0, 0.1], seeds=2, axes={"tau": [0.5, 1]}, out=tiny.out)
    with open_run(grown, members(grown), ["second"]) as index:
        assert set(record["status"] for record in index.records.values()) == {"pending"}
    document = read_run(tiny.out)
    assert document["axes"] == ["dr3_coeff", "tau"]
    assert [entry["command"] for entry in document["history"]] == [["first"], ["second"]]
    assert len(read_index(tiny.out)) == 8


@pytest.mark.parametrize("content", ["stranger", "run.json"])
def test_what_is_not_ours_is_left_alone(tiny, content):
    tiny.out.mkdir(parents=True)
    (tiny.out / content).write_text(json.dumps({"format": "theirs"}))
    before = snapshot(tiny.out)
    with pytest.raises(UserError, match="choose another"), open_run(tiny, members(tiny), ["x"]):
        pass
    assert snapshot(tiny.out) == before


def test_a_file_in_the_way(tiny):
    tiny.out.parent.mkdir(parents=True)
    tiny.out.write_text("mine")
    with pytest.raises(UserError, match="not a run directory"), open_run(tiny, members(tiny), ["x"]):
        pass
    assert tiny.out.read_text() == "mine"


def test_a_place_where_nothing_can_be_written(tiny):
    nowhere = tiny.model_copy(update={"out": "/proc/nowhere/run"})
    with pytest.raises(UserError, match="cannot be used"), open_run(SweepSpec(**dict(nowhere)), members(tiny), ["x"]):
        pass


def test_two_sweeps_cannot_share_a_run(tiny):
    with open_run(tiny, members(tiny), ["first"]):
        before = snapshot(tiny.out)
        with pytest.raises(UserError, match="a sweep is running in"), open_run(tiny, members(tiny), ["second"]):
            pass
        assert snapshot(tiny.out) == before
    with Index(tiny.out):
        pass


def test_axes_are_what_differs_apart_from_seeds():
    base = {"algorithm": "DR3-CQL", "dataset": "a", "seed": 0, "dr3_coeff": 0.0, "cql_alpha": 1.0}
    other = {"algorithm": "BC", "dataset": "a", "seed": 0, "dr3_coeff": 0.0}
    assert axes([base]) == ["dr3_coeff"]
    assert axes([base, base | {"seed": 1}]) == ["dr3_coeff"]
    assert axes([base, other]) == ["algorithm", "dr3_coeff"]
    assert axes([base, base | {"cql_alpha": 2.0}, base | {"dataset": "b"}]) == ["dataset", "dr3_coeff", "cql_alpha"]
