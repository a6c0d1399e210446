"""Data sets at URIs: copied once, whole or not at all, and mapped from this machine ever after."""

import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import ipc

from dr3_ray.data import Manifest, Provenance, SpaceSpec, episode_columns, load_dataset, write_dataset
from dr3_ray.data.cache import CACHE, cached, contents, prune, upload
from dr3_ray.data.embedded import embedded_path
from dr3_ray.data.machine import LIMIT, cache_folder, cache_limit
from dr3_ray.data.schema import MANIFEST
from dr3_ray.data.verification import seal
from dr3_ray.errors import UserError
from dr3_ray.remote import open_store

NAME = "breakout-replay"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def data(tmp_path) -> Path:
    return Path(shutil.copytree(embedded_path(NAME), tmp_path / "a data set"))


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def test_a_data_set_in_a_bucket_is_copied_once_and_then_needs_no_bucket(bucket, cache):
    here = load_dataset(f"embedded:{NAME}")
    pinned = upload(here.path, bucket("sweep"))
    assert upload(here.path, bucket("sweep")) == pinned
    assert pinned == bucket(f"sweep/data/{here.fingerprint}") + f"#{here.fingerprint}"
    there = load_dataset(bucket(f"sweep/data/{here.fingerprint}"))
    assert there.path == cache / here.fingerprint
    assert (there.fingerprint, len(there)) == (here.fingerprint, len(here))
    before = files(cache)
    load_dataset(pinned)
    filesystem, root = open_store(bucket("sweep"))
    filesystem.delete_dir(root)
    assert load_dataset(pinned).path == there.path
    assert files(cache) == before


def in_environment(variables: dict[str, str]) -> None:
    os.environ |= variables


def in_another_process(uri: str, start: "multiprocessing.synchronize.Barrier") -> tuple[str, int]:
    start.wait()
    path = cached(uri)
    return str(path), (path / MANIFEST).stat().st_ino


def test_of_many_that_ask_at_once_one_copies(data, cache):
    context = multiprocessing.get_context("forkserver")  # a fork of this process would find its locks as they are
    context.set_forkserver_preload(["dr3_ray.data.caching"])
    settings = {CACHE: os.environ[CACHE]}
    with context.Manager() as manager, context.Pool(4, in_environment, (settings,)) as pool:
        start = manager.Barrier(4)
        found = pool.starmap(in_another_process, [(data.as_uri(), start)] * 4)
    assert len(set(found)) == 1
    assert sorted(path.name for path in Path(found[0][0]).iterdir()) == sorted(path.name for path in data.iterdir())
    assert [each.path for each in contents()] == [Path(found[0][0])]


def test_a_copy_that_was_cut_short_is_made_again(data, cache):
    path = cached(data.as_uri())
    shard = next(path.glob("shard-*"))
    os.truncate(shard, 10)
    assert cached(f"{data.as_uri()}#{path.name}") == path
    assert shard.stat().st_size > 10
    (cache / f".copy-{path.name}-killed").mkdir()
    assert prune(unused=3600) == []
    assert not list(cache.glob(".copy-*"))


def test_other_contents_are_another_data_set_and_another_description_is_not(data, cache):
    path = cached(data.as_uri())
    manifest = json.loads((data / MANIFEST).read_text())
    (data / MANIFEST).write_text(json.dumps(manifest | {"environment": None}))
    assert load_dataset(data.as_uri()).manifest.environment is None
    (data / MANIFEST).write_text(json.dumps(manifest | {"counts": manifest["counts"] | {"rows": 1}}))
    with pytest.raises(UserError, match=f"holds other data: their fingerprint is .*, not {path.name}x"):
        cached(f"{data.as_uri()}#{path.name}x")
    with pytest.raises(UserError, match="counts 1 rows"):
        load_dataset(data.as_uri())
    assert len(contents()) == 3


def test_what_was_not_used_for_long_is_pruned_and_what_is_open_stays_readable(data):
    dataset = load_dataset(data.as_uri())
    os.utime(dataset.path, (0, time.time() - 3600))
    assert prune(unused=7200) == []
    assert [each.path for each in prune(unused=3000)] == [dataset.path]
    assert contents() == []
    assert len(dataset.episodes["returns"])
    assert load_dataset(data.as_uri()).path == dataset.path


