"""Where a data set can be written: everything that stands in the way is said before anything is read."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dr3_ray.data import Provenance, ShardWriter, SpaceSpec, episode_columns, load_dataset
from dr3_ray.data.cache import CACHE, foreign, prune
from dr3_ray.data.leftovers import leftovers
from dr3_ray.data.machine import cache_folder
from dr3_ray.data.schema import MANIFEST, PARTIAL
from dr3_ray.data.targets import check_target
from dr3_ray.errors import UserError

ABOUT = {
    "observation_space": SpaceSpec.box(-1, 1, (2,)),
    "action_space": SpaceSpec.discrete(2),
    "gamma": 0.9,
    "name": "x",
    "provenance": Provenance(source="test"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return cache_folder()


def write(path, **about):
    with ShardWriter(path, rows_per_shard=2, **(ABOUT | about)) as writer:
        arrays = np.zeros((4, 2), np.float32), np.zeros(3, np.int64), np.zeros(3, np.float32)
        writer.write(episode_columns(*arrays, terminated=True, truncated=False, episode_id=0, gamma=0.9))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


FILES = ["episodes.arrow", MANIFEST, "shard-00000.arrow", "shard-00001.arrow"]


def test_a_folder_that_is_there_stays_what_it_is(tmp_path):
    (tmp_path / "made").mkdir(mode=0o750)
    before = (tmp_path / "made").stat()
    write(tmp_path / "made")
    after = (tmp_path / "made").stat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode) and names(tmp_path / "made") == FILES


@pytest.mark.parametrize("there", [True, False], ids=["an empty folder", "nothing yet"])
def test_a_link_is_followed(tmp_path, there):
    if there:
        (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and names(tmp_path / "real") == FILES
    assert len(load_dataset(tmp_path / "link")) == 3


@pytest.mark.slow
def test_an_empty_mount_point_is_written_to(tmp_path):
    """In a mount namespace of its own; another file system, to which nothing can be renamed from beside it."""
    script = f"""
        mkdir {tmp_path}/point && mount -t tmpfs none {tmp_path}/point &&
        {sys.executable} -c "from tests.data.test_targets import write; write({str(tmp_path / "point")!r})" &&
        ls -A {tmp_path}/point"""
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert result.stdout.split() == FILES, result.stderr


REFUSED = {
    "a file": (lambda path: path.write_text("mine"), "exists and is not an empty directory"),
    "a link to a file": (lambda path: path.symlink_to(path.with_name("file")), "exists and is not an empty directory"),
    "a full folder": (lambda path: (path / "mine").mkdir(parents=True), "exists and is not an empty directory"),
    "a link to itself": (lambda path: path.symlink_to(path), "is a link that leads to itself: remove it"),
    "a link to a full folder": (lambda path: path.symlink_to(path.with_name("full")), "is not an empty directory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_in_the_way_stays(tmp_path, case):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full" / "mine").mkdir(parents=True)
    make, says = REFUSED[case]
    make(tmp_path / "out")
    before = os.lstat(tmp_path / "out")
    with pytest.raises(UserError, match=says):
        write(tmp_path / "out")
    assert os.lstat(tmp_path / "out").st_ino == before.st_ino and names(tmp_path / "full") == ["mine"]


def test_a_place_below_a_file_is_none(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file is not a directory, so choose another place"):
        check_target(tmp_path / "file" / "a" / "b")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("n" * 256, "the name is too long"),
        ("é" * 128, "the name is too long"),
        ("n" * 256 + "/out", "File name too long"),
        ("/proc/out", "so choose another place"),
        ("embedded:breakout-replay", "by which other data are named: write ./embedded:breakout-replay"),
        ("mix:a=1", "by which other data are named"),
    ],
)
def test_places_that_take_no_files_are_refused_before(tmp_path, monkeypatch, place, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says) as error:
        write(place)
    assert "\n" not in str(error.value) and {*names(tmp_path)} <= {"cache"}


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127])
def test_the_longest_names_are_written_to(tmp_path, name):
    write(tmp_path / name)
    assert name in names(tmp_path) and names(tmp_path / name) == FILES


ASK = "import os; from dr3_ray.data.targets import check_target; {}check_target({!r})"


def assert_refused(command, reason):
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    last = result.stderr.splitlines()[-1]
    assert last.startswith("dr3_ray.errors.UserError: cannot write") and reason in last, result


def test_a_read_only_file_system_is_refused(tmp_path):
    script = f'mount -t tmpfs -o ro none {tmp_path} && {sys.executable} -c "{ASK.format("", str(tmp_path / "out"))}"'
    assert_refused(["unshare", "--mount", "--map-root-user", "sh", "-c", script], "the file system is read-only")


def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    """Somebody who is not root, whom permissions do not bind, asks."""
    (tmp_path / "shut").mkdir(mode=0o500)
    code = ASK.format("os.getuid() or os.setuid(65534); ", str(tmp_path / "shut" / "out"))
    assert_refused([sys.executable, "-c", code], "permission denied")


def test_room_is_looked_at_before(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(UserError, match=r"it takes about .* MB, but .* MB are free in .*: make room"):
        write(tmp_path / "out", expected_rows=free // 16)
    assert names(tmp_path) == []
    write(tmp_path / "out", expected_rows=3)


def killed_while_writing(path):
    """A process that is killed when half of a data set is written."""
    code = f"""
