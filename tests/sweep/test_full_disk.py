"""Disks that are full when a sweep starts: one line, and once there is room everything goes on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from dr3_ray.errors import UserError
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.directory import is_run, read_run
from dr3_ray.runs.index import read_index
from dr3_ray.runs.storage import OWNER, claim
from dr3_ray.sweep.directory import open_run, spec_of
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec

TINY = {"datasets": ["embedded:breakout-replay"], "coefficients": [0, 0.1, 0.3], "seeds": 20, "environment": "none"}
DISK = 64 * 4096


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small file system of its own."""
    made = tmp_path / "disk"
    made.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", made], capture_output=True).returncode:
        pytest.fail("small disks are mounted, which needs root in a privileged container: run these tests there")
    yield made
    subprocess.run(["umount", made], check=True)


def fill(disk: Path, left: int) -> None:
    """Leave so many pages of 4096 bytes."""
    (disk / "filler").write_bytes(b"x" * (DISK - 4096 * left))


def start(spec: SweepSpec) -> None:
    """What a sweep writes before it trains."""
    with open_run(spec, members(spec), ["x"]):
        claim(spec.checkpoints, read_run(spec.out)["id"], str(spec.out))


@pytest.mark.parametrize("resumed", [False, True])
def test_a_disk_that_is_full_at_any_moment_of_the_start(disk, resumed):
    spec = SweepSpec(**TINY, out=disk / "run")
    lines = set()
    for left in range(60):
        fill(disk, left)
        try:
            if resumed and is_run(spec.out):
                start(spec_of(spec.out))
            else:
                start(spec)
            lines.add("")
        except UserError as error:
            assert "\n" not in str(error)
            lines.add(str(error).partition(" ")[0])
        (disk / "filler").unlink()
        if is_run(spec.out):
            assert spec_of(spec.out) == spec
        if lines == {"no", ""}:
            break
    assert lines == {"no", ""}
    assert len(read_index(spec.out)) == 60
    assert sorted(path.name for path in disk.iterdir()) == ["run"]
    assert (disk / "run" / "checkpoints" / OWNER).stat().st_size


@pytest.fixture(params=["disk", "store"])
def storage(request, tmp_path) -> str:
    return str(tmp_path / "storage") if request.param == "disk" else request.getfixturevalue("bucket")(tmp_path.name)


def write(storage: str, name: str, content: bytes) -> None:
    filesystem, root = pafs.FileSystem.from_uri(storage)
    filesystem.create_dir(f"{root}/{name}".rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(f"{root}/{name}") as file:
        file.write(content)


DAMAGES = [b"", b"{", b"null", b"[]", b"{}", b'{"run": 1, "where": 2}', b'{"run": "mine"}', b"\xff", b"[" * 100_000]


@pytest.mark.parametrize("content", DAMAGES, ids=range(len(DAMAGES)))
def test_an_owner_that_a_full_disk_left_empty(storage, content):
    """It is taken over where nobody has anything there, or there is a copy of this run; else one line tells."""
    write(storage, f"checkpoints/{OWNER}", content)
    claim(storage, "mine", "/runs/mine")
    Checkpoints(storage, "pack", "mine")
    with pytest.raises(UserError, match="belongs to the sweep in /runs/mine"):
        claim(storage, "yours", "/runs/yours")

    write(storage, "checkpoints/pack/0000000001/manifest.json", b"{}")
    write(storage, f"checkpoints/{OWNER}", content)
    with pytest.raises(UserError, match="does not see the sweep's storage"):
        Checkpoints(storage, "pack", "mine")
    with pytest.raises(UserError, match=r"does not say whose it is .*: remove that file if no other") as error:
        claim(storage, "mine", "/runs/mine")
    assert "\n" not in str(error.value)
    write(storage, "run.json", b'{"id": "mine"}')
    with pytest.raises(UserError, match="does not say whose it is"):
        claim(storage, "yours", "/runs/yours")
    claim(storage, "mine", "/runs/mine")
    Checkpoints(storage, "pack", "mine")


def test_a_full_storage_is_one_line_and_no_half_an_owner(disk):
    fill(disk, 0)
    for again in range(2):
        with pytest.raises(UserError, match=r"cannot be used .*No space left on device.*: make room, and resume"):
            claim(str(disk / "kept"), "id", "here")
        assert not list(disk.rglob(OWNER)), again
    (disk / "filler").unlink()
    claim(str(disk / "kept"), "id", "here")
    Checkpoints(str(disk / "kept"), "pack", "id")


def test_a_moved_run_is_known_where_it_is_now(tmp_path):
    claim(str(tmp_path), "mine", "/runs/mine")
    claim(str(tmp_path), "mine", "/runs/moved")
    with pytest.raises(UserError, match="belongs to the sweep in /runs/moved"):
        claim(str(tmp_path), "yours", "/runs/yours")
