"""One table of histories: complete, tidy, readable at any moment."""

import math
import os
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from dr3_ray.errors import UserError
from dr3_ray.sweep.histories import HISTORIES, PAUSE, SHARE, Histories, read_histories

CONFIGS = {
    "a": {"algorithm": "DR3-CQL", "dataset": "d", "seed": 0, "dr3_coeff": 0.0, "hidden_sizes": [8]},
    "b": {"algorithm": "BC", "dataset": "d", "seed": 1, "dr3_coeff": 0.0, "hidden_sizes": [8, 8]},
}
COLUMNS = ("algorithm", "dataset", "seed", "dr3_coeff", "hidden_sizes")


def read(run):
    return read_histories(run).to_pandas()


@pytest.fixture
def run(tmp_path):
    histories = Histories(tmp_path, CONFIGS, COLUMNS)
    for step in (10, 20, 30):
        histories.add("a", step, {"time_s": step / 10, "episode_return_mean": float("nan"), "loss_critic": 1.0 / step})
        histories.add("b", step, {"time_s": step / 10, "episode_return_mean": 1.0, "loss_actor": 2.0})
    histories.flush()
    return tmp_path


def test_one_row_for_each_member_and_evaluation(run):
    table = read(run)
    first = ["member", *COLUMNS, "step", "time_s", "episode_return_mean"]
    assert list(table.columns) == [*first, "loss_actor", "loss_critic"]
    assert list(zip(table["member"], table["step"], strict=True)) == [(m, s) for m in "ab" for s in (10, 20, 30)]
    assert table["hidden_sizes"].map(list).tolist() == [[8]] * 3 + [[8, 8]] * 3
    assert table["loss_critic"].isna().tolist() == [False] * 3 + [True] * 3
    assert not [file for file in os.listdir(run) if file != HISTORIES]


def test_a_second_attempt_replaces_the_first_as_it_goes(run):
    histories = Histories(run, CONFIGS, COLUMNS)
    histories.load(again=["b"])
    histories.flush()
    assert len(read(run)) == 6  # what the failed attempt measured stays until there is something new
    histories.add("b", 10, {"episode_return_mean": 5.0, "loss_new": 1.0})
    histories.flush()
    table = read(run)
    assert table[table["member"] == "b"]["step"].tolist() == [10]
    assert table[table["member"] == "a"]["step"].tolist() == [10, 20, 30]
    assert table[table["member"] == "b"]["loss_new"].tolist() == [1.0]


def test_from_a_checkpoint_it_goes_on_where_that_was(run):
    histories = Histories(run, CONFIGS, COLUMNS)
    histories.load(again=["a"])
    histories.add("a", 30, {"loss_critic": 7.0})
    histories.settle(["a"])
    histories.flush()
    assert read(run).query("member == 'a'")["loss_critic"].tolist() == [1 / 10, 1 / 20, 7.0]


def test_axes_may_be_added_later(run):
    later = {member: config | {"double_q": True} for member, config in CONFIGS.items()}
    histories = Histories(run, later, (*COLUMNS, "double_q"))
    histories.load(again=[])
    histories.flush()
    assert read(run)["double_q"].all()


def test_the_file_can_be_read_at_any_moment(run):
    """A reader in a tight loop never sees anything but a complete table, and rows only get more."""
    stop = threading.Event()

    def rows() -> list[int]:
        seen = []
        while not stop.is_set():
            seen.append(len(read(run)))
        return seen

    reader = ThreadPoolExecutor().submit(rows)
    histories = Histories(run, CONFIGS, COLUMNS)
    histories.load(again=[])
    for step in range(40, 1040, 10):
        histories.add("a", step, {"loss_critic": 1.0})
        histories.flush()
    stop.set()
    seen = reader.result()
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert len(pd.read_parquet(run / HISTORIES)) == 106


def test_rewriting_stays_within_its_share_of_the_time(tmp_path):
    histories = Histories(tmp_path, CONFIGS, COLUMNS)
    histories.add("a", 1, {"loss_critic": 1.0})
    started = time.monotonic()
    assert histories.flush(force=False)
    cost = time.monotonic() - started
    histories.add("a", 2, {"loss_critic": 1.0})
    assert not histories.flush(force=False)
    assert len(read(tmp_path)) == 1
    assert histories._next - started == pytest.approx(max(PAUSE, cost / SHARE), rel=0.5)
    histories.flush()
    assert len(read(tmp_path)) == 2


def test_a_full_disk_leaves_the_last_complete_table(run):
    size = (run / HISTORIES).stat().st_size
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
        histories = Histories(run, CONFIGS, COLUMNS)
        try:
            histories.load(again=[])
            histories.add("a", 40, {"loss_critic": math.pi})
            histories.flush()
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(read(run)) == 6
    assert os.listdir(run) == [HISTORIES]


def test_a_damaged_file_is_told_and_left(run):
    (run / HISTORIES).write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match="move it away"):
        Histories(run, CONFIGS, COLUMNS).load(again=[])
    assert (run / HISTORIES).read_bytes() == b"PAR1 nonsense"