import os, signal
from tests.data.test_targets import *
with ShardWriter({str(path)!r}, rows_per_shard=2, **ABOUT) as writer:
    arrays = np.zeros((4, 2), np.float32), np.zeros(3, np.int64), np.zeros(3, np.float32)
    writer.write(episode_columns(*arrays, terminated=True, truncated=False, episode_id=0, gamma=0.9))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert result.returncode == -signal.SIGKILL


def test_what_a_killed_write_left_is_listed_and_pruned(tmp_path, cache, cli):
    (tmp_path / "made").mkdir()
    for out in (tmp_path / "out", tmp_path / "made"):
        killed_while_writing(out)
    left = [each.path for each in leftovers()]
    assert len(left) == 2 and all(path.is_dir() and path.name.endswith(PARTIAL) for path in left)
    with ShardWriter(tmp_path / "living", **ABOUT) as living:
        assert [each.path for each in leftovers()] == left
        listed = cli("cache", DR3_RAY_CACHE=str(tmp_path / "cache")).stdout
        assert all(f"left by an interrupted process, --prune removes it: {path}" in listed for path in left)
        result = cli("cache", "--prune", 30, DR3_RAY_CACHE=str(tmp_path / "cache"))
        assert result.returncode == 0 and all(f"removed what was left in {path}" in result.stdout for path in left)
        assert not any(path.exists() for path in left) and living._target.partial.is_dir()
        arrays = np.zeros((4, 2), np.float32), np.zeros(3, np.int64), np.zeros(3, np.float32)
        living.write(episode_columns(*arrays, terminated=True, truncated=False, episode_id=0, gamma=0.9))
    write(tmp_path / "made")
    write(tmp_path / "out")
    assert names(cache) == [] and leftovers() == []


@pytest.mark.slow
def test_a_write_that_died_while_it_moved_its_files_is_undone(tmp_path, cache):
    (tmp_path / "made").mkdir()
    killed_while_writing(tmp_path / "made")
    (left,) = leftovers()
    write(tmp_path / "whole")
    for path in left.path.iterdir():
        path.unlink()
    for name in FILES:  # two of the four files have arrived
        shutil.copy(tmp_path / "whole" / name, left.path / name)
    for name in FILES[2:]:
        (left.path / name).rename(tmp_path / "made" / name)
    with pytest.raises(UserError, match="is not an empty directory"):
        check_target(tmp_path / "made")
    prune(0)
    assert names(tmp_path / "made") == []


def test_files_of_others_stay_and_are_in_nobodys_way(tmp_path, cache, cli):
    write(tmp_path / "data")
    fingerprint = load_dataset((tmp_path / "data").as_uri()).fingerprint
    stranger = cache / "somebody"
    stranger.mkdir()
    (stranger / MANIFEST).write_text('{"icons": []}')
    (cache / "a folder").mkdir()
    (cache / "a folder" / MANIFEST).mkdir()
    (cache / "notes.txt").write_text("mine")
    (cache / "nowhere").symlink_to(tmp_path / "none")
    (cache / f".copy-{fingerprint}-killed").mkdir()
    (cache / ".writing-what").write_bytes(b"\xff\x00")
    (cache / ".writing-begun").touch()
    (cache / ".writing-home").write_text(f"{os.uname().nodename}\n{tmp_path}")
    assert {path.name for path in foreign()} == {"somebody", "a folder", "notes.txt", "nowhere"}
    result = cli("cache", DR3_RAY_CACHE=str(tmp_path / "cache"))
    assert result.returncode == 0 and f"not of dr3-ray, it stays: {stranger}" in result.stdout
    assert f"--prune removes it: {cache}/.copy-" in result.stdout
    result = cli("cache", "--prune", 0, DR3_RAY_CACHE=str(tmp_path / "cache"))
    assert result.returncode == 0 and "removed 1 data sets" in result.stdout
    assert {path.name for path in foreign()} == {"somebody", "a folder", "notes.txt", "nowhere"}
    assert not list(cache.glob(".copy-*")) and not (cache / ".writing-begun").exists() and (tmp_path / "data").is_dir()
    assert (cache / "notes.txt").read_text() == "mine"


def test_a_copy_that_goes_on_is_not_waited_for(tmp_path, cache):
    (cache / f".copy-{'0' * 64}-busy").mkdir(parents=True)
    with open(cache / f".lock-{'0' * 64}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert leftovers() == [] and prune(0) == []
    assert [each.path.name for each in leftovers()] == [f".copy-{'0' * 64}-busy"]


def test_a_cache_that_cannot_be_written_hinders_nobody(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE, str(tmp_path / "file"))
    write(tmp_path / "out")
    assert len(load_dataset(tmp_path / "out")) == 3


@pytest.mark.slow
def test_no_address_space_is_not_damage(tmp_path):
    """A data set of 50 MB in a process that may have 32 MB more than it has."""
    code = f"""
import resource
from dr3_ray.data import load_dataset
from dr3_ray.errors import UserError
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (32 << 20),) * 2)
try:
    load_dataset({str(tmp_path / "out")!r})
except UserError as error:
    print(error)
"""
    wide = SpaceSpec.box(0, 255, (1000, 1000), "uint8")
    with ShardWriter(tmp_path / "out", rows_per_shard=100, **(ABOUT | {"observation_space": wide})) as writer:
        observations = np.tile(np.arange(51, dtype=np.uint8)[:, None, None], (1, 1000, 1000))  # none is stored twice
        arrays = observations, np.zeros(50, np.int64), np.zeros(50, np.float32)
        writer.write(episode_columns(*arrays, terminated=True, truncated=False, episode_id=0, gamma=0.9))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert result.stdout.startswith("out of memory (") and "raise the limit" in result.stdout, result
    assert "damaged" not in result.stdout
