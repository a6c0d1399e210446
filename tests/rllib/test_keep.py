"""An algorithm of some of the members: it goes on as they would have gone on, and so do its checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
from ray.rllib.algorithms.algorithm import Algorithm

import dr3_ray
from dr3_ray import UserError
from tests.rllib.conftest import TINY

pytestmark = pytest.mark.usefixtures("local_ray")

MEMBERS: list[dict[str, Any]] = [{"seed": seed, "dr3_coeff": 0.1 * seed, "critic_lr": 1e-3} for seed in range(4)]
KEPT = [3, 1]


def rows(result: dict[str, Any], order: list[int]) -> str:
    return json.dumps([result["members"][f"{row:03d}"] for row in order], sort_keys=True)


def config_of(data: str) -> Any:
    config = dr3_ray.DR3IQLConfig().offline_data(input_=data).training(**TINY, normalize_observations=True)
    config = config.population(MEMBERS, updates_per_iteration=6, execution="in_turn")
    return config.environment(env="CartPole-v1").evaluation(evaluation_interval=1, evaluation_duration=2)


def test_kept_members_go_on_to_the_bit(cartpole: str, tmp_path: Path) -> None:
    config = config_of(cartpole)
    algorithm, whole = config.copy().build_algo(), config.copy().build_algo()
    algorithm.train()
    whole.train()
    kept = algorithm.keep(KEPT)
    result = kept.train()
    assert list(result["members"]) == ["000", "001"]
    assert (result["num_updates"], result["training_iteration"]) == (12, 2)
    assert rows(result, [0, 1]) == rows(whole.train(), KEPT)

    checkpoint = kept.save_to_path(tmp_path / "checkpoint")
    expected = rows(whole.train(), KEPT)
    assert rows(kept.train(), [0, 1]) == expected
    loaded = Algorithm.from_checkpoint(checkpoint)
    assert rows(loaded.train(), [0, 1]) == expected
    with pytest.raises(UserError, match=r"does not fit this algorithm: options {'members': 2} there, {'members': 4} "):
        whole.restore_from_path(checkpoint)
    for each in (kept, whole, loaded):
        each.stop()
