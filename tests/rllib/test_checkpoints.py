"""Checkpoints of algorithms: without pickles, with those of before where they are trusted, in folders and buckets."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from ray.rllib.algorithms.algorithm import Algorithm

import dr3_ray
from dr3_ray import UserError
from dr3_ray.rllib.algorithm import OfflineAlgorithm
from dr3_ray.rllib.module import PopulationModule
from dr3_ray.runs.keys import KEY, SIGNATURES
from dr3_ray.training.saved import PLACE, read_networks
from tests.rllib.conftest import TINY

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(KEY, str(tmp_path / "key"))


class Cart(CartPoleEnv):
    """An environment that is no name."""

    def __init__(self, config: Any = None):
        super().__init__()


def config_of(data: str) -> Any:
    config = dr3_ray.config_for("DR3-CQL").offline_data(input_=data).training(**TINY)
    return config.population([{"seed": 0}, {"seed": 1, "dr3_coeff": 0.1}], updates_per_iteration=5)


def rows(result: dict[str, Any]) -> str:
    return json.dumps(result["members"], sort_keys=True)


@pytest.fixture(scope="module")
def trained(local_ray: Any, cartpole: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, str]:
    """An algorithm, its checkpoint after one iteration, and what came of the next one."""
    algorithm = config_of(cartpole).build_algo()
    algorithm.train()
    path = Path(algorithm.save_to_path(tmp_path_factory.mktemp("checkpoint") / "c"))
    return algorithm, path, rows(algorithm.train())


def without_pickles(path: Path) -> int:
    found = [each for each in path.rglob("*") if each.suffix in (".pkl", ".msgpack")]
    for each in found:
        each.unlink()
    return len(found)


def test_it_is_whole_without_its_pickles(trained: Any, tmp_path: Path) -> None:
    algorithm, path, following = trained
    path = Path(shutil.copytree(path, tmp_path / "c"))
    assert without_pickles(path) == 3
    again = OfflineAlgorithm.from_checkpoint(path)
    assert type(again) is dr3_ray.rllib.DR3CQL and again.config.updates_per_iteration == 5
    assert rows(again.train()) == following and again.training_iteration == 2
    again.stop()
    algorithm.restore_from_path(path)
    assert rows(algorithm.train()) == following
    module, networks = PopulationModule.from_checkpoint(path / PLACE), read_networks(path)
    seen = torch.rand(2, 3, 4)
    assert torch.equal(module.act_all(seen), networks.spec.act(networks.networks, seen))  # type: ignore[misc]
    assert [member["seed"] for member in networks.members] == [0, 1]


def test_one_part_can_be_restored(trained: Any, tmp_path: Path) -> None:
    algorithm, path, _ = trained
    algorithm.train()
    algorithm.restore_from_path(path / PLACE, component=PLACE)
    parameters = dict(read_networks(path).networks.named_parameters())
    module = algorithm.learner_group._learner.module["default_policy"]
    assert all(torch.equal(values, parameters[name]) for name, values in module.networks.named_parameters())
    algorithm.restore_from_path(path)


def test_a_bucket_holds_one_too(trained: Any, bucket: Callable[[str], str]) -> None:
    algorithm, _, following = trained
    algorithm.restore_from_path(trained[1])
    uri = bucket("mine/c")
    algorithm.save_to_path(uri)
    again = OfflineAlgorithm.from_checkpoint(uri)
    assert rows(again.train()) == following
    again.stop()


def as_before(algorithm: Any, path: Path) -> Path:
    """A checkpoint as version 0.1 wrote it: RLlib's own, every state a pickle."""
    Algorithm.save_to_path(algorithm, path)
    module = algorithm.learner_group._learner.module["default_policy"]
    for suffix in (".json", ".safetensors"):
        (path / PLACE / f"module_state{suffix}").unlink()
    (path / PLACE / "module_state.pkl").write_bytes(pickle.dumps(module.get_state()))
    (path / PLACE / SIGNATURES).unlink()
    return path


