"""Damaged data sets with right digests: opened, verified and read, or one line that says what is wrong."""

import hashlib
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.data import Provenance, SpaceSpec, episode_columns, load_dataset, verify, write_dataset
from dr3_ray.data.reader import Dataset
from dr3_ray.data.schema import MANIFEST, MANIFEST_BYTES
from tests.fuzz.child import survive
from tests.fuzz.damage import as_text, changed, damaged

FUZZ = settings(
    max_examples=int(os.environ.get("DR3_RAY_FUZZ", "20")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
SPACES = {
    "discrete": (SpaceSpec.box(0, 1, (3, 2), "bool"), SpaceSpec.discrete(4)),
    "box": (
        SpaceSpec(kind="dict", spaces={"a": SpaceSpec.box(-1, 1, (2,)), "b": SpaceSpec.box(0, 255, (3,), "uint8")}),
        SpaceSpec.box(-2, 2, (2,)),
    ),
    "frames": (SpaceSpec.box(0, 1, (4, 5, 5), "uint8"), SpaceSpec.discrete(4)),  # which are stored once
}


@pytest.fixture(params=SPACES)
def data(request, tmp_path):
    """A small data set of some shards."""
    observations, actions = SPACES[request.param]
    rng = np.random.default_rng(0)

    def observe(space, steps):
        if space.spaces:
            return {name: observe(part, steps) for name, part in space.spaces.items()}
        return rng.integers(0, 2, (steps + 1, *space.shape)).astype(space.dtype)

    def episode(number, steps):
        taken = rng.integers(0, 4, steps) if actions.n else rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
        rewards = rng.normal(size=steps).astype(np.float32)
        ends = {"terminated": number % 2 == 0, "truncated": number % 2 == 1}
        return episode_columns(observe(observations, steps), taken, rewards, **ends, episode_id=number, gamma=0.9)

    write_dataset(
        tmp_path / "data",
        [episode(number, steps) for number, steps in enumerate((6, 1, 5, 2))],
        observation_space=observations,
        action_space=actions,
        gamma=0.9,
        name="x",
        provenance=Provenance(source="test"),
        rows_per_shard=5,
    )
    return tmp_path / "data"


def read_all(path):
    """Whatever a user does with a data set; also without the manifest's digest, which would hide what follows."""
    for accept in (False, True):
        try:
            dataset = Dataset(path, accept=accept)
            dataset.gather(torch.arange(len(dataset)), dataset.columns)
            verify(dataset)
        except ValueError:
            if accept:
                raise
    load_dataset(path, gamma=0.5)


def reseal(path, file):
    """Make the manifest's digest and size of a file right."""
    manifest = json.loads((path / MANIFEST).read_text())
    content = (path / file).read_bytes()
    frames = [frames for entry in manifest["shards"] for frames in entry.get("frames", ())]
    for entry in (*manifest["shards"], *frames, manifest["episodes"]):
        if entry["file"] == file:
            entry |= {"bytes": max(1, len(content)), "sha256": hashlib.sha256(content).hexdigest()}
    (path / MANIFEST).write_text(json.dumps(manifest))


@FUZZ
@given(change=st.data())
def test_manifests(data, change):
    content = (data / MANIFEST).read_bytes()
    try:
        new = change.draw(damaged(content) | changed(json.loads(content)).map(as_text))
        (data / MANIFEST).write_bytes(new)
        assert survive(lambda: read_all(data)) is None
    finally:
        (data / MANIFEST).write_bytes(content)


@FUZZ
@given(kind=st.sampled_from(["shard-00000.arrow", "episodes.arrow", "shard-00000*.arrow"]), change=st.data())
def test_shards_their_frames_and_episodes(data, kind, change):
    file = min(path.name for path in data.glob(kind))
    content, manifest = (data / file).read_bytes(), (data / MANIFEST).read_bytes()
    try:
        (data / file).write_bytes(change.draw(damaged(content)))
        reseal(data, file)
        assert survive(lambda: read_all(data)) is None
    finally:
        (data / file).write_bytes(content)
        (data / MANIFEST).write_bytes(manifest)


def bomb(path):
    """A shard of 300 MB of zeros that zstd makes very small."""
    manifest = json.loads((path / MANIFEST).read_text())
    file = path / manifest["shards"][0]["file"]
    with pa.memory_map(str(file)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    rows = 3_000_000
    batch = batch.take(pa.array(np.zeros(rows, np.int64)))
    with pa.OSFile(str(path / "new"), "wb") as sink:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, batch.schema, options=options) as writer:
            writer.write_batch(batch)
    (path / "new").rename(file)
    assert file.stat().st_size < 2**21
    manifest["shards"][0]["rows"] = rows
    (path / MANIFEST).write_text(json.dumps(manifest))
    reseal(path, file.name)


def edited(change):
    def edit(path):
        manifest = json.loads((path / MANIFEST).read_text())
        change(manifest)
        (path / MANIFEST).write_text(json.dumps(manifest))

    return edit


def many(manifest):
    manifest["shards"] = [manifest["shards"][0] | {"file": f"shard-{n:05d}.arrow"} for n in range(90_000)]


LARGE = {
    "a compressed shard": bomb,
    "90,000 shards": edited(many),
    "9,999 shards of one file": edited(lambda m: m.update(shards=[m["shards"][0]] * 9999)),
    "a name of 100 MB": edited(lambda m: m.update(name="x" * 100_000_000)),
    "a long name": edited(lambda m: m.update(name="x" * 1000)),
    "a name with a bell": edited(lambda m: m.update(name="x\a")),
    "a file of 1 TB": lambda path: os.truncate(path / MANIFEST, 2**40),
    "a sea of brackets": lambda path: (path / MANIFEST).write_bytes(b"[" * (MANIFEST_BYTES - 1)),
    "a list of objects": lambda path: (path / MANIFEST).write_bytes(b"[" + b"{}," * (MANIFEST_BYTES // 3 - 9) + b"1]"),
    "a huge number": edited(lambda m: m["counts"].update(rows=10**4000)),
    "a huge shape": edited(lambda m: m["action_space"].update(kind="box", shape=[10**9] * 9)),
    "a wide shape": edited(lambda m: m["action_space"].update(kind="box", shape=[2**26])),
    "many rows": edited(lambda m: (m["counts"].update(rows=2**53), m["shards"][0].update(rows=2**53))),
}  # fmt: skip


@pytest.mark.spread(3)
@pytest.mark.parametrize("case", LARGE)
def test_what_would_take_all_memory_or_time_is_refused(data, case, tmp_path):
    LARGE[case](data)
    assert survive(lambda: read_all(data)) is None
    with pytest.raises(ValueError):
        load_dataset(data)
    shutil.rmtree(data)
