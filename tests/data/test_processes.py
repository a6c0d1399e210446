"""What only shows between processes: crashes while writing, pages shared while reading, memory that stays bounded."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dr3_ray.data import load_dataset, verify
from dr3_ray.errors import UserError

WRITE = """
import sys
import numpy as np
from dr3_ray.data import Provenance, SpaceSpec, episode_columns, write_dataset

folder, episodes, steps, width, rows_per_shard = sys.argv[1], *map(int, sys.argv[2:])

def columns():
    for index in range(episodes):
        print(index, flush=True)
        observations = index + np.arange((steps + 1) * width, dtype=np.float32).reshape(steps + 1, width)
        yield episode_columns(observations, np.zeros(steps, int), np.ones(steps), terminated=True, truncated=False,
                              episode_id=index, gamma=0.9)

for number in range(10_000 if episodes < 100 else 1):
    write_dataset(f"{folder}/{number}", columns(), observation_space=SpaceSpec.box(-1, 1, (width,)),
                  action_space=SpaceSpec.discrete(2), gamma=0.9, name="crash", provenance=Provenance(source="test"),
                  rows_per_shard=rows_per_shard)
"""


@pytest.fixture
def python():
    """Starts Python code in a process of its own, one thread, lines from its stdout."""
    started = []

    def start(code, *args):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)],
            env=os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 150, 999])
def test_a_crash_while_writing_leaves_nothing_that_opens(python, tmp_path, after):
    writer = python(WRITE, tmp_path, 1_000_000, 100, 50, 2000)
    while int(writer.stdout.readline()) < after:
        pass
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert re.fullmatch(r"\.0\.\w{8}\.partial", left.name) and not (left / "manifest.json").exists()
    for path in (left, tmp_path / "0"):
        with pytest.raises(UserError):
            load_dataset(path)


@pytest.mark.slow
def test_a_crash_at_any_moment_leaves_whole_data_sets_only(python, tmp_path):
    """Small data sets in quick succession, so that most kills hit the moments around the manifest and the rename."""
    rng = np.random.default_rng(0)
    for run in range(3):
        (tmp_path / str(run)).mkdir()
        writer = python(WRITE, tmp_path / str(run), 2, 3, 4, 4)
        while not (tmp_path / str(run) / "3").exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        names = [entry.name for entry in (tmp_path / str(run)).iterdir()]
        whole = [name for name in names if not name.endswith(".partial")]
        assert len(whole) > 3 and len(names) - len(whole) <= 1
        for name in names:
            path = tmp_path / str(run) / name
            if name in whole:
                verify(load_dataset(path))
            else:
                with pytest.raises(UserError, match=r"interrupted write|not a data set"):
                    load_dataset(path)


READ = """
import sys, torch
from dr3_ray.data import load_dataset

dataset = load_dataset(sys.argv[1])
for rows in torch.arange(len(dataset)).split(256):
    dataset.gather(rows, dataset.columns)
print("read", flush=True)
sys.stdin.readline()
mapped = None
total = {"Rss": 0, "Pss": 0, "Private_Dirty": 0, "Anonymous": 0}
for line in open("/proc/self/smaps"):
    fields = line.split()
    if "-" in fields[0]:
        mapped = fields[-1].endswith("shard-00000.arrow")
    elif mapped and fields[0][:-1] in total:
        total[fields[0][:-1]] += int(fields[1]) * 1024
print(*total.values(), flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_processes_share_the_pages_of_a_data_set(python, make_dataset):
    path, _ = make_dataset(lengths=(100_000,) * 6, observation="bool", rows_per_shard=10**6)
    size = (path / "shard-00000.arrow").stat().st_size
    assert size > 20e6
    readers = [python(READ, path) for _ in range(2)]
    for reader in readers:
        assert reader.stdout.readline() == "read\n"
    for reader in readers:  # only now, when both have read everything
        reader.stdin.write("\n")
        reader.stdin.flush()
        resident, proportional, dirty, anonymous = map(int, reader.stdout.readline().split())
        assert resident > 0.95 * size
        assert proportional == pytest.approx(resident / 2, rel=0.02)  # each page is counted half: there is one of it
        assert dirty == anonymous == 0


@pytest.mark.slow
def test_writing_needs_the_memory_of_one_shard(python, tmp_path):
    measure = WRITE + "import resource\nprint('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)\n"
    peaks = []
    for episodes in (100, 400):  # of 0.4 MB each, in shards of 4 MB, observations once
        output, _ = python(measure, tmp_path / str(episodes), episodes, 1000, 100, 10_000).communicate()
        peaks.append(int(output.split("peak ")[1]) / 1024)
    written = sum(entry.bytes for entry in load_dataset(tmp_path / "400/0").manifest.files) / 2**20
    assert written > 150 and peaks[1] - peaks[0] < 15, (written, peaks)