def test_one_of_before_needs_trust(trained: Any, tmp_path: Path) -> None:
    algorithm, path, following = trained
    algorithm.restore_from_path(path)
    old = as_before(algorithm, tmp_path / "old")
    algorithm.train()
    refused = r"holds pickles, which run code when they are read, and nothing shows that you made them: give --trust"
    for read in (algorithm.restore_from_path, OfflineAlgorithm.from_checkpoint):
        with pytest.raises(UserError, match=refused):
            read(old)
        again = read(old, trust=True) or algorithm
        assert rows(again.train()) == following
        if again is not algorithm:
            again.stop()


def test_what_is_not_plain_comes_from_a_pickle_that_this_user_signed(
    cartpole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(cartpole).environment(env=Cart)
    algorithm = config.evaluation(evaluation_interval=1, evaluation_duration=1).build_algo()
    following = algorithm.train()
    path = algorithm.save_to_path(tmp_path / "c")
    algorithm.stop()
    again = OfflineAlgorithm.from_checkpoint(path)
    assert again.train()["members"]["000"]["episodes"] == following["members"]["000"]["episodes"] == 1
    again.stop()
    monkeypatch.setenv(KEY, str(tmp_path / "another's"))
    with pytest.raises(UserError, match="nothing shows that you made them"):
        OfflineAlgorithm.from_checkpoint(path)
    given = OfflineAlgorithm.from_checkpoint(path, config=config_of(cartpole))  # and then nothing is unpickled
    assert given.training_iteration == 1
    given.stop()
    without_pickles(Path(path))
    with pytest.raises(UserError, match="does not say what it was built with: give from_checkpoint a config"):
        OfflineAlgorithm.from_checkpoint(path)


@pytest.mark.parametrize(
    "metadata",
    ["", "[]", "{}", '{"structure": 3}', '{"structure": {"algorithm": "DR3-CQL"}, "num_updates": 1}', "[" * 10**5,
     '{"structure": {"algorithm": "os:system", "spaces": 1, "options": 2, "tensors": 3}, "num_updates": 1}'],
)  # fmt: skip
def test_damaged_metadata_are_one_line(metadata: str, trained: Any, tmp_path: Path) -> None:
    path = Path(shutil.copytree(trained[1], tmp_path / "c"))
    (path / Algorithm.METADATA_FILE_NAME).write_text(metadata)
    for read in (OfflineAlgorithm.from_checkpoint, trained[0].restore_from_path):
        with pytest.raises(UserError, match=r"^the checkpoint in "):
            read(path)


def test_a_component_is_one_that_lies_apart(trained: Any, tmp_path: Path) -> None:
    algorithm, path, following = trained
    path = Path(path)
    algorithm.restore_from_path(path)
    algorithm.train()
    above = Path(PLACE).parent
    algorithm.restore_from_path(path / above, component=str(above))
    for component in ("learner_group", "nothing", f"../{path.name}"):
        with pytest.raises(UserError, match="can be restored alone"):
            algorithm.restore_from_path(path, component=component)
    with pytest.raises(UserError, match="has no networks"):
        algorithm.restore_from_path(tmp_path / "nowhere", component=PLACE)
    algorithm.restore_from_path(path)
    assert rows(algorithm.train()) == following


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none", "n" * 300, 5, None, b"bytes"])
def test_places_that_hold_no_checkpoint_are_one_line(place: Any, trained: Any, tmp_path: Path) -> None:
    algorithm, _, _ = trained
    (tmp_path / "file").touch()
    there = tmp_path / place if isinstance(place, str) else place
    for use in (OfflineAlgorithm.from_checkpoint, *([algorithm.save_to_path] if place else [])):
        with pytest.raises(UserError) as error:
            use(there)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="give a config of dr3_ray"):
        OfflineAlgorithm.from_checkpoint(tmp_path, config={})  # type: ignore[arg-type]
