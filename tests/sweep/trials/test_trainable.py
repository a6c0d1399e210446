"""One pack by itself: when it takes checkpoints, and what it tells a driver that has not seen it before."""

from pathlib import Path
from typing import Any

import pytest

from dr3_ray.errors import UserError
from dr3_ray.runs.storage import claim
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.trainable import PackTrainable, kept_at


@pytest.fixture
def config(cluster, cartpole, tmp_path) -> dict[str, Any]:
    claim(str(tmp_path), "id", "here")
    spec = SweepSpec(
        datasets=[cartpole], coefficients=[0.1], seeds=2, steps=4, evaluations=4, environment="none",
        options={"hidden_sizes": [8]},
    )  # fmt: skip
    pack = {"name": "pack", "members": list(members(spec).values())}
    return {
        **{"pack": pack, "cpus": 1, "gpus": 0, "storage": str(tmp_path), "run": "id"},
        "checkpoint_every": spec.checkpoint_every,
    }


def kept(config: dict[str, Any]) -> list[int]:
    return sorted(int(path.name) for path in Path(config["storage"]).glob("checkpoints/pack/0*"))


def test_checkpoints_take_their_share_of_the_time_and_results_outlive_the_driver(config):
    first = PackTrainable(config)
    assert first.step()["num_updates"] == 1  # in less than the twenty times of what a checkpoint may cost
    assert kept(config) == []
    first.cost = 0.0
    assert not first.step()["done"]
    assert kept(config) == [2]
    assert 0 < first.cost < 10
    first.cost = 1e9
    first.step()

    second = PackTrainable(config)
    third = second.step()
    assert third["num_updates"] == 3
    assert third["earlier"] == first.results[:2]
    assert third["members"] == first.results[2]["members"]
    assert third["time_s"] > third["earlier"][-1]["time_s"] > 0
    second.cost = 1e9
    last = second.step()
    assert last["done"]
    assert last["earlier"] == []
    assert kept(config) == [4]  # at the end always, and only this one

    again = PackTrainable(config)
    assert again.step() == last | {"earlier": second.results}


@pytest.mark.parametrize(("every", "expected"), [(0, []), (2, [2, 4]), (3, [3])])
def test_checkpoints_by_number_of_evaluations(config, every, expected):
    trainable = PackTrainable(config | {"checkpoint_every": every})
    found = []
    for _ in range(3):
        assert not trainable.step()["done"]
        found += [step for step in kept(config) if step not in found]
    assert found == expected[:1]
    assert trainable.step()["done"]
    assert kept(config) == ([4] if every else [])


@pytest.mark.parametrize(("evaluations", "keep", "expected"), [(4, 1, {4}), (4, 2, {2, 4}), (4, 3, {2, 3, 4})])
def test_checkpoints_that_stay_are_evenly_spaced(evaluations, keep, expected):
    assert kept_at(evaluations, evaluations, keep) == expected
    assert kept_at(100 * evaluations, evaluations, keep) == {100 * each for each in expected}


def test_checkpoints_that_stay_are_made_when_none_is_due(config):
    trainable = PackTrainable(config | {"keep_checkpoints": 2})
    while not trainable.step()["done"]:
        pass
    assert kept(config) == [2, 4]


def test_a_machine_that_does_not_see_the_storage_trains_nothing(config, tmp_path):
    with pytest.raises(UserError, match="does not see the sweep's storage"):
        PackTrainable(config | {"storage": str(tmp_path / "elsewhere")})
