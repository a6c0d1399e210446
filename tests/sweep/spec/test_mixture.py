"""Mixtures in a specification and on the command line: fields become the one name, which means the same anywhere."""

import json
from pathlib import Path

import pytest

from dr3_ray.cli.spec_options import spec_above
from dr3_ray.cli.specfile import read_spec
from dr3_ray.data import load_dataset
from dr3_ray.errors import UserError
from dr3_ray.rllib import config_for
from dr3_ray.rllib.trials import source_of
from dr3_ray.runs.identity import LATER, member_id
from dr3_ray.sweep.directory import axes
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec


def test_fields_become_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"mix:{tmp_path}/old?take=best:0.5=1:0.9/open,{tmp_path}/new=0:0.1/close,since=1000"
    text = """
        datasets:
          - mixture:
              - {data: 'old?take=best:0.5', weight: 1, then: 0.9, task: open}
              - {data: new, weight: 0, then: 0.1, task: close}
            since: 1000
          - mix:old=0.9,new=0.1
    """
    (tmp_path / "spec.yaml").write_text(text)
    given = read_spec(tmp_path / "spec.yaml")
    assert SweepSpec(**given).datasets == (name, f"mix:{tmp_path}/old=0.9,{tmp_path}/new=0.1")
    assert SweepSpec(dataset=given["datasets"][0]).datasets == (name,)
    assert SweepSpec(**json.loads(SweepSpec(**given).model_dump_json())) == SweepSpec(**given)
    words = ["mix:old?take=best:0.5=1:0.9/open,new=0:0.1/close,since=1000", "old,new"]
    assert spec_above({}, {"dataset": words}).datasets == (name, f"{tmp_path}/old", f"{tmp_path}/new")
    assert source_of(words[0]) == name
    config = config_for("DR3-IQL").offline_data(input_=words[0])
    assert config.input_ == name


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"mixture": []}, "mixture: without a value the sweep has no members"),
        ({"mixture": [{"data": "a"}]}, "mixture.0.weight: it is missing"),
        ({"mixture": [{"data": "a", "weight": -1}]}, "mixture.0.weight: it has to be at least 0"),
        ({"mixture": [{"data": "a", "wieght": 1}]}, "unknown key in mixture.0 'wieght': did you mean 'weight'"),
        ({"mixture": [{"data": "a", "weight": 1, "task": "x y"}, {"data": "b", "weight": 1}]}, "'x y' is no word"),
        ({"mixture": [{"data": "a", "weight": 1e-13}, {"data": "b", "weight": 1}]}, "weights have at most 12 digits"),
        ({"mixture": [{"data": "a=1,b", "weight": 1}, {"data": "b", "weight": 1}]}, "a comma or = in a name"),
        ({"mixture": [{"data": "a", "weight": 1}], "since": 0}, "since: it has to be more than 0"),
    ],
)
def test_mistakes_are_told_in_one_line(entry: dict[str, object], why: str) -> None:
    with pytest.raises(UserError) as refused:
        SweepSpec(datasets=[entry])
    assert why in str(refused.value) and "\n" not in str(refused.value)


def test_a_share_of_the_target_is_an_axis_and_absent_from_the_hashes_before_it(pendulum: str) -> None:
    name, shares = f"mix:{pendulum}?split=train&validation=0.5=0.9,{pendulum}=0.1", [0, 0.1, 0.5]
    about = {"algorithms": ["DR3-IQL"], "coefficients": [0], "seeds": 1, "environment": "none"}
    found = members(SweepSpec(datasets=[name], axes={"target_share": shares}, **about))
    assert [config["target_share"] for config in found.values()] == shares
    assert {config["data_fingerprint"] for config in found.values()} == {load_dataset(name).fingerprint}
    assert "target_share" in axes(found.values())
    with pytest.raises(UserError, match=r"target_share = 0\.5 has no effect on one data set: name a mixture"):
        members(SweepSpec(datasets=[pendulum], options={"target_share": 0.5}, **about))
    with pytest.raises(UserError, match="a batch of 256 has no row of"):
        members(SweepSpec(datasets=[name], options={"target_share": 0.001}, **about))
    (member, config), *_ = members(SweepSpec(datasets=[pendulum], **about)).items()
    before = {key: value for key, value in config.items() if key not in LATER}
    assert member_id(before) == member and before.keys() < config.keys()
    assert axes([before, config | {"seed": 1}]) == ["dr3_coeff"]
