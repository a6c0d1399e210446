"""Somebody's run directory: whatever is pickled in it, nothing of it is run by what reads or resumes it."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dr3_ray.cli import app as cli
from dr3_ray.errors import UserError
from dr3_ray.evolution.evolution import Evolution, claim, evolve
from dr3_ray.rllib import DR3CQL
from dr3_ray.rllib.algorithm import OfflineAlgorithm
from dr3_ray.runs.digests import MANIFEST, digest_of
from dr3_ray.runs.index import INDEX, read_index
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trained import trained_networks
from dr3_ray.training.saved import PLACE
from tests.sweep.conftest import statuses
from tests.sweep.disturbed import checkpoints

PICKLED = (  # names that Ray, RLlib and Tune give their pickles
    "algorithm_state.pkl", "class_and_ctor_args.pkl", "state.pkl", "algorithm_state.msgpack", "signatures.json",
    "learner_group/class_and_ctor_args.pkl", "learner_group/state.pkl", "learner_group/learner/state.pkl",
    f"{PLACE}/module_state.pkl", f"{PLACE}/class_and_ctor_args.pkl",
)  # fmt: skip
TUNE = ("tuner.pkl", "trainable.pkl", "experiment_state-x.json", "search_gen_state-x.json", "searcher-state-x.pkl")


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.makedirs, (str(self.marker), 0o777, True)


@pytest.fixture(scope="module")
def made(cluster: str, cartpole: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one pack, which has a checkpoint, and members that are still to be finished."""
    run = tmp_path_factory.mktemp("theirs") / "run"
    spec = SweepSpec(
        datasets=[cartpole], coefficients=[0.1], seeds=2, steps=4, evaluations=2, environment="none", out=run,
        options={"hidden_sizes": [8]}, checkpoint_every=1, concurrent=1,
    )  # fmt: skip
    train_sweep(spec, ["x"])
    with open(run / INDEX, "a") as file:
        for record in read_index(run):
            file.write(json.dumps(record | {"status": "pending"}) + "\n")
    return run


@pytest.fixture
def theirs(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "theirs", symlinks=True))


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[bytes]:
    marker = tmp_path / "ran"
    yield pickle.dumps(Evil(marker))
    assert not marker.exists()


def seal(checkpoint: Path) -> None:
    """Have the manifest say what is there now, as whoever made it can."""
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST]
    found = {str(path.relative_to(checkpoint)): digest_of(path) for path in files}
    (checkpoint / MANIFEST).write_text(json.dumps(found))


def said(command: Callable[[], object]) -> str:
    """What came of it; how damage is told is tested elsewhere, that nothing is run is tested here."""
    try:
        command()
    except SystemExit as end:
        return f"exit code {end.code}"
    except Exception as error:
        return str(error)
    return ""


def test_checkpoints_of_packs_hold_no_pickle(made: Path) -> None:
    (last,) = checkpoints(made)
    files = {path.name for path in last.rglob("*") if path.is_file()}
    assert files == {
        "algorithm_state.json", "algorithm_state.safetensors", "module_state.json", "module_state.safetensors",
        "manifest.json", "members.json", "results.json", "rllib_checkpoint.json",
    }  # fmt: skip


def test_their_networks_are_read_without_ray_and_are_theirs(made: Path, theirs: Path) -> None:
    (last,) = checkpoints(theirs)
    ((trained, members),) = trained_networks(theirs)
    assert members == [record["member"] for record in read_index(made)]
    algorithm = OfflineAlgorithm.from_checkpoint(last)
    assert type(algorithm) is DR3CQL
    module = algorithm.learner_group._learner.module["default_policy"]
    assert all(
        torch.equal(values, dict(trained.networks.named_parameters())[name])
        for name, values in module.networks.named_parameters()
    )
    assert algorithm.train()["num_updates"] == 6
    algorithm.stop()


