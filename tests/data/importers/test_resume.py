"""An import that is killed at any moment goes on where it was, and several processes write what one writes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dr3_ray.data import load_dataset, verify
from dr3_ray.data.importers import open_source
from dr3_ray.data.importers.journal import JOURNAL
from dr3_ray.data.importers.source import Options
from dr3_ray.data.importers.writing import import_source
from dr3_ray.data.leftovers import leftovers
from dr3_ray.data.schema import MANIFEST, PARTIAL
from dr3_ray.errors import UserError
from dr3_ray.process.folders import CACHE
from tests.data.importers.conftest import write_minari

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ROWS = 10  # of a shard
LENGTHS = (3, 1, 5, 2, 2, 9, 20, 1, 4, 6)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))


@pytest.fixture
def make_source(tmp_path, make_rows, minari_home):
    rows, episodes = make_rows(LENGTHS, width=16)  # enough for observations to be stored once

    def d4rl():
        with h5py.File(tmp_path / "flat.hdf5", "w") as file:
            for name in ("observations", "actions", "rewards"):
                file[name] = rows[name]
            file["terminals"], file["timeouts"] = rows["terminateds"], rows["truncateds"]
        return tmp_path / "flat.hdf5"

    def npz():
        """Next observations that lead elsewhere: there an episode is cut in two."""
        jumping = rows["next_observations"].copy()
        jumping[[4, 30]] += 1
        np.savez_compressed(tmp_path / "rows.npz", **rows | {"next_observations": jumping})
        return tmp_path / "rows.npz"

    def table():
        flat = {f"{name}_{i}": rows[f"{name}s"][:, i] for name in ("observation", "action") for i in range(2)}
        return pa.table(flat | {"reward": rows["rewards"], "episode": np.repeat(np.arange(len(LENGTHS)), LENGTHS)})

    def parquet():
        pq.write_table(table(), tmp_path / "rows.parquet", row_group_size=4)
        return tmp_path / "rows.parquet"

    def csv():
        table().to_pandas().to_csv(tmp_path / "rows.csv", index=False)
        return tmp_path / "rows.csv"

    def robomimic():
        with h5py.File(tmp_path / "demos.hdf5", "w") as file:
            for number, (observations, actions, rewards, *_) in enumerate(episodes):
                demo = file.create_group(f"data/demo_{number}")
                demo["obs/state"], demo["actions"], demo["rewards"] = observations[:-1], actions, rewards
                demo["dones"] = np.arange(len(rewards)) == len(rewards) - 1
        return tmp_path / "demos.hdf5"

    def minari_id():
        clipped = [(observations, actions.clip(-1, 1), *rest) for observations, actions, *rest in episodes]
        write_minari("some/rows-v0", clipped)
        return "minari:some/rows-v0"

    makers = {
        "d4rl": d4rl,
        "npz": npz,
        "parquet": parquet,
        "csv": csv,
        "robomimic": robomimic,
        "minari": minari_id,
    }
    return lambda kind: str(makers[kind]())


def write(source, out, workers=1, **options):
    opened = partial(open_source, source, Options())
    return import_source(opened, out, identity=source, workers=workers, rows_per_shard=ROWS, **options)


def contents(folder):
    """All files, and of the manifest all but when it was written."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = json.loads(found[MANIFEST])
    del manifest["provenance"]["created"], manifest["digests"]["manifest"]
    return found | {MANIFEST: manifest}


# A process forks one child after the other. Each imports, and kills itself before its n-th change of a folder.
KILLED = """
import os, random, signal, sys
import gymnasium, h5py, minari.serialization, pyarrow.dataset, pyarrow.parquet, scipy.signal  # once, not in each child
import dr3_ray.data.importers.d4rl, dr3_ray.data.importers.minari, dr3_ray.data.importers.plain
import dr3_ray.data.importers.robomimic
from tests.data.importers.test_resume import write

source, out, seed = sys.argv[1:]
draw = random.Random(int(seed))
changes = {"open", "os.rename", "os.remove", "os.mkdir"}

def attempt(limit):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = 0
    def kill(event, args):
        nonlocal count
        if event in changes and ".partial" in str(args[0]):
            count += 1
            if count >= limit:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(kill)
    try:
        write(source, out)
        os._exit(0)
    finally:
        os._exit(1)  # and not on with the parent's loop

codes = []
while not codes or codes[-1] == -signal.SIGKILL:
    codes.append(attempt(draw.randint(3, 12 if len(codes) < 3 else 15 * len(codes))))
    print(codes[-1], flush=True)
"""


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("d4rl", "a new folder"),
        ("minari", "an empty folder"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("csv", "a new folder"),
                ("npz", "an empty folder"),
                ("parquet", "a new folder"),
                ("robomimic", "an empty folder"),
            )
        ),
    ],
)
def test_an_import_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path, make_source, kind, where):
    """Into an empty folder the files move one by one."""
    source, out = make_source(kind), tmp_path / "out"
    write(source, tmp_path / "whole")
    if where == "an empty folder":
        out.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", KILLED, source, str(out), str(len(kind))]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    codes = [int(line) for line in result.stdout.split()]
    assert len(codes) > 2 and set(codes) == {0, -signal.SIGKILL} and codes[-1] == 0
    assert contents(out) == contents(tmp_path / "whole")
    assert not list(tmp_path.rglob(f"*{PARTIAL}")) and leftovers() == []
    verify(load_dataset(tmp_path / "whole"))
    assert kind in ("csv", "parquet") or any(shard.frames for shard in load_dataset(out).manifest.shards)


