"""Runs at a URI: what every command that reads one makes of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from dr3_ray import load_policy, load_run
from dr3_ray.errors import UserError
from dr3_ray.runs.brought import run_here
from dr3_ray.runs.index import FETCHED, Index, read_index
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.trainable import PackTrainable
from tests.cli.test_cli import run
from tests.crash.untrained import InTurn

ASKED: dict[str, Any] = {"algorithms": "DR3-IQL", "datasets": "embedded:pendulum-replay?split=train", "seeds": 1}
ASKED |= {"coefficients": [0, 0.1], "options": {"hidden_sizes": [4], "batch_size": 4}, "environment": "none"}
ASKED |= {"steps": 4, "evaluations": 2, "objective": "td_error"}
READING = [
    ("status",),
    ("status", "--json"),
    ("report",),
    ("report", "--json"),
    ("diagnose", "--objective", "td_error"),
    ("select", "--criteria", "td_error"),
    ("select", "--criteria", "fqe", "--fqe-steps", "2", "--fqe-seeds", "1"),
    ("evaluate", "--env", "gymnasium:Pendulum-v1", "--episodes", "1"),
    ("export", "--to", "torchscript", "--out", "policy.pt"),
]
pytestmark = pytest.mark.usefixtures("without_shape_checks")


def train(**asked: Any) -> Path:
    return train_sweep(SweepSpec(**ASKED | asked), trials=InTurn(pack=PackTrainable)).path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(out=tmp_path_factory.mktemp("away") / "pong")


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    (home := tmp_path / "home").mkdir()
    monkeypatch.chdir(home)
    return home


def copied(path: Path, uri: str) -> str:
    filesystem, root = pafs.FileSystem.from_uri(uri)
    pafs.copy_files(str(path), root, pafs.LocalFileSystem(), filesystem)
    return uri


def test_every_command_that_reads_a_run_brings_it(
    bucket: Callable[[str], str], tmp_path: Path, at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = bucket("kept/pong")
    train(out=tmp_path / "elsewhere", storage=uri)
    for command, *options in READING:
        assert run(command, uri, *options) == 0, capsys.readouterr().err
        told = capsys.readouterr()
        assert f"bringing {uri} to runs/pong" in told.err
        if "--json" in options:
            json.loads(told.out)
    home = at_home / "runs" / "pong"
    assert {"report", "selection.csv"} <= {path.name for path in home.iterdir()} and (at_home / "policy.pt").exists()
    assert not (home / "checkpoints").exists()  # they are read where they are
    assert run("status", uri, "--watch") == 2
    assert f"`dr3-ray serve {uri}` follows a run elsewhere" in capsys.readouterr().err


def test_so_do_python_and_members_that_go_on_and_checkpoints_come_with_a_run_that_was_copied(
    trained: Path, bucket: Callable[[str], str], tmp_path: Path, at_home: Path
) -> None:
    uri = copied(trained, bucket("kept/pong"))
    sweep = load_run(uri)
    assert sweep.statuses == {"finished": 2} and sweep.path == Path("runs/pong")
    assert not (at_home / "runs/pong/checkpoints").exists()
    (best,) = sweep.best("td_error").members
    assert sweep.policy(objective="td_error").chosen == load_policy(trained, objective="td_error").chosen
    assert (at_home / "runs/pong/checkpoints").exists()
    more = {"steps": 8, "evaluations": 2, "environment": "none", "out": tmp_path / "child"}
    train_sweep(SweepSpec(parents=[f"{uri}:{best}"], **more), trials=InTurn(pack=PackTrainable))
    (child,) = read_index(tmp_path / "child")
    assert child["config"]["parent"] == f"{best}@4" and child["status"] == "finished"


def test_the_own_directory_of_a_run_is_read_itself(
    bucket: Callable[[str], str], at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, own = bucket("kept/pong"), Path("runs/pong")
    train(out=own, storage=uri)
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    assert run("status", uri) == 0
    assert f"{uri} is kept by the run in runs/pong, which is read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    with Index(own.resolve()) as index:
        index.write([next(iter(index.records))], "pending", error="again")
    copied(own, uri)
    (own / "index.jsonl").write_text("".join((own / "index.jsonl").read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"knows more of this run than runs/pong: `dr3-ray fetch .* --out ANOTHER`"):
        run_here(uri)


def test_what_is_not_there_or_in_the_way_is_one_line(
    trained: Path, bucket: Callable[[str], str], at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = bucket("nothing").replace("://", "://{}@", 1)
    for command, *options in READING[::2]:
        assert run(command, asked.format("KEYX:SECRETX"), *options) == 2
        *waiting, error = capsys.readouterr().err.splitlines()
        assert waiting == [f"bringing {asked.format('***')} to runs/nothing"]
        assert error.startswith("error: s3://***@results/nothing") and "is not a run directory: give what was" in error
    copied(trained, bucket("pong"))
    train(out=at_home / "runs/pong")
    assert run("report", bucket("pong")) == 2
    assert "runs/pong is another run than s3://results/pong" in capsys.readouterr().err
    assert not (at_home / "runs/pong" / FETCHED).exists()