def test_a_pickle_in_place_of_any_file_is_not_run_by_what_reads(theirs: Path, evil: bytes, tmp_path: Path) -> None:
    (last,) = checkpoints(theirs)
    for path in sorted(each for each in theirs.rglob("*") if each.is_file()):
        kept = path.read_bytes()
        path.write_bytes(evil)
        if path.is_relative_to(last) and path.name != MANIFEST:
            seal(last)
        for read in (
            lambda: cli.main(["status", str(theirs)]),
            lambda: cli.main(["report", str(theirs)]),
            lambda: cli.main(["fetch", str(theirs), "--checkpoints", "--out", str(tmp_path / "fetched")]),
            lambda: cli.main(["sweep", "--resume", str(theirs), "--dry-run", "--no-calibration"]),
            lambda: list(trained_networks(theirs)),
            lambda: OfflineAlgorithm.from_checkpoint(last),
        ):
            said(read)
            assert not (tmp_path / "ran").exists(), path
        shutil.rmtree(tmp_path / "fetched", ignore_errors=True)
        path.write_bytes(kept)
        seal(last)


def test_pickles_beside_everything_are_not_run_by_what_resumes(theirs: Path, evil: bytes, tmp_path: Path) -> None:
    (last,) = checkpoints(theirs)
    for name in PICKLED:
        (last / name).parent.mkdir(parents=True, exist_ok=True)
        (last / name).write_bytes(evil)
    seal(last)
    for folder in (theirs / "trials", *(each for each in (theirs / "trials").iterdir() if each.is_dir())):
        for name in (*TUNE, "error.pkl"):
            (folder / name).write_bytes(evil)
    assert said(lambda: cli.main(["sweep", "--resume", str(theirs)])) == "exit code 0"
    assert statuses(theirs) == {"finished": 2}
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_pickles_is_refused_in_one_line_unless_trusted(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "ran"
    (last,) = checkpoints(theirs)
    for path in (last / "algorithm_state", last / PLACE / "module_state"):
        path.with_suffix(".json").unlink(), path.with_suffix(".safetensors").unlink()
    for name in PICKLED:
        (last / name).parent.mkdir(parents=True, exist_ok=True)
        (last / name).write_bytes(pickle.dumps(Evil(marker)))
    seal(last)
    line = r"^.* holds pickles, which run code when they are read, and nothing shows that you made them: give --trust"
    with pytest.raises(UserError, match=line):
        list(trained_networks(theirs))
    with pytest.raises(UserError, match=line):
        OfflineAlgorithm.from_checkpoint(last)
    assert said(lambda: cli.main(["sweep", "--resume", str(theirs)])) == "exit code 2"
    assert "give --trust" in capsys.readouterr().err.splitlines()[-1]
    assert not marker.exists() and statuses(theirs) == {"pending": 2}
    with pytest.raises((ValueError, TypeError)):  # what was unpickled is no constructor
        OfflineAlgorithm.from_checkpoint(last, trust=True)
    assert marker.exists()


def test_a_population_goes_on_only_where_this_user_made_it(
    cluster: str, cartpole: str, tmp_path: Path, evil: bytes
) -> None:
    spec = SweepSpec(
        datasets=[cartpole], coefficients=[0.1], seeds=4, steps=4, evaluations=2, out=tmp_path / "mine", cpus=1,
        environment="CartPole-v1",
    )  # fmt: skip
    asked = Evolution(spec, {"dr3_coeff": (0.01, 0.1)}, seed=0)
    claim(spec.out, asked).close()
    theirs = Path(shutil.copytree(spec.out, tmp_path / "theirs"))
    for name in ("trials", "trials/member-000", "trials/member-000/checkpoint_000000"):
        (theirs / name).mkdir()
        for file in (*TUNE, "error.pkl", *PICKLED[:3]):
            (theirs / name / file).write_bytes(evil)
    for file in ("experiment_state-x.json", "basic-variant-state-x.json"):  # whole, or Tune would not go on from it
        (theirs / "trials" / file).write_text("{}")
    with pytest.raises(UserError, match=r"^the population in .*theirs holds pickles, .* give --trust"):
        evolve(asked._replace(spec=spec.model_copy(update={"out": theirs})))
