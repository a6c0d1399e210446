"""Checkpoints on a disk and in an object store: whole or not there, and few."""

import subprocess
import sys
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from dr3_ray.errors import UserError
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.digests import MANIFEST
from dr3_ray.runs.storage import claim
from tests.room import files_up_to


@pytest.fixture(params=["disk", "store"])
def storage(request, tmp_path) -> str:
    return str(tmp_path / "storage") if request.param == "disk" else request.getfixturevalue("bucket")(tmp_path.name)


def writing(text: str):
    def write(directory: str) -> None:
        (Path(directory) / "deep").mkdir()
        (Path(directory) / "deep" / "state").write_text(text)

    return write


def read(kept: Checkpoints) -> list[str]:
    found: list[str] = []
    kept.load(lambda directory: found.append((Path(directory) / "deep" / "state").read_text()))
    return found


def listing(storage: str) -> dict[str, list[str]]:
    """Files of each checkpoint."""
    filesystem, root = pafs.FileSystem.from_uri(storage)
    found: dict[str, list[str]] = {}
    for info in filesystem.get_file_info(pafs.FileSelector(f"{root}/checkpoints/pack", recursive=True)):
        if info.is_file:
            name, _, file = info.path.partition("/checkpoints/pack/")[2].partition("/")
            found.setdefault(name, []).append(file)
    return found


def test_the_last_two_stay_and_at_the_end_one(storage):
    claim(storage, "id", "here")
    kept = Checkpoints(storage, "pack", "id")
    assert read(kept) == []
    for step in (90, 100, 1000):
        kept.save(step, writing(f"after {step}"))
    assert read(Checkpoints(storage, "pack", "id")) == ["after 1000"]
    assert listing(storage).keys() == {"0000000100", "0000001000"}
    kept.save(1000, writing("again"))
    assert read(kept) == ["again"]
    kept.save(1100, writing("the end"), kept=1)
    assert listing(storage).keys() == {"0000001100"}
    assert read(Checkpoints(storage, "other", "id")) == []


def test_those_that_are_to_stay_do_and_are_read_by_their_updates(storage):
    claim(storage, "id", "here")
    kept = Checkpoints(storage, "pack", "id")
    for step in (100, 200, 300, 400):
        kept.save(step, writing(f"after {step}"), stay={100, 200, 400})
    assert kept.updates() == [100, 200, 300, 400] and read(kept) == ["after 400"]
    kept.save(500, writing("the end"), kept=1, stay={100, 200})
    assert listing(storage).keys() == {f"{step:010d}" for step in (100, 200, 500)}
    found: list[str] = []
    for step in (100, 300, 500):
        kept.load_at(step, lambda at: found.append((Path(at) / "deep" / "state").read_text()))
    assert found == ["after 100", "the end"]
    filesystem, root = pafs.FileSystem.from_uri(storage)
    filesystem.delete_file(f"{root}/checkpoints/pack/0000000100/deep/state")
    kept.load_at(100, lambda at: found.append(at))
    assert len(found) == 2 and kept.updates() == [100, 200, 500]  # it is there, and not whole


@pytest.mark.parametrize("damage", ["cut", "changed", "file missing", "manifest missing", "manifest cut"])
def test_one_that_is_not_whole_is_passed_over(storage, damage):
    claim(storage, "id", "here")
    kept = Checkpoints(storage, "pack", "id")
    kept.save(1, writing("first"))
    kept.save(2, writing("second"))
    filesystem, root = pafs.FileSystem.from_uri(storage)
    last = f"{root}/checkpoints/pack/0000000002"
    name = f"{last}/{MANIFEST}" if "manifest" in damage else f"{last}/deep/state"
    if "missing" in damage:
        filesystem.delete_file(name)
    else:
        with filesystem.open_input_stream(name) as file:
            content = file.read()
        with filesystem.open_output_stream(name) as file:
            file.write(content[:-3] + (b"xxx" if damage == "changed" else b""))
    assert read(kept) == ["first"]
    assert listing(storage).keys() == {"0000000001"}


def test_a_save_that_is_cut_short_leaves_the_one_before(tmp_path):
    """The process dies between two files, and the disk is full at the second one."""
    storage = str(tmp_path)
    claim(storage, "id", "here")
    kept = Checkpoints(storage, "pack", "id")
    kept.save(1, writing("first"))

    def die(directory: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.save(2, die)
    assert len(list((tmp_path / "checkpoints" / "pack").iterdir())) == 2
    assert read(kept) == ["first"]
    assert [path.name for path in (tmp_path / "checkpoints" / "pack").iterdir()] == ["0000000001"]

    full = r"no room left for checkpoints in .*/pack \(File too large\): make some"
    with files_up_to(1000), pytest.raises(UserError, match=full):
        kept.save(2, writing("x" * 2000))
    assert [path.name for path in (tmp_path / "checkpoints" / "pack").iterdir()] == ["0000000001"]
    assert read(kept) == ["first"]


def test_storage_belongs_to_one_sweep(storage):
    claim(storage, "mine", "/runs/mine")
    claim(storage, "mine", "/runs/mine")
    with pytest.raises(UserError, match="belongs to the sweep in /runs/mine: give this one another --storage"):
        claim(storage, "yours", "/runs/yours")
    with pytest.raises(UserError, match="does not see the sweep's storage"):
        Checkpoints(storage, "pack", "yours")


def test_storage_that_this_machine_does_not_see(tmp_path):
    with pytest.raises(UserError, match="share, or --checkpoint-every 0"):
        Checkpoints(str(tmp_path), "pack", "id")


@pytest.mark.parametrize("where", ["/proc/nowhere", "nonsense://x"])
def test_storage_that_cannot_be_used(where):
    with pytest.raises(UserError, match=r"storage .* cannot be used") as error:
        claim(where, "id", "here")
    assert "\n" not in str(error.value)


def test_reading_needs_no_ray():
    code = "import sys, dr3_ray.runs.checkpoints; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
