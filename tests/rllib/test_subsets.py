"""RLlib's algorithms on some rows of a data set, which `input_` names."""

from pathlib import Path

import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm

from dr3_ray import DR3IQLConfig, load_dataset
from dr3_ray.errors import UserError
from dr3_ray.rllib.trials import DRIVERS_FOLDER, source_of
from dr3_ray.training.normalization import observation_statistics
from tests.rllib.conftest import TINY


def test_training_sees_these_rows_alone(pendulum: str, tmp_path: Path) -> None:
    name = f"{pendulum}?split=train&validation=0.5&take=uniform:0.5"
    config = DR3IQLConfig().offline_data(input_=name).population(members=[{"seed": 0}], updates_per_iteration=2)
    algorithm = config.training(**TINY, normalize_observations=True).build_algo()
    algorithm.train()
    view, population = load_dataset(name), algorithm.learner_group._learner.population
    assert population.data.fingerprint == view.fingerprint and len(population.data) == len(view)
    mean, _ = observation_statistics(view)
    torch.testing.assert_close(population.networks.observation_mean, mean.float())
    checkpoint = algorithm.save_to_path(tmp_path / "c")
    algorithm.stop()
    again = Algorithm.from_checkpoint(checkpoint)
    assert again.config.input_ == name and again.train()["num_updates"] == 4
    again.stop()
    with pytest.raises(UserError, match="unknown way to take rows 'bset': did you mean 'best'"):
        DR3IQLConfig().offline_data(input_=f"{pendulum}?take=bset:0.5").training(**TINY).build_algo()


def test_a_trial_finds_them_from_the_folder_of_its_driver(
    pendulum: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fingerprint = Path(pendulum), load_dataset(f"{pendulum}?take=best:0.5").fingerprint
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(DRIVERS_FOLDER, str(folder.parent))
    for ending in ("", "?take=best:0.5", f"?take=best:0.5#{fingerprint}"):
        found = source_of(f"{folder.name}{ending}")
        assert found == f"{folder}{ending}"
        load_dataset(found)
