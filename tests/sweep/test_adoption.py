"""Data that change under a run: another space or environment is refused, and an old identity of the same is taken."""

import json
import os
import pickle
import shutil
import time
from pathlib import Path

import pytest

from dr3_ray.data import SpaceSpec, load_dataset
from dr3_ray.data.verification import seal
from dr3_ray.errors import UserError
from dr3_ray.runs.directory import RUN, read_run
from dr3_ray.runs.identity import member_id
from dr3_ray.runs.index import INDEX, read_index
from dr3_ray.sweep.adoption import adopted
from dr3_ray.sweep.directory import open_run
from dr3_ray.sweep.plan import planned_members
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec


@pytest.fixture
def data(cartpole, tmp_path) -> Path:
    return Path(shutil.copytree(cartpole, tmp_path / "data"))


@pytest.fixture
def asked(data, tmp_path) -> SweepSpec:
    return SweepSpec(datasets=[str(data)], coefficients=[0, 0.1], seeds=2, out=tmp_path / "run", environment="none")


def begin(asked: SweepSpec) -> None:
    planned = members(asked)
    with open_run(asked, planned, ["x"]) as index:
        index.write(planned, "running", pack="p")


def under_the_old_identity(asked: SweepSpec, rule: str = "of_format_1") -> list[str]:
    """A run as an older version began it; its members."""
    begin(asked)
    lines = []
    for record in read_index(asked.out):
        old = getattr(load_dataset(record["config"]["dataset"]).manifest.identities, rule)
        config = record["config"] | {"data_fingerprint": old}
        lines.append(json.dumps(record | {"config": config, "member": member_id(config)}))
    (asked.out / INDEX).write_text("".join(f"{line}\n" for line in lines))
    return [json.loads(line)["member"] for line in lines]


def correct(data: Path, **changes: object) -> None:
    manifest = json.loads((data / "manifest.json").read_text()) | changes
    (data / "manifest.json").write_text(json.dumps(manifest))
    seal(data)


def test_a_space_that_was_corrected_is_other_data(asked, data):
    begin(asked)
    correct(data, action_space=json.loads(SpaceSpec.discrete(7).model_dump_json()))
    said = r"was begun on other data \(.* had fingerprint .*, has .*\): use another --out"
    with pytest.raises(UserError, match=said), open_run(asked, planned_members(asked, print), ["x"]):
        pass


def test_another_environment_is_refused(asked, data):
    asked = asked.model_copy(update={"environment": "auto"})
    begin(asked)
    correct(data, environment="gymnasium:CartPole-v0")
    fingerprints = {config["data_fingerprint"] for config in members(asked).values()}
    assert fingerprints == {record["config"]["data_fingerprint"] for record in read_index(asked.out)}
    said = r"with rollouts of .*/data in gymnasium:CartPole-v1, not in gymnasium:CartPole-v0: use another --out"
    with pytest.raises(UserError, match=said), open_run(asked, members(asked), ["x"]):
        pass
    without = asked.model_copy(update={"environment": "none"})  # no rollouts at all is no other problem
    with open_run(without, members(without), ["x"]):
        pass


def test_a_run_under_the_old_identity_goes_on_with_the_same_data(asked, data):
    old = under_the_old_identity(asked)
    document = read_run(asked.out)
    (asked.out / RUN).write_text(json.dumps(document | {"created": "2100-01-01T00:00:00+00:00"}))
    planned = planned_members(asked, print)
    assert list(planned) == old
    assert {config["data_fingerprint"] for config in planned.values()} == {load_dataset(data).fingerprint}
    with open_run(asked, planned, ["x"]) as index:
        assert list(index.records) == old
    more = asked.model_copy(update={"coefficients": [0, 0.1, 1]})
    with open_run(more, planned_members(more, print), ["x"]) as index:
        assert len(index.records) == len(old) + 2 and set(old) < set(index.records)


def test_a_run_under_the_old_identity_says_what_to_do_where_nothing_proves_it(asked, data):
    old = under_the_old_identity(asked)
    time.sleep(1.1)  # the run's time is in whole seconds
    correct(data, gamma=json.loads((data / "manifest.json").read_text())["gamma"])
    with pytest.raises(UserError, match=r"and the manifest of .*/data was written since then: use another --out, or"):
        planned_members(asked, print)
    assert list(planned_members(asked, print, force=True)) == old
    fresh = members(asked)
    assert adopted(fresh, [], None) == fresh


def test_a_run_that_began_when_fingerprints_were_of_files_goes_on(asked, data):
    """Whoever wrote the manifest since: files that are the same hold the same rows, spaces and gamma."""
    old = under_the_old_identity(asked, "of_files")
    seal(data)
    planned = planned_members(asked, print)
    assert list(planned) == old != list(members(asked))
    with open_run(asked, planned, ["x"]) as index:
        assert list(index.records) == old


def test_what_is_in_the_package_is_the_same(tmp_path):
    asked = SweepSpec(datasets=["embedded:breakout-replay"], seeds=1, out=tmp_path / "run", environment="none")
    old = under_the_old_identity(asked)
    assert list(planned_members(asked, print)) == old


def test_a_source_with_a_fingerprint_is_that_data_set_in_every_form(data, tmp_path):
    fingerprint = load_dataset(data).fingerprint
    odd = Path(shutil.copytree(data, tmp_path / f"odd#{'0' * 64}"))
    assert load_dataset(odd).path == odd
    embedded = load_dataset("embedded:pendulum-replay")
    for source in (f"{data}#{fingerprint}", f"{odd}#{fingerprint}", f"embedded:pendulum-replay#{embedded.fingerprint}"):
        assert pickle.loads(pickle.dumps(load_dataset(source))).fingerprint == source.rpartition("#")[2]
    with pytest.raises(UserError, match="holds other data"):
        load_dataset(f"{os.fspath(data)}#{'0' * 64}")