def test_mistakes_leave_nothing_behind(data, bucket, cache, tmp_path):
    shard = next(data.glob("shard-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    for source, message in {
        data.as_uri(): "is damaged: it has another digest",
        (tmp_path / "none").as_uri(): "is not a data set",
        bucket("none"): "is not a data set",
        "nowhere://x": "is no store: give",
        bucket("x").replace("results", "nothing"): "is not a data set",
    }.items():
        with pytest.raises(UserError, match=message):
            load_dataset(source)
    shard.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load_dataset(data.as_uri())
    assert not [path for path in cache.rglob("*") if not path.name.startswith(".lock")]


def test_rows_that_a_manifest_does_not_name_are_no_copy(data, cache, tmp_path):
    """Other shards with right digests, under the fingerprint of these: the address means those rows and no others."""
    pinned = f"{data.as_uri()}#{seal(data).fingerprint}"
    with ipc.open_file(pa.py_buffer((shard := data / "shard-00000.arrow").read_bytes())) as file:
        batch = file.get_batch(0)
    place, rewards = batch.schema.get_field_index("rewards"), pa.array(batch["rewards"].to_numpy() + 1, pa.float32())
    with pa.OSFile(str(shard), "wb") as sink, ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch.set_column(place, batch.schema.field(place), rewards))
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["shards"][0] |= {"sha256": hashlib.sha256(shard.read_bytes()).hexdigest(), "bytes": shard.stat().st_size}
    (data / "manifest.json").write_text(Manifest.parse(json.dumps(manifest).encode(), data).sealed().text())
    assert f"{data.as_uri()}#{load_dataset(data).fingerprint}" == pinned
    with pytest.raises(UserError, match="its rows have another digest than the manifest says"):
        load_dataset(pinned)
    assert contents() == []


def test_a_full_disk_is_said(data, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        monkeypatch.setenv(CACHE, str(disk))
        with pytest.raises(UserError, match=r"no room left in .*/disk/data \(No space left on device\): dr3-ray data"):
            load_dataset(data.as_uri())
        assert not list(disk.rglob("*.arrow"))
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_the_command_line_shows_and_prunes(data, cli, tmp_path):
    where = {CACHE: str(tmp_path / "shown")}
    assert f"{where[CACHE]}/data is empty" in cli("cache", **where).stdout
    assert cli("info", data.as_uri(), **where).returncode == 0
    assert load_dataset(str(data)).fingerprint[:16] in cli("cache", **where).stdout
    assert cli("cache", "--prune", "1", **where).stdout.startswith("removed 0 data sets")
    assert cli("cache", "--prune", "0", **where).stdout.startswith("removed 1 data sets")


class TestALimit:
    @pytest.fixture
    def sets(self, bucket, tmp_path) -> list[str]:
        """URIs of four data sets of one size."""
        found = []
        for number in range(4):
            path = tmp_path / f"set-{number}"
            about = {"observation_space": SpaceSpec.box(0, 1, (3,)), "action_space": SpaceSpec.discrete(2)}
            rng = np.random.default_rng(number)
            episode = episode_columns(
                rng.random((51, 3), np.float32), rng.integers(0, 2, 50), rng.random(50, np.float32),
                terminated=True, truncated=False, episode_id=0, gamma=0.9,
            )  # fmt: skip
            write_dataset(path, [episode], **about, gamma=0.9, name=f"s{number}", provenance=Provenance(source="test"))
            found.append(upload(path, bucket("limit")))
        return found

    @pytest.fixture
    def size(self, sets) -> int:
        cached(sets[0])
        (one,) = contents()
        prune(0)
        return one.size

    def names(self):
        return [each.manifest.name for each in contents()]

    def test_the_least_recently_used_make_room(self, sets, size, monkeypatch):
        monkeypatch.setenv(LIMIT, f"{2 * size}")
        for number in (0, 1):
            cached(sets[number])
            time.sleep(0.02)
        cached(sets[0])  # is used again
        time.sleep(0.02)
        still = load_dataset(sets[1])
        cached(sets[0])
        time.sleep(0.02)
        cached(sets[2])
        assert self.names() == ["s2", "s0"]
        assert len(still.gather(torch.arange(50), ["rewards"])["rewards"]) == 50  # it is open: its pages stay
        monkeypatch.setenv(LIMIT, f"{size / 1e6 + 1e-6:.6f} MB")
        cached(sets[3])
        assert self.names() == ["s3"]

    def test_what_is_larger_than_the_limit_removes_nothing(self, sets, size, monkeypatch):
        cached(sets[0])
        monkeypatch.setenv(LIMIT, f"{size - 1}B")
        with pytest.raises(
            UserError, match=r"MB, and the cache of this machine may have .*: raise DR3_RAY_CACHE_LIMIT"
        ):
            cached(sets[1])
        assert self.names() == ["s0"]
        cached(sets[0])  # which is here, whatever the limit

    @pytest.mark.parametrize("asked", ["much", "5 bananas", "-1", "1e3", "GB", "1 000"])
    def test_no_size(self, sets, asked, monkeypatch):
        monkeypatch.setenv(LIMIT, asked)
        with pytest.raises(UserError, match="is no size: write 50GB"):
            cached(sets[0])

    @pytest.mark.parametrize(
        ("asked", "bytes_"), [("50GB", 50e9), ("1.5 T", 1.5e12), ("200k", 2e5), ("7", 7), ("", None)]
    )
    def test_sizes(self, asked, bytes_, monkeypatch):
        monkeypatch.setenv(LIMIT, asked)
        assert cache_limit() == bytes_