def stop_after(parts):
    """What is told rows, and interrupts the import when so many parts have been written."""

    def told(_):
        (journal,) = Path.cwd().glob(f".*{PARTIAL}/{JOURNAL}")
        if len(journal.read_text().splitlines()) > parts:
            raise KeyboardInterrupt

    return lambda _: told


def test_parts_that_are_whole_are_not_written_again(tmp_path, monkeypatch, make_source):
    monkeypatch.chdir(tmp_path)
    source = make_source("minari")
    with pytest.raises(KeyboardInterrupt):
        write(source, "out", progress=stop_after(2))
    (left,) = leftovers()
    kept = {path.stat().st_ino for path in left.path.glob("part-0000[01]-*.arrow")}
    told = []
    write(source, "out", progress=lambda rows: told.append(rows) or told.append)
    assert kept and kept <= {path.stat().st_ino for path in Path("out").iterdir()}
    assert told[0] == sum(told[1:]) == sum(LENGTHS) and leftovers() == []


@pytest.mark.parametrize("change", ["another option", "another source", "a damaged journal", "a part cut short"])
def test_what_is_no_part_of_the_same_import_does_not_count(tmp_path, monkeypatch, make_source, change):
    monkeypatch.chdir(tmp_path)
    source = make_source("d4rl")
    with pytest.raises(KeyboardInterrupt):
        write(source, "out", progress=stop_after(3))
    (left,) = leftovers()
    options = {}
    if change == "another option":
        options = {"gamma": 0.5}
    elif change == "another source":
        with h5py.File(source, "a") as file:
            file["rewards"][...] += 1
    elif change == "a damaged journal":
        (left.path / JOURNAL).write_bytes((left.path / JOURNAL).read_bytes()[5:])
    else:
        os.truncate(left.path / "part-00001-00000.arrow", 100)
    write(source, "out", **options)
    write(source, "whole", **options)
    assert contents(Path("out")) == contents(Path("whole"))


def test_one_process_at_a_time(tmp_path, make_source):
    source = make_source("d4rl")

    def progress(_):
        with pytest.raises(UserError, match=r"another process is writing to .*: wait for it, or end it"):
            write(source, tmp_path / "out")
        return lambda _: None

    write(source, tmp_path / "out", progress=progress)
    assert len(load_dataset(tmp_path / "out")) == len(load_dataset(tmp_path / "out").stored(0, 10**6)["rewards"])


def test_a_source_that_changes_while_it_is_read(tmp_path, make_source):
    source = make_source("npz")

    def told(_):
        os.utime(source, (1, random.random() * 10**9))

    with pytest.raises(UserError, match="changed while it was read: import it when nothing writes to it"):
        write(source, tmp_path / "out", progress=lambda _: told)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(f".*{PARTIAL}"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["d4rl", "npz", "parquet", "minari"])
def test_several_processes_write_what_one_writes(tmp_path, make_source, kind):
    source = make_source(kind)
    write(source, tmp_path / "one")
    write(source, tmp_path / "three", workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert len(load_dataset(tmp_path / "three").manifest.shards) > 3


def test_workers_for_a_source_that_has_one_order(tmp_path, make_source):
    with pytest.raises(UserError, match="rows can be read in its order alone: leave out --workers"):
        write(make_source("csv"), tmp_path / "out", workers=2)


PARALLEL = """
import sys
from tests.data.importers.test_resume import write
if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], workers=2)
"""


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path, make_source):
    source = make_source("d4rl")
    write(source, tmp_path / "whole")
    (tmp_path / "script.py").write_text(PARALLEL)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-W", "ignore", str(tmp_path / "script.py"), source, str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        while not list(tmp_path.glob(f".out*{PARTIAL}/part-*")) and process.poll() is None:
            time.sleep(0.001)
        process.kill()
    deadline = time.monotonic() + 60
    while _living(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _living(process.pid)
    if not (tmp_path / "out").exists():
        write(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def _living(session):
    """The processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(stat.parent.name)
    return found
