"""By name in any Tune script, in worker processes."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from ray import tune
from ray.tune.registry import register_env

import dr3_ray
from tests.rllib.conftest import TINY

pytestmark = pytest.mark.usefixtures("local_ray")


def fit(param_space: Any, tmp_path: Path, iterations: int = 2) -> tune.ResultGrid:
    dr3_ray.register_algorithms()
    tuner = tune.Tuner(
        "DR3-CQL",
        param_space=param_space,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), name="run", stop={"training_iteration": iterations}, verbose=0
        ),
    )
    return tuner.fit()


@pytest.mark.slow
def test_a_config_with_a_grid_runs_by_name(cartpole: str, tmp_path: Path) -> None:
    config = dr3_ray.DR3CQLConfig().offline_data(input_=cartpole).training(**TINY)
    config = config.regularization(dr3_coeff=tune.grid_search([0.0, 0.3])).population(updates_per_iteration=10)
    results = fit(config, tmp_path)
    assert not results.errors
    assert sorted(result.metrics["members"]["000"]["dr3_coeff"] for result in results) == [0.0, 0.3]
    assert {result.metrics["num_updates"] for result in results} == {20}


def test_a_misspelt_key_of_a_dict_is_an_error(cartpole: str) -> None:
    with pytest.raises(dr3_ray.UserError, match="DR3-CQL has no setting 'cql_alhpa'; its options are batch_size"):
        dr3_ray.rllib.DR3CQL({"input_": cartpole, "cql_alhpa": 0.5})


@pytest.mark.slow
def test_a_plain_dict_runs_by_name_and_a_finished_trial_goes_on_from_its_checkpoint(
    cartpole: str, tmp_path: Path
) -> None:
    space = {"input_": cartpole, "updates_per_iteration": 10, "cql_alpha": tune.choice([0.5]), **TINY}
    (result,) = fit(space, tmp_path)
    assert result.error is None and result.metrics["num_updates"] == 20
    assert result.checkpoint is not None
    resumed = dr3_ray.rllib.DR3CQL.from_checkpoint(result.checkpoint.path)
    assert resumed.train()["num_updates"] == 30
    resumed.stop()


@pytest.mark.slow
def test_an_interrupted_experiment_is_resumed_by_tune(cartpole: str, tmp_path: Path) -> None:
    """Stopped by an error in the middle, restored by Tune, ends where an undisturbed run ends."""

    class Interrupted(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
            if result["training_iteration"] == 2 and not (tmp_path / "was cut").exists():
                (tmp_path / "was cut").touch()  # Tune restores callbacks too
                raise RuntimeError("cut off")

    config = dr3_ray.DR3CQLConfig().offline_data(input_=cartpole).training(**TINY)
    config = config.population([{"seed": 5}, {"seed": 6}], updates_per_iteration=10)
    dr3_ray.register_algorithms()
    every = tune.CheckpointConfig(checkpoint_frequency=1)

    def run(name: str, callbacks: list[Any]) -> tune.Tuner:
        return tune.Tuner(
            "DR3-CQL",
            param_space=config,
            run_config=tune.RunConfig(
                storage_path=str(tmp_path),
                name=name,
                stop={"training_iteration": 4},
                checkpoint_config=every,
                callbacks=callbacks,
                verbose=0,
            ),
        )

    (undisturbed,) = run("whole", []).fit()
    with pytest.raises(Exception, match="cut off"):
        run("cut", [Interrupted()]).fit()
    restored = tune.Tuner.restore(str(tmp_path / "cut"), trainable="DR3-CQL", resume_errored=True)
    (result,) = restored.fit()
    assert result.metrics["training_iteration"] == 4
    assert result.metrics["members"] == undisturbed.metrics["members"]


@pytest.mark.slow
def test_trials_without_a_seed_have_one_each_and_relative_data_are_the_drivers(
    cartpole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").symlink_to(cartpole)
    monkeypatch.chdir(tmp_path)
    space = {"input_": "data", "updates_per_iteration": 10, **TINY}
    dr3_ray.register_algorithms()
    results = tune.Tuner(
        "DR3-CQL",
        param_space=space,
        tune_config=tune.TuneConfig(num_samples=2),
        run_config=tune.RunConfig(storage_path=str(tmp_path), stop={"training_iteration": 1}, verbose=0),
    ).fit()
    assert not results.errors
    found = {int(result.metrics["trial_id"][-5:]): result.metrics["members"]["000"] for result in results}
    assert {number: row["seed"] for number, row in found.items()} == {0: 0, 1: 1}
    assert found[0]["loss_critic"] != found[1]["loss_critic"]


@pytest.mark.slow
def test_a_mistake_that_only_a_trial_can_find_is_the_error_of_its_result(cartpole: str, tmp_path: Path) -> None:
    space = {"input_": cartpole, "env": "Acrobot-v1", **TINY}
    (result,) = fit(space, tmp_path)
    assert isinstance(result.error, dr3_ray.UserError)
    said = str(result.error).splitlines()
    for line in (said[0], said[-1]):
        assert "environment Acrobot-v1 has observations Box(" in line and "the shapes differ: name the environ" in line
    with pytest.raises(dr3_ray.UserError, match=r"^DR3-CQL has no setting 'lr': set critic_lr"):
        fit({"input_": cartpole, "lr": tune.loguniform(1e-4, 1e-3), **TINY}, tmp_path / "other")


@pytest.mark.slow
def test_names_that_a_script_registers_are_known_to_trials_and_their_runners(cartpole: str, tmp_path: Path) -> None:
    gym.register("OfThisScript-v0", entry_point=lambda **options: gym.make("CartPole-v1", **options))
    register_env("of-this-script", lambda config: gym.make("CartPole-v1", **config))
    config = dr3_ray.DR3CQLConfig().offline_data(input_=cartpole).training(**TINY).population(updates_per_iteration=5)
    config.evaluation(evaluation_interval=1, evaluation_duration=2)
    names = ["OfThisScript-v0", "gymnasium:OfThisScript-v0", "of-this-script"]
    space = config.to_dict() | {"env": tune.grid_search(names), "env_config": {"max_episode_steps": 3}}
    results = fit(space, tmp_path, iterations=1)
    assert not results.errors
    assert [result.metrics["evaluation"]["env_runners"]["episode_len_max"] for result in results] == [3.0] * 3
