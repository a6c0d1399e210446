"""Where a real sweep writes and listens: its own folder, the caches, Ray's, and the loopback address alone."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # comes with Ray
import pytest

from dr3_ray.cli.doctor import _caches, _ray
from dr3_ray.cluster.connect import cluster_address, leftovers, temporary_folder
from dr3_ray.errors import UserError
from dr3_ray.process.folders import cache_home, can_be_written

pytestmark = pytest.mark.slow

HERE = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
SWEEP = [
    "--dataset=embedded:breakout-replay",
    "--coefficients=0,0.1",
    "--seeds=1",
    "--environment=none",
    "--pack=1",
    "--concurrent=1",
    "--evaluations=2",
    "--set=hidden_sizes=[8]",
    "--set=batch_size=16",
    "--search=random",
    "--trials=2",
    "--objective=td_error",
]


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for the sockets of Ray."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def listens(driver: int) -> set[str]:
    """The addresses at which a process and those that it has started listen."""
    found = set()
    for process in psutil.Process(driver).children(recursive=True):
        try:
            connections = process.net_connections("inet")
        except psutil.Error:
            continue
        found |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.parametrize("home", ["home", "/dev/null"])
def test_a_sweep_writes_and_listens_nowhere_else(tmp_path, short, home):
    folders = {name: tmp_path / name for name in ("home", "here", "temporary", "cache")}
    for folder in folders.values():
        folder.mkdir()
    run = tmp_path / "what?really#100%20"
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "MPLCONFIGDIR")},
        **{"HOME": str(tmp_path / home), "TMPDIR": str(folders["temporary"]), "RAY_TMPDIR": str(short)},
        "DR3_RAY_CACHE": str(folders["cache"]),
    }
    # one of the two logs, and trains for as long as compiling takes to pay
    more = ["--steps=2000", "--log=mlflow", "--log=tensorboard"] if home == "home" else ["--steps=100"]
    command = [sys.executable, "-m", "dr3_ray", "sweep", *SWEEP, *more, f"--out={run}"]
    process = subprocess.Popen(
        command, env=environment, cwd=folders["here"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seen: set[str] = set()
    while process.poll() is None:
        seen |= listens(process.pid)
        time.sleep(1.0)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert seen and seen <= HERE
    assert f"report: {run}/report/report.html" in said.replace("\n", "")
    assert (run / "studies.db").exists()
    assert not everything(folders["home"]) and not everything(folders["here"]) and not everything(folders["temporary"])
    assert {path.name for path in folders["cache"].iterdir()} <= {"matplotlib", "wandb", "compiled", "key"}
    assert {path.name for path in (short / "ray").iterdir()} <= {"ray_current_cluster"}


def test_a_home_that_cannot_be_written_has_its_caches_elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv("DR3_RAY_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_home() == tmp_path / ".cache" / "dr3-ray"
    assert _caches().status == "ok"
    for home in ("/dev/null", "/dev/null/home"):
        monkeypatch.setenv("HOME", home)
        assert cache_home().is_relative_to(tempfile.gettempdir())
        assert _caches().status == "note" and "DR3_RAY_CACHE" in _caches().remedy
    monkeypatch.setenv("DR3_RAY_CACHE", "/dev/null/cache")
    assert not can_be_written(cache_home())
    assert _caches().status == "failed"


@pytest.mark.parametrize(
    "address",
    ["ray://head:10001", "ray://", "nonsense", "head:port", "head:", "::", "http://head:6379", "1.2.3.4:99999", " "],
)
def test_an_address_that_is_none_is_one_line(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match="RAY_ADDRESS") as error:
        cluster_address()
    assert len(str(error.value).splitlines()) == 1
    check = next(iter(_ray()))
    assert (check.name, check.status) == ("Ray cluster", "failed")


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed.getsockname()[1]}")
    with pytest.raises(UserError, match=r"no Ray cluster answers at .*Connection refused.*: start it, or unset"):
        cluster_address()


def test_a_temporary_folder_without_room_for_sockets_is_one_line(monkeypatch, short):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(short / ("x" * 60)))
    with pytest.raises(UserError, match=r"bytes too long for a Unix socket: export RAY_TMPDIR=/tmp"):
        temporary_folder()
    assert [check.status for check in _ray()][-1] == "failed"
    monkeypatch.setenv("TMPDIR", "/dev/null")
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\): export RAY_TMPDIR="):
        temporary_folder()
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    assert temporary_folder() == short / "ray"


def test_what_a_ray_has_left_is_named_and_what_lives_is_not(monkeypatch, short):
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    old = time.time() - 1000
    for name in ("session_2026-01-01_00-00-00_000001_1", "session_2026-01-01_00-00-00_000002_2"):
        (short / "ray" / name / "sockets").mkdir(parents=True)
        (short / "ray" / name / "log").write_bytes(bytes(3_000_000))
        os.utime(short / "ray" / name, (old, old))
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(str(short / "ray" / name / "sockets" / "raylet"))
        raylet.listen()
        (left,) = leftovers(short / "ray")
        check = list(_ray())[-1]
    assert left.name.endswith("_1")
    assert (check.status, check.found) == ("note", f"{short}/ray; 1 sessions that have ended left 3 MB")
    assert check.remedy == f"remove them: rm -r {left}"
