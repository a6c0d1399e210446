"""The journal holds what was done, and a replay of all of it is the folder; who dies or finds no room, and when."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.replay import LOSSES, Disk, all_kept, by_chance, nothing_kept
from tests.crash.shim import count, read_journal, watched

WORK = """
import os, shutil, sqlite3, subprocess, sys, threading
import pyarrow as pa, pyarrow.parquet as pq
from tests.crash.shim import mark

os.chdir(sys.argv[1])
os.makedirs("a/b")
def synced(path, content):
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(file, content)
    os.fsync(file)
    os.close(file)
synced("a/b/.x", b"x" * 9)
os.replace("a/b/.x", "a/b/x")
for path in ("a/b", "a", "."):
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.close(file)
mark("x")
for line in "12":
    with open("log", "a") as file:
        file.write(line)
pq.write_table(pa.table({"x": [1, 2, 3]}), "table.parquet")
base = sqlite3.connect("base.db")
base.execute("create table t (x)")
base.execute("insert into t values (1)")
base.commit()
base.close()
shutil.copyfile("log", "before/copy")
shutil.copytree("a", "c")
shutil.rmtree("a")
os.truncate("before/kept", 2)
os.link("log", "linked")
subprocess.run(["sh", "-c", "echo hi > shell && mv shell before/moved"], check=True)
threads = [threading.Thread(target=synced, args=(f"t{n}", b"t" * n)) for n in range(8)]
[each.start() for each in threads]
[each.join() for each in threads]
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "run" / "before").mkdir(parents=True)
    (tmp_path / "run" / "before" / "kept").write_text("kept")
    return tmp_path / "run"


def work(folder: Path, journal: Path, **how: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WORK, str(folder)]
    return subprocess.run(command, env=os.environ | watched(folder, journal, **how), capture_output=True, text=True)


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_a_replay_of_everything_is_the_folder_and_any_part_of_it_some_folder(folder, tmp_path):
    disk, target = Disk(folder), tmp_path / "crashed"
    before = contents(folder)
    assert work(folder, tmp_path / "journal").returncode == 0
    disk.crash(all_kept, target)
    assert contents(target) == before
    for seed, operation in enumerate(read_journal(tmp_path / "journal")):
        disk.apply(operation)
        for loss in (nothing_kept, LOSSES[seed % len(LOSSES)], by_chance(seed)):
            disk.crash(loss, target)
            assert disk.marks != ["x"] or loss is not nothing_kept or (target / "a/b/x").read_bytes() == b"x" * 9
    disk.crash(all_kept, target)
    assert contents(target) == contents(folder)
    disk.crash(nothing_kept, target)
    # sqlite synchronises what it has made and the folder; the rest never was, the removal of a/ least of all
    assert {"a/b/x", "base.db", "before/kept"} <= contents(target).keys()
    assert (target / "before" / "kept").read_bytes() == b"kept"


def test_the_operation_of_a_number_is_the_last_one(folder, tmp_path):
    assert work(folder, tmp_path / "journal").returncode == 0
    whole, end = contents(folder), count(tmp_path / "journal")
    assert len(whole) > 15
    for die_at in (1, 7, end // 2):
        shutil.rmtree(folder)
        (folder / "before").mkdir(parents=True)
        (folder / "before" / "kept").write_text("kept")
        ended = work(folder, tmp_path / "journal", die_at=die_at)
        assert ended.returncode == -signal.SIGKILL
        assert count(tmp_path / "journal") >= die_at
        assert contents(folder) != whole


def test_from_an_operation_on_there_is_no_room_and_later_there_is(folder, tmp_path):
    ended = work(folder, tmp_path / "journal", full_at=3)
    assert "No space left on device" in ended.stderr
    assert contents(folder).keys() == {"before", "before/kept", "a", "a/b"}
    shutil.rmtree(folder / "a")
    ended = work(folder, tmp_path / "journal", full_at=1, full_for=1)
    assert "No space left on device: 'a'" in ended.stderr
    assert not (folder / "a").exists()
