"""Several learners, remote ones, GPUs, and checkpoints that do not fit: real Ray, real gloo."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.rllib.algorithms.algorithm import Algorithm

import dr3_ray
from dr3_ray import UserError
from tests.rllib.conftest import TINY

pytestmark = pytest.mark.usefixtures("local_ray")

# the last diverges, and all learners have to see it; with every row in the penalty the loss is a mean over rows
MEMBERS = [{"seed": 0}, {"seed": 1, "dr3_coeff": 0.3}, {"seed": 2, "critic_lr": 1e30}]


def tiny(data: str, name: str = "DR3-CQL", members: list[dict[str, Any]] | None = None, **options: Any) -> Any:
    config = dr3_ray.config_for(name).offline_data(input_=data).training(**TINY | options)
    return config.population(members or [{"seed": 0}], updates_per_iteration=50)


def config_of(data: str, num_learners: int) -> Any:
    config = tiny(data, members=MEMBERS).regularization(dr3_mask_terminals=False).learners(num_learners=num_learners)
    return config.environment(env="CartPole-v1").evaluation(evaluation_interval=1, evaluation_duration=2)


def every_learner(algorithm: Algorithm) -> list[dict[str, Any]]:
    """Parameters and optimisers of each, as flat arrays, and which members diverged."""

    def values(learner: Any) -> dict[str, Any]:
        population = learner.population
        return {name: array.copy() for name, array in learner.module["default_policy"].get_state().items()} | {
            "exp_avg": population.parts["critic"].adam.exp_avg.numpy(),
            "diverged": population.diverged.numpy(),
        }

    return [answer.get() for answer in algorithm.learner_group.foreach_learner(values)]


def equal_to_the_bit(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)


def rows(result: dict[str, Any]) -> str:
    return json.dumps(result["members"], sort_keys=True)


@pytest.fixture(scope="module")
def alone(cartpole: str, local_ray: None) -> Iterator[tuple[Algorithm, dict[str, Any]]]:
    """One local learner and its first result."""
    algorithm = config_of(cartpole, 0).build_algo()
    yield algorithm, algorithm.train()
    algorithm.stop()


@pytest.fixture(scope="module")
def two(cartpole: str, local_ray: None) -> Iterator[tuple[Algorithm, dict[str, Any]]]:
    """Two learners and their first result."""
    algorithm = config_of(cartpole, 2).build_algo()
    yield algorithm, algorithm.train()
    algorithm.stop()


def test_two_learners_agree_to_the_bit_and_with_a_single_one(two: Any, alone: Any) -> None:
    first, second = every_learner(two[0])
    (single,) = every_learner(alone[0])
    assert equal_to_the_bit(first, second)
    assert first["diverged"].tolist() == [False, False, True]
    for name, values in first.items():
        np.testing.assert_allclose(values[:2], single[name][:2], rtol=1e-3, atol=1e-5)
