"""What a run keeps of itself in its storage, wherever that is: nothing of either is lost."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from dr3_ray.errors import UserError
from dr3_ray.runs import mirror
from dr3_ray.runs.directory import RUN, read_run
from dr3_ray.runs.fetch import fetch
from dr3_ray.runs.histories import HISTORIES
from dr3_ray.runs.index import INDEX, Index
from dr3_ray.runs.mirror import check_storage, mirrored
from dr3_ray.sweep.directory import open_run, spec_of, taken_up
from dr3_ray.sweep.spec.problems import members
from tests.runs.runs import advance, begin, snapshot

FILES = (RUN, INDEX, HISTORIES)


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linked").symlink_to("runs")
    begin(tmp_path / "runs" / "a")
    return tmp_path / "runs" / "a"


def keep(out: Path, storage: str | None) -> None:
    """What a sweep does with its storage, from its beginning to its end."""
    check_storage(out, storage)
    said: list[str] = []
    with mirrored(out, storage, said.append):
        pass
    assert not said


SAME = ["{0}", "{0}/", "runs/a", "./runs/../runs/a/.", "linked/a", "file://{0}", "file://{0}/", "file://{0}/x/.."]


@pytest.mark.parametrize("spelling", SAME)
def test_a_storage_that_is_the_run_directory_leaves_it_as_it_is(run, spelling):
    before = snapshot(run)
    keep(Path("runs/a"), spelling.format(run))
    assert snapshot(run) == before


def test_so_does_a_mount_of_the_run_directory_and_one_that_only_a_file_tells(run, tmp_path, monkeypatch):
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    done = subprocess.run(["mount", "--bind", run, mounted], capture_output=True)
    assert not done.returncode, "bind mounts need root in a privileged container: run these tests there"
    try:
        before, inode = snapshot(run), (run / INDEX).stat().st_ino
        keep(run, str(mounted))
        monkeypatch.setattr(mirror, "same_place", lambda *_: False)  # as two mounts of one folder over NFS look
        with mirrored(run, str(mounted), print):
            pass
        assert (snapshot(run), (run / INDEX).stat().st_ino) == (before, inode)
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_hard_links_of_the_files_of_a_run_are_cut_not_emptied(run, tmp_path):
    storage = tmp_path / "storage"
    shutil.copytree(run, storage, copy_function=os.link)
    before = snapshot(run)
    keep(run, str(storage))
    advance(run)
    assert snapshot(storage) == before
    keep(run, str(storage))
    assert all((storage / name).read_bytes() == (run / name).read_bytes() for name in FILES)


@pytest.mark.parametrize("storage", ["runs/a/kept", "runs", ".", "elsewhere", "linked/a/kept/"])
def test_folders_in_each_other_and_apart_are_kept_in(run, storage):
    before = snapshot(run)
    keep(run, storage)
    assert all((Path(storage) / name).read_bytes() == (run / name).read_bytes() for name in FILES)
    assert before.items() <= snapshot(run).items()


@pytest.mark.parametrize(
    ("out", "storage"),
    [
        ("runs/a", "runs/a/checkpoints"),
        ("runs/a", "linked/a/trials/x"),
        ("runs/a", "file://{}/logs"),
        ("runs/a/checkpoints/b", "runs/a"),
        ("s/data/x", "s"),
    ],
)
def test_folders_that_are_in_each_others_way_are_refused(run, out, storage):
    before = snapshot(run.parent.parent)
    with pytest.raises(UserError, match="lie in each other's folders: keep them apart"):
        check_storage(Path(out), storage.format(run))
    assert snapshot(run.parent.parent) == before


def test_a_storage_that_holds_another_run_or_more_of_this_one_is_refused(run, bucket, tmp_path):
    for storage in (str(tmp_path / "storage"), bucket("storage")):
        keep(run, storage)
        filesystem, root = pafs.FileSystem.from_uri(storage)
        before = filesystem.open_input_stream(f"{root}/{INDEX}").read()
        for out in (tmp_path / "new", begin(tmp_path / f"other{len(storage)}").out):
            with pytest.raises(UserError, match=r"holds another run than .*: `dr3-ray sweep --resume .*` goes on with"):
                check_storage(out, storage)
        early = tmp_path / f"early{len(storage)}"
        shutil.copytree(run, early)
        advance(run)
        keep(run, storage)
        with pytest.raises(UserError, match=r"knows more of this run than .*: `dr3-ray fetch .* brings it"):
            check_storage(early, storage)
        assert filesystem.open_input_stream(f"{root}/{INDEX}").read() == (run / INDEX).read_bytes() != before
        keep(run, storage)


def test_a_copy_of_a_run_that_is_going_on_is_no_storage(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    with Index(run), pytest.raises(UserError, match="a sweep is running in --storage"):
        check_storage(tmp_path / "copy", str(run))


@pytest.mark.parametrize("kind", ["path", "relative", "link", "uri", "bucket"])
def test_a_run_goes_on_from_the_storage_of_its_lost_directory(run, bucket, tmp_path, kind):
    """And not while its directory is there. What the storage holds stays."""
    storage = bucket("kept") if kind == "bucket" else str(tmp_path / "kept")
    (tmp_path / "to").symlink_to(tmp_path / "kept")
    given = {"relative": "kept", "link": "to", "uri": f"file://{tmp_path}/kept"}.get(kind, storage)
    run = begin(tmp_path / "runs" / "own", storage=given).out
    keep(run, storage)
    with pytest.raises(UserError, match=rf"keeps of itself: `dr3-ray sweep --resume {run}` goes on"):
        taken_up(given)
    assert not Path("runs/kept").exists()
    lost = snapshot(run)
    shutil.rmtree(run)
    for _ in range(2):
        spec = taken_up(given)
        assert spec.out == Path("runs/kept" if kind in ("uri", "bucket") else given)
        planned = members(spec)
        with open_run(spec, planned, ["y"], force=True) as index:
            assert all(record["pack"] for record in index.records.values())
        keep(spec.out, spec.storage)
        found = snapshot(spec.out)
        assert found[INDEX].startswith(lost[INDEX])
        assert found[HISTORIES] == lost[HISTORIES]
        assert read_run(spec.out)["id"] == json.loads(lost[RUN])["id"]


def test_what_was_brought_home_and_went_on_is_not_replaced(run, tmp_path):
    keep(run, "kept")
    fetch("kept", tmp_path / "home")
    spec = spec_of(tmp_path / "home")
    with open_run(spec, members(spec), ["y"], force=True):
        pass
    before = snapshot(tmp_path / "home")
    with pytest.raises(UserError, match="is the run's own directory"):
        fetch("kept", tmp_path / "home")
    assert snapshot(tmp_path / "home") == before
