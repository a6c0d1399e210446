"""The index: what holds after crashes, for readers and for the one writer."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.errors import UserError
from dr3_ray.runs.index import FETCHED, INDEX, Index, is_hurt, is_lost, knows_more, read_index
from tests.room import files_up_to

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
    said = []
    with Index(tmp_path, say=said.append) as index:
        assert index.records == {}
    assert said == []  # it is new, not lost


def test_a_folder_without_anything_goes_on_from_the_index_that_is_kept_elsewhere(run, tmp_path_factory):
    kept, said, folder = (run / INDEX).read_bytes(), [], tmp_path_factory.mktemp("empty")
    with Index(folder, say=said.append, kept=lambda: kept):
        assert statuses(folder) == statuses(run)
    assert said == [f"{folder / INDEX} was missing: it goes on from the copy in the storage"]


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


@pytest.mark.parametrize(
    ("damaged", "said"), [(1, "line 2:"), (5, "line 2, 3, 4, 5, 6:"), (9, "line 2, 3, 4, 5, 6 and 4 more:")]
)
def test_all_damage_is_told_and_a_lot_of_it_is_counted(run, damaged, said):
    lines = (run / INDEX).read_text().splitlines()
    (run / INDEX).write_text("\n".join([lines[0], *["no"] * damaged, *lines[1:]]) + "\n")
    with pytest.raises(UserError, match=f"damaged at {said}"):
        read_index(run)


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_lost_index_is_not_taken_for_one_that_is_to_come(run, how):
    (run / INDEX).unlink()
    if how == "empty":
        (run / INDEX).touch()
    (run / "run.json").write_text("{}")
    (run / ".a-partial-file").touch()
    assert read_index(run) == []
    (run / "histories.parquet").touch()
    with pytest.raises(UserError, match=rf"index.jsonl is {how}: `dr3-ray sweep --resume .*` rebuilds it$"):
        read_index(run)
    said = []
    with Index(run, say=said.append):
        pass
    assert said == [f"{run / INDEX} was {how}: it goes on from the checkpoints, where there are some"]


@pytest.mark.parametrize("damage", ["lost", "empty", "all", "some"])
def test_a_hurt_index_goes_on_from_the_one_that_is_kept_elsewhere(run, damage):
    kept, before = (run / INDEX).read_bytes(), read_index(run)
    (run / "histories.parquet").touch()
    if damage == "lost":
        (run / INDEX).unlink()
    elif damage == "empty":
        (run / INDEX).write_text("")
    else:
        lines = (run / INDEX).read_text().splitlines()
        (run / INDEX).write_text(
            "".join("no\n" if damage == "all" or n % 2 else f"{line}\n" for n, line in enumerate(lines))
        )
    assert is_hurt(run / INDEX)
    hurt = [] if damage in ("lost", "empty") else [(run / INDEX).read_bytes()]
    said = []
    with Index(run, say=said.append, kept=lambda: kept) as index:
        assert {member: record["status"] for member, record in index.records.items()} == {
            record["member"]: record["status"] for record in before
        }
    assert "from the copy in the storage" in said[0]
    assert [path.read_bytes() for path in run.glob(f"{INDEX}.damaged-*")] == hurt  # nothing of it is thrown away
    assert not is_hurt(run / INDEX)
    assert sorted(read_index(run), key=str) == sorted(before, key=str)
    assert not knows_more(kept, (run / INDEX).read_bytes()) and not knows_more((run / INDEX).read_bytes(), kept)


def test_of_one_moment_the_record_counts_that_is_kept_elsewhere(run):
    """Two records of a member may be written within a millisecond; the one that is lost was the later one."""
    lines = (run / INDEX).read_text().splitlines(keepends=True)
    now = json.loads(lines[-1])["time"]
    lines[-1:] = [
        json.dumps({"member": "a", "status": status, "time": now}) + "\n" for status in ("running", "finished")
    ]
    (run / INDEX).write_text("".join([*lines[:-1], "no\n"]))
    with Index(run, kept=lambda: "".join(lines).encode()) as index:
        assert index.status("a") == "finished"


def test_a_lost_index_stays_lost_and_unlocked_where_the_copy_cannot_be_read(run):
    kept = (run / INDEX).read_bytes()
    (run / INDEX).unlink()
    (run / "histories.parquet").touch()

    def away() -> bytes:
        raise UserError("the storage does not answer")

    with pytest.raises(UserError, match="does not answer"):
        Index(run, kept=away)
    assert is_lost(run / INDEX)
    with Index(run, kept=lambda: kept) as index:
        assert len(index.records) == 2


def test_a_copy_is_brought_again(run):
    (run / FETCHED).write_text("dr3-ray fetch s3://results/run --out home")
    (run / INDEX).write_text("no\n")
    with pytest.raises(UserError, match=r"line 1: `dr3-ray fetch s3://results/run --out home` brings it again$"):
        read_index(run)


def test_one_writer_at_a_time_also_across_processes(run):
    attempt = "import sys, dr3_ray.runs.index as i, pathlib; i.Index(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", attempt, str(run)]
    with Index(run):
        assert statuses(run)["b"] == "pending"
        refused = subprocess.run(command, capture_output=True, text=True)
        assert "a sweep is running in" in refused.stderr.splitlines()[-1]
    assert subprocess.run(command).returncode == 0


def test_a_killed_writer_does_not_keep_the_lock(run):
    hold = "import sys, os, signal, dr3_ray.runs.index as i, pathlib; x = i.Index(pathlib.Path(sys.argv[1]));"
    killed = subprocess.run([sys.executable, "-c", hold + "os.kill(os.getpid(), signal.SIGKILL)", str(run)])
    assert killed.returncode < 0
    with Index(run) as index:
        assert index.status("a") == "failed"


def test_a_full_disk_leaves_whole_lines(run):
    """A limit on the size of files is hit in the middle of a record."""
    size = (run / INDEX).stat().st_size
    with Index(run) as index, files_up_to(size + 50), pytest.raises(OSError, match="File too large"):
        index.write(["b"], "finished")
    assert (run / INDEX).stat().st_size == size
    assert statuses(run) == {"a": "failed", "b": "pending"}
