"""Several learners, remote ones, GPUs, and checkpoints that do not fit: real Ray, real gloo."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.util.placement_group import remove_placement_group

import dr3_ray
from dr3_ray import UserError
from dr3_ray.rllib.checkpoint import STATE
from dr3_ray.runs.plain import read_plain, write_plain
from tests.rllib.conftest import TINY

pytestmark = pytest.mark.usefixtures("local_ray")

# the last diverges, and all learners have to see it; with every row in the penalty the loss is a mean over rows
MEMBERS = [{"seed": 0}, {"seed": 1, "dr3_coeff": 0.3}, {"seed": 2, "critic_lr": 1e30}]


def tiny(data: str, name: str = "DR3-CQL", members: list[dict[str, Any]] | None = None, **options: Any) -> Any:
    config = dr3_ray.config_for(name).offline_data(input_=data).training(**TINY | options)
    return config.population(members or [{"seed": 0}], updates_per_iteration=50)


def config_of(data: str, num_learners: int) -> Any:
    config = tiny(data, members=MEMBERS).regularization(dr3_mask_terminals=False)
    config = config.learners(num_learners=num_learners, num_cpus_per_learner=0.5)  # of the two that the tests have
    return config.environment(env="CartPole-v1").evaluation(evaluation_interval=1, evaluation_duration=2)


def every_learner(algorithm: Algorithm) -> list[dict[str, Any]]:
    """Parameters and optimisers of each, as flat arrays, and which members diverged."""

    def values(learner: Any) -> dict[str, Any]:
        population = learner.population
        return {name: array.copy() for name, array in learner.module["default_policy"].get_state().items()} | {
            "exp_avg": population.steps.parts["critic"].adam.exp_avg.numpy(),
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
    assert first["diverged"].tolist() == single["diverged"].tolist() == [False, False, True]
    for name, values in first.items():
        np.testing.assert_allclose(values[:2], single[name][:2], rtol=1e-3, atol=1e-5)


def test_results_of_two_learners_are_those_of_one(two: Any, alone: Any) -> None:
    result, expected = two[1], alone[1]
    assert result["num_updates"] == expected["num_updates"] == 50 and result["updates_per_second"] > 0
    assert result["members"]["002"]["diverged"] is True and result["members"]["002"]["episodes"] == 2
    for key in ("000", "001"):
        assert result["members"][key] == pytest.approx(expected["members"][key], rel=1e-3, abs=1e-5)


def test_two_learners_restored_go_on_to_the_bit_and_their_checkpoint_is_any_other_s(
    two: Any, alone: Any, tmp_path: Path
) -> None:
    algorithm, (single, _) = two[0], alone
    path, state = algorithm.save_to_path(tmp_path / "checkpoint"), algorithm.get_state()
    saved, _ = every_learner(algorithm)
    following = algorithm.train()
    for restore in (lambda: algorithm.restore_from_path(path), lambda: algorithm.set_state(state)):
        restore()
        assert all(equal_to_the_bit(learner, saved) for learner in every_learner(algorithm))
        assert rows(algorithm.train()) == rows(following)
    single.restore_from_path(path)
    assert equal_to_the_bit(every_learner(single)[0], saved)
    result = single.train()
    assert result["num_updates"] == 100
    assert result["members"]["001"] == pytest.approx(following["members"]["001"], rel=1e-3, abs=1e-5)


def test_learners_that_cannot_read_a_checkpoint_are_not_passed_over(two: Any, tmp_path: Path) -> None:
    algorithm = two[0]
    path = Path(algorithm.save_to_path(tmp_path / "checkpoint"))
    state = read_plain(path, STATE)
    del state["learner_group"]["learner"]["optimizer"]["population"]["adam"]
    write_plain(path, STATE, state)
    with pytest.raises(UserError, match=r"not all learners could read the checkpoint in .*: is it complete"):
        algorithm.restore_from_path(path)
    # RLlib has given them up
    algorithm.learner_group.foreach_learner(lambda learner: None, healthy_only=False, mark_healthy=True)
    (path / f"{STATE}.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"algorithm_state is damaged \(.*\): take another checkpoint"):
        algorithm.restore_from_path(path)


@pytest.mark.slow
def test_one_remote_learner_is_a_local_one_elsewhere(cartpole: str, alone: Any) -> None:
    remote = config_of(cartpole, 1).build_algo()
    assert remote.learner_group.is_remote and alone[0].learner_group.is_local
    assert rows(remote.train()) == rows(alone[1])
    remote.stop()


@pytest.mark.slow
def test_four_trials_share_one_gpu(cartpole: str) -> None:
    config = tiny(cartpole).learners(num_gpus_per_learner=0.25).resources(num_cpus_for_main_process=0)
    request = dr3_ray.rllib.DR3CQL.default_resource_request(config.to_dict())
    assert request.bundles == [{"GPU": 0.25}]
    groups = [request() for _ in range(5)]
    assert [group.wait(timeout_seconds=120) for group in groups[:4]] == [True] * 4
    assert groups[4].wait(timeout_seconds=1) is False
    for group in groups:
        remove_placement_group(group)


@pytest.mark.parametrize(("num_learners", "main"), [(0, {"CPU": 1.0, "GPU": 1.0}), (2, {"CPU": 1.0})])
def test_every_learner_asks_for_its_gpu(cartpole: str, num_learners: int, main: dict[str, float]) -> None:
    config = tiny(cartpole).learners(num_learners=num_learners, num_gpus_per_learner=1)
    request = dr3_ray.rllib.DR3CQL.default_resource_request(config.to_dict())
    assert request.bundles == [main, *[{"GPU": 1.0}] * num_learners]


@pytest.mark.parametrize("num_learners", [0, 1])
def test_a_learner_is_on_the_gpu_it_asked_for_or_says_that_there_is_none(cartpole: str, num_learners: int) -> None:
    config = tiny(cartpole).learners(num_learners=num_learners, num_gpus_per_learner=0.25)
    if torch.cuda.is_available():
        algorithm = config.build_algo()
        (device,) = algorithm.learner_group.foreach_learner(lambda learner: learner.population.device.type)
        assert device.get() == "cuda" and algorithm.train()["num_updates"] == 50
        algorithm.stop()
    else:
        with pytest.raises(UserError, match=r"^num_gpus_per_learner = 0\.25, but torch finds no GPU ") as caught:
            config.build_algo()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "DR3-DQN"}, "algorithm DR3-CQL there, DR3-DQN here"),
        ({"data": "pendulum"}, r"spaces {'observation_shape': \[4\], .*} there, {'observation_shape': \[3\], .*} here"),
        ({"members": [{"seed": 1}, {"seed": 2}]}, "options {'members': 3, .*} there, {'members': 2, .*} here"),
        (
            {"members": MEMBERS, "hidden_sizes": [8, 8], "n_step": 3},
            r"options {'hidden_sizes': \[16, 16\], 'n_step': 1, 'dr3_mask_terminals': False} there, "
            r"{'hidden_sizes': \[8, 8\], 'n_step': 3, 'dr3_mask_terminals': True} here",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line_and_changes_nothing(
    change: dict[str, Any], message: str, alone: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path, state = alone[0].save_to_path(tmp_path / "checkpoint"), alone[0].get_state()
    data = request.getfixturevalue(change.get("data", "cartpole"))
    other = tiny(**change | {"data": data}).build_algo()
    (before,) = every_learner(other)
    for restore, origin in (
        (lambda: other.restore_from_path(path), f"the checkpoint in {path}"),
        (lambda: other.load_checkpoint(path), f"the checkpoint in {path}"),  # as Tune restores
        (lambda: other.set_state(state), "the given state"),
    ):
        with pytest.raises(UserError, match=f"^{origin} does not fit this algorithm: {message}$") as caught:
            restore()
        assert "\n" not in str(caught.value)
    assert equal_to_the_bit(every_learner(other)[0], before) and other.training_iteration == 0
    other.stop()


def test_other_numbers_and_batch_sizes_take_a_checkpoint(cartpole: str, alone: Any, tmp_path: Path) -> None:
    """As population-based training does it."""
    path = alone[0].save_to_path(tmp_path / "checkpoint")
    members = [member | {"dr3_coeff": 0.5} for member in MEMBERS]
    other = tiny(cartpole, members=members, batch_size=4, critic_lr=1e-3).build_algo()
    other.restore_from_path(path)
    assert equal_to_the_bit(every_learner(other)[0], every_learner(alone[0])[0])
    other.train()
    other.stop()


def test_a_class_takes_its_own_checkpoints_only(alone: Any, tmp_path: Path) -> None:
    path = alone[0].save_to_path(tmp_path / "checkpoint")
    with pytest.raises(UserError, match=f"^the checkpoint in {path} is of DR3-CQL, not of DR3-DQN$"):
        dr3_ray.rllib.DR3DQN.from_checkpoint(path)
    with pytest.raises(UserError, match=f"^no checkpoint in {tmp_path}: give the directory that save_to_path made$"):
        dr3_ray.rllib.DR3CQL.from_checkpoint(tmp_path)
    foreign = shutil.copytree(path, tmp_path / "foreign") / Algorithm.METADATA_FILE_NAME
    foreign.write_text(json.dumps({"checkpoint_version": "2.1"}))
    with pytest.raises(UserError, match=r"foreign was not made by an algorithm of dr3_ray$"):
        dr3_ray.rllib.DR3CQL.from_checkpoint(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_learners": 8}, "8 learners and 0 evaluation runners need 8 CPUs"),
        ({"num_learners": 2, "num_cpus_per_learner": 1000}, "2 learners and 0 evaluation runners need 2000 CPUs"),
        ({"evaluation_num_env_runners": 50}, "0 learners and 50 evaluation runners need 50 CPUs"),
        ({"num_learners": 1, "num_gpus_per_learner": 99}, "1 learners and 0 evaluation runners need 99 GPUs"),
        (
            {"evaluation_num_env_runners": 1, "custom_resources_per_env_runner": {"tpu": 1}},
            "0 learners and 1 evaluation runners need 1 tpus",
        ),
    ],
)
def test_processes_that_can_never_start_are_one_line(cartpole: str, change: dict[str, Any], said: str) -> None:
    config = tiny(cartpole).environment(env="CartPole-v1").update_from_dict(change)
    with pytest.raises(UserError, match=rf"^{said}, and this machine's Ray has \d+: ask for fewer"):
        config.build_algo()


def test_an_evaluation_has_an_environment_for_each_episode(cartpole: str) -> None:
    config = tiny(cartpole).environment(env="CartPole-v1").evaluation(evaluation_duration=10**6)
    with pytest.raises(UserError, match=r"^evaluation_duration must be a whole number from 1 to 100,000, not 1000000$"):
        config.validate()
    config.evaluation(evaluation_duration_unit="timesteps").validate()
