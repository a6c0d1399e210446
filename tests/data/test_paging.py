"""Which bytes of files rows lie in, what a read-ahead holds of them, and how much memory there is."""

import os
from mmap import PAGESIZE
from pathlib import Path

import numpy as np
import pytest
import torch

from dr3_ray.data import load_dataset, write_dataset
from dr3_ray.data.paging import runs_of
from dr3_ray.data.read_ahead import ReadAhead, warn_of_size
from dr3_ray.data.window import Window
from dr3_ray.process.memory import memory_limit

PENDULUM = "embedded:pendulum-replay"
COLUMNS = ("observations", "rewards", "terminateds", "next_observations")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Write the rows of a data set in shards of odd sizes."""
    about = ("observation_space", "action_space", "name", "provenance")
    source, target = load_dataset(PENDULUM), tmp_path_factory.mktemp("data") / "shards"
    rows = source.stored(0, 5000)
    episodes = np.split(np.arange(5000), np.flatnonzero(np.diff(rows["episode_ids"])) + 1)
    write_dataset(
        target, [{name: values[each] for name, values in rows.items()} for each in episodes], rows_per_shard=1237,
        **{name: getattr(source.manifest, name) for name in about},
        gamma=source.gamma,
    )  # fmt: skip
    return target


def test_extents_are_the_bytes_of_the_rows(shards: Path):
    data = load_dataset(shards)
    for rows in (np.arange(1200, 1300), np.array([0, 1, 2, 1236, 1237, 3000, 3001, 4999])):
        found: dict[str, bytes] = {name: b"" for name in ("observations", "rewards")}
        for name in found:
            for file, starts, stops in data.extents(*runs_of(rows), [name]):
                content = file.path.read_bytes()
                found[name] += b"".join(content[start:stop] for start, stop in zip(starts, stops, strict=True))
            wanted = data._select(rows, [name])[name]
            assert found[name] == wanted.tobytes()
        bits = list(data.extents(*runs_of(rows), ["terminateds"]))
        assert sum(int((stops - starts).sum()) for _, starts, stops in bits) * 8 >= len(rows)
    assert not list(load_dataset(shards, gamma=0.5).extents(*runs_of(np.arange(9)), ["monte_carlo_returns"]))


@pytest.mark.parametrize("words", ["", "?split=train", "?take=uniform:0.3"])
@pytest.mark.parametrize("n_step", [1, 5])
def test_what_is_held_are_the_pages_of_the_window(shards: Path, words: str, n_step: int):
    data = load_dataset(f"{shards}{words}")
    window = Window((len(data),), 800, data.row_bytes, 16)
    (walk,) = window.walks
    held = ReadAhead(data, COLUMNS, [walk], n_step)
    whole = held._pages.wanted
    for step in (0, 3, 200, 90, 1000):  # to and fro
        held.hold(window.places(step, 2))
        table = window.table(step, torch.device("cpu"))
        rows = table.row(torch.arange(int(table.rows[0])), torch.tensor(0))
        for lying, there in data.on_disk(np.unique(rows)):
            for file, starts, stops in lying.extents(*runs_of(there), held._columns):
                for start, end in zip(starts, stops, strict=True):
                    assert (held._pages._wanted[file][start // PAGESIZE : -(-end // PAGESIZE)] > 0).all()
    held.hold([(0, 1)])
    held._reader.submit(lambda: None).result()
    assert held._pages.wanted < whole + 6 * PAGESIZE * 2 * (2 + walk.length // 8) * (20 if "uniform" in words else 1)
    for place in list(held._held[0]):
        held._let_go(walk, place)
    assert held._pages.wanted == whole
    with held.holding(torch.tensor([3, 3, 1, 900])):
        assert held._pages.wanted > whole
    held._reader.submit(lambda: None).result()
    assert held._pages.wanted == whole


def test_what_does_not_fit_is_told_with_a_remedy():
    data = load_dataset(PENDULUM)
    with pytest.warns(UserWarning, match=r"pendulum-replay takes .* GiB and there are .* shuffle_window=2000 draws"):
        warn_of_size(data, COLUMNS, 0, limit=300_000)
    with pytest.warns(UserWarning, match=r"a window of 15,000 rows takes"):
        warn_of_size(data, COLUMNS, 15_000, limit=300_000)
    warn_of_size(data, COLUMNS, 5000, limit=300_000)  # warnings are errors here
    warn_of_size(data, COLUMNS, 0)


def test_memory_is_the_least_of_machine_and_groups(tmp_path: Path):
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    own = tmp_path / "own"
    assert memory_limit(tmp_path, own) == machine
    own.write_text("4:memory:/a/b\n0::/\n")
    old = tmp_path / "memory"
    for folder, limit in ((old, 2**63 - 4096), (old / "a", 5_000_000), (old / "a/b", 7_000_000)):
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    assert memory_limit(tmp_path, own) == 5_000_000
    own.write_text("0::/c\n")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/memory.max").write_text("max\n")
    assert memory_limit(tmp_path, own) == machine
    (tmp_path / "c/memory.max").write_text("4096\n")
    assert memory_limit(tmp_path, own) == 4096
