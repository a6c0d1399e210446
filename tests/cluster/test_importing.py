"""An import by Ray's tasks writes what one process writes, and goes on as that does."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import ray

from dr3_ray.cluster.importing import written_by_ray
from dr3_ray.data import load_dataset
from dr3_ray.data.importers import open_source
from dr3_ray.data.importers.source import Options
from dr3_ray.data.importers.writing import import_source
from dr3_ray.data.leftovers import leftovers
from dr3_ray.data.schema import MANIFEST, PARTIAL
from dr3_ray.errors import UserError
from dr3_ray.process.folders import CACHE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture(scope="module")
def cluster():
    """A Ray with two CPUs."""
    ray.shutdown()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Forty episodes in the layout of D4RL, wide enough for observations to be stored once, by a relative path."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 12, 40)
    rows, ends = int(lengths.sum()), np.cumsum(lengths) - 1
    with h5py.File("rows.hdf5", "w") as file:
        file["observations"] = rng.normal(size=(rows, 16)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
        file["rewards"] = rng.normal(size=rows).astype(np.float32)
        file["terminals"] = np.isin(np.arange(rows), ends)
        file["timeouts"] = np.zeros(rows, bool)
    return "rows.hdf5"


def write(source, out, **options):
    return import_source(partial(open_source, source, Options()), out, identity=source, rows_per_shard=20, **options)


def contents(folder):
    """All files, and of the manifest all but when and how it was written."""
    found = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    manifest = json.loads(found[MANIFEST])
    del manifest["provenance"]["created"], manifest["provenance"]["command"], manifest["digests"]["manifest"]
    return found | {MANIFEST: manifest}


def test_tasks_write_what_one_process_writes_and_go_on(cluster, source):
    write(source, "one")
    write(source, "tasks", workers=3, spread=written_by_ray)
    assert contents("one") == contents("tasks") and len(load_dataset("tasks").manifest.shards) > 6

    told = []

    def stop(_):
        told.append(1)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(source, "again", workers=2, spread=written_by_ray, progress=lambda _: stop)
    assert len(leftovers()) == 1
    write(source, "again", workers=2, spread=written_by_ray)
    assert contents("one") == contents("again")
    assert leftovers() == [] and not list(Path.cwd().glob(f"*{PARTIAL}"))


def test_what_is_wrong_with_a_part_is_the_line_of_an_import_here(cluster, source):
    with h5py.File(source, "a") as file:
        file["rewards"][100] = np.nan
    said = []
    for how in ({}, {"workers": 2, "spread": written_by_ray}):
        with pytest.raises(UserError) as refused:
            write(source, "out", **how)
        said.append(str(refused.value))
    assert said[0] == said[1] and "episode" in said[0]
    assert not list(Path.cwd().glob("*out*"))


def test_the_command_asks_the_cluster_of_ray_address(cluster, source):
    """From another process, as people give it; a path counts from the folder where it is given."""
    command = [sys.executable, "-m", "dr3_ray", "data", "import", source, "--out", "out", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"RAY_ADDRESS": cluster})
    assert done.returncode == 0, done.stderr
    assert f"up to 2 tasks of the Ray cluster at {cluster} import" in done.stderr
    import_source(partial(open_source, source, Options()), "here")
    assert contents("here") == contents("out")
