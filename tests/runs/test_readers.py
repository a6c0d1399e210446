"""What readers of histories are told: when they were written, who lacks rows, and what is damaged or lost."""

import time

import pyarrow.parquet as pq
import pytest

from dr3_ray.errors import UserError
from dr3_ray.runs.histories import HISTORIES, WRITTEN, Histories, histories_of, lacks_rows, read_histories, written_at


@pytest.fixture
def run(tmp_path):
    histories = Histories(tmp_path, {"a": {"seed": 0}, "b": {"seed": 1}}, ["seed"], {})
    for step in (10, 20, 30):
        histories.add("a", step, {"time_s": step / 10, "loss_critic": 1.0 / step})
        histories.add("b", step, {"time_s": step / 10, "loss_actor": 2.0})
    histories.flush()
    return tmp_path


def test_the_file_says_when_it_was_written(run):
    assert time.time() - 600 < written_at(run) <= time.time()
    table = read_histories(run)
    for metadata in ({}, {WRITTEN: "soon"}):
        pq.write_table(table.replace_schema_metadata(metadata), run / HISTORIES)
        assert written_at(run) == 0.0
    (run / HISTORIES).write_bytes(b"no table")
    assert written_at(run) == 0.0
    (run / HISTORIES).unlink()
    assert written_at(run) == 0.0


def test_no_rows_are_read_where_none_can_be_and_lost_ones_are_told(run):
    for ended in (False, True):
        assert histories_of(run, ("member", "step"), ended).column_names == ["member", "step"]
        assert len(histories_of(run, ("member", "step"), ended)) == 6
    (run / HISTORIES).write_bytes(b"no table")
    with pytest.raises(UserError, match=r"histories.parquet is damaged \(.*`dr3-ray sweep --resume .*` rebuilds it"):
        histories_of(run, ("member", "step"), ended=False)
    (run / HISTORIES).unlink()
    assert len(histories_of(run, ("member", "step"), ended=False)) == 0
    with pytest.raises(UserError, match=r"histories.parquet is missing: `dr3-ray sweep --resume .*` rebuilds it"):
        histories_of(run, ("member", "step"), ended=True)


@pytest.mark.parametrize(
    ("record", "least"),  # rows up to this step a member has to have; None: it need not have any
    [
        ({"status": "pending"}, None),
        ({"status": "running", "end": 20}, None),
        ({"status": "failed"}, None),
        ({"status": "finished", "end": 20}, 20),
        ({"status": "cut", "end": 20}, 20),
        ({"status": "finished"}, 50),
        ({"status": "finished", "config": {}}, 1),
        ({"status": "cut"}, 1),
        ({"status": "diverged"}, 1),
    ],
    ids=str,
)
def test_who_lacks_rows(record, least):
    record = {"member": "a", "config": {"steps": 50}} | record
    assert lacks_rows(record, {"b": 99}) == (least is not None)
    for step in (1, 19, 20, 49, 50):
        assert lacks_rows(record, {"a": step}) == (least is not None and step < least)


def test_no_flipped_bit_of_the_file_passes_for_another_number(run):
    columns = ("member", "step", "time_s", "loss_actor", "loss_critic")
    whole, table = (run / HISTORIES).read_bytes(), histories_of(run, columns, ended=True)
    for place in range(0, len(whole), max(1, len(whole) // 200)):
        (run / HISTORIES).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = histories_of(run, columns, ended=True)
        except UserError:
            continue
        assert found.equals(table.select(found.column_names)), place
