"""By name in any Tune script, in worker processes."""

from pathlib import Path
from typing import Any

import pytest
from ray import tune

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
