"""The index: what holds after crashes, for readers and for the one writer."""

import json
import os
import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.errors import UserError
from dr3_ray.sweep.index import INDEX, Index, read_index

CONFIGS = {"a": {"seed": 0}, "b": {"seed": 1}}


def statuses(run):
    return {record["member"]: record["status"] for record in read_index(run)}


@pytest.fixture
def run(tmp_path):
    with Index(tmp_path) as index:
        index.write(CONFIGS, "pending", configs=CONFIGS)
        index.write(["a"], "running", pack="p")
        index.write(["a"], "failed", error="it broke", pack="p")
    return tmp_path


def test_the_last_record_of_a_member_holds(run):
    first, second = read_index(run)
    assert first | {"time": 0} == {
        "member": "a",
        "status": "failed",
        "config": {"seed": 0},
        "error": "it broke",
        "pack": "p",
        "time": 0,
    }
    assert (second["member"], second["status"], second["error"]) == ("b", "pending", None)


def test_no_index_no_records(tmp_path):
    assert read_index(tmp_path) == []


@given(cut=st.integers(0, 10_000))
def test_a_file_cut_anywhere_can_be_read_and_written_on(tmp_path_factory, cut):
    run = tmp_path_factory.mktemp("run")
    with Index(run) as index:
        index.write(CONFIGS, "pending", configs=CONFIGS)
        index.write(CONFIGS, "finished")
    whole = (run / INDEX).read_bytes()
    (run / INDEX).write_bytes(whole[: cut % len(whole)])
    before = statuses(run)
    with Index(run) as index:
        assert {member: index.status(member) for member in before} == before
        index.write(CONFIGS, "running", configs=CONFIGS)
    assert statuses(run) == {"a": "running", "b": "running"}
    assert all(json.loads(line) for line in (run / INDEX).read_text().splitlines())


def test_damage_in_the_middle_is_not_passed_over(run):
    lines = (run / INDEX).read_text().splitlines()
    (run / INDEX).write_text("\n".join([lines[0], lines[1][:20], *lines[2:]]) + "\n")
    with pytest.raises(UserError, match="damaged at line 2"):
        read_index(run)


def test_one_writer_at_a_time_also_across_processes(run):
    attempt = "import sys, dr3_ray.sweep.index as i, pathlib; i.Index(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", attempt, str(run)]
    with Index(run):
        assert statuses(run)["b"] == "pending"
        refused = subprocess.run(command, capture_output=True, text=True)
        assert "a sweep is running in" in refused.stderr.splitlines()[-1]
    assert subprocess.run(command).returncode == 0


def test_a_killed_writer_does_not_keep_the_lock(run):
    hold = "import sys, os, signal, dr3_ray.sweep.index as i, pathlib; x = i.Index(pathlib.Path(sys.argv[1]));"
    killed = subprocess.run([sys.executable, "-c", hold + "os.kill(os.getpid(), signal.SIGKILL)", str(run)])
    assert killed.returncode < 0
    with Index(run) as index:
        assert index.status("a") == "failed"


def test_a_full_disk_leaves_whole_lines(run):
    """A limit on the size of files is hit in the middle of a record."""
    size = (run / INDEX).stat().st_size
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, resource.RLIM_INFINITY))
        try:
            Index(run).write(["b"], "finished")
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert (run / INDEX).stat().st_size == size
    assert statuses(run) == {"a": "failed", "b": "pending"}
