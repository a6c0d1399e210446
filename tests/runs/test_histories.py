"""One table of histories: complete, tidy, readable at any moment."""

import dataclasses
import math
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr3_ray.algorithms.registry import ALGORITHMS
from dr3_ray.quantities import CATALOGUE
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS
from dr3_ray.runs import histories as module
from dr3_ray.runs.columns import Row, config_column
from dr3_ray.runs.histories import HISTORIES, PAUSE, SHARE, Histories, read_histories, written_at
from dr3_ray.sweep.spec.names import option_types
from tests.room import files_up_to

CONFIGS = {
    "a": {"algorithm": "DR3-CQL", "dataset": "d", "seed": 0, "dr3_coeff": 0.0, "hidden_sizes": [8]},
    "b": {"algorithm": "BC", "dataset": "d", "seed": 1, "dr3_coeff": 0.0, "hidden_sizes": [8, 8]},
}
COLUMNS = ("algorithm", "dataset", "seed", "dr3_coeff", "hidden_sizes")


def read(run):
    return read_histories(run).to_pandas()


@pytest.fixture
def run(tmp_path):
    histories = Histories(tmp_path, CONFIGS, COLUMNS, option_types())
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
    histories = Histories(run, CONFIGS, COLUMNS, option_types())
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
    histories = Histories(run, CONFIGS, COLUMNS, option_types())
    histories.load(again=["a"])
    histories.add("a", 30, {"loss_critic": 7.0})
    histories.settle(["a"])
    histories.flush()
    assert read(run).query("member == 'a'")["loss_critic"].tolist() == [1 / 10, 1 / 20, 7.0]


def test_axes_may_be_added_later(run):
    later = {member: config | {"double_q": True} for member, config in CONFIGS.items()}
    histories = Histories(run, later, (*COLUMNS, "double_q"), option_types())
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
    histories = Histories(run, CONFIGS, COLUMNS, option_types())
    histories.load(again=[])
    for step in range(40, 1040, 10):
        histories.add("a", step, {"loss_critic": 1.0})
        histories.flush()
    stop.set()
    seen = reader.result()
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert len(pd.read_parquet(run / HISTORIES)) == 106


@pytest.mark.parametrize("share", [SHARE, 1e-6])  # its own pause decides, or what rewriting took
def test_rewriting_stays_within_its_share_of_the_time(tmp_path, monkeypatch, share):
    monkeypatch.setattr(module, "SHARE", share)
    histories = Histories(tmp_path, CONFIGS, COLUMNS, option_types())
    histories.add("a", 1, {"loss_critic": 1.0})
    started = time.monotonic()
    assert histories.flush(force=False)
    cost = time.monotonic() - started
    written = written_at(tmp_path)
    assert histories.flush(force=False) and written_at(tmp_path) == written  # it is up to date
    histories.add("a", 2, {"loss_critic": 1.0})
    assert not histories.flush(force=False)
    assert len(read(tmp_path)) == 1
    assert histories._next - started == pytest.approx(max(PAUSE, cost / share), rel=0.5)
    histories.flush()
    assert len(read(tmp_path)) == 2


def test_a_full_disk_leaves_the_last_complete_table(run):
    size = (run / HISTORIES).stat().st_size
    histories = Histories(run, CONFIGS, COLUMNS, option_types())
    histories.load(again=[])
    histories.add("a", 40, {"loss_critic": math.pi})
    with files_up_to(size // 2), pytest.raises(OSError, match="File too large"):
        histories.flush()
    assert len(read(run)) == 6
    assert os.listdir(run) == [HISTORIES]


class Heard:
    """A listener that writes down what it is told."""

    def __init__(self):
        self.told = []

    def row(self, member: str, step: int, values: Row) -> None:
        self.told.append((member, step, values))

    def end(self, members: list[str]) -> None:
        self.told.append(members)


def test_listeners_hear_of_every_row_and_of_every_end(tmp_path):
    histories, heard = Histories(tmp_path, CONFIGS, COLUMNS, option_types()), [Heard(), Heard()]
    histories.listeners += heard
    histories.add("a", 10, {"loss_critic": 1.0})
    histories.settle(["a", "b"])
    assert [each.told for each in heard] == [[("a", 10, {"loss_critic": 1.0}), ["a", "b"]]] * 2


# names that go by themselves, beside those that every algorithm with a critic has
NAMES = [*sorted(CATALOGUE.keys() - {"step", "time_s"}), "loss_undeclared"]
MIXED = {
    "a": {"algorithm": "DR3-CQL", "dataset": "d", "seed": 0, "dr3_coeff": 0, "encoder": "cog", "environment": None},
    "b": {"algorithm": "DR3-IQL", "dataset": "d", "seed": 1, "dr3_coeff": 0.5, "encoder": {"camera": "impala"}},
    "c": {"algorithm": "BC", "dataset": "d", "seed": 2, "hidden_sizes": [8], "environment": "gymnasium:X-v1"},
}
VALUES = st.none() | st.floats() | st.integers(-5, 5)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)), min_size=1
    ),
    again=st.sets(st.sampled_from("abc")),
    cut=st.integers(0, 20),
)
def test_any_mixture_of_what_is_measured_is_written_taken_up_added_to_and_read(rows, again, cut):
    """Whatever each row holds, which members had ended, and wherever the sweep was interrupted: the same table."""
    counts = {name for name, each in CATALOGUE.items() if each.form == "count"}
    rows = [
        (member, {n: v for n, v in values.items() if n not in counts or isinstance(v, int | None)})
        for member, values in rows
    ]
    columns = ("algorithm", "seed", "dr3_coeff", "encoder", "environment", "hidden_sizes")
    with tempfile.TemporaryDirectory() as folder:
        run, once = Path(folder) / "run", Path(folder) / "once"
        run.mkdir(), once.mkdir()
        undisturbed = Histories(once, MIXED, columns, option_types())
        histories = Histories(run, MIXED, columns, option_types())
        for number, (member, values) in enumerate(rows):
            undisturbed.add(member, number, values)
            if number == cut:
                histories.flush()
                histories = Histories(run, MIXED, columns, option_types())
                histories.load(again=again | {member for member, _ in rows[number:]})
            histories.add(member, number, values)
        for each in (undisturbed, histories):
            each.settle("abc")
            each.flush()
        tables = [read_histories(where) for where in (once, run)]
        for table in tables:
            assert len(table) == len(rows)
            assert {name: table.schema.field(name).type for name in table.column_names} == {
                name: TYPES[name] for name in table.column_names
            }
        one, other = (
            sorted(
                repr(sorted((name, value) for name, value in row.items() if value is not None))
                for row in each.to_pylist()
            )
            for each in tables
        )
        assert one == other


TYPES = {
    **{"loss_undeclared": pa.float64(), "algorithm": pa.string()},
    **{name: pa.int64() if each.form == "count" else pa.float64() for name, each in CATALOGUE.items()},
    **{"member": pa.string(), "seed": pa.int64(), "dr3_coeff": pa.float64(), "encoder": pa.string()},
    **{"environment": pa.string(), "hidden_sizes": pa.list_(pa.int64())},
}


def test_a_file_of_earlier_versions_is_taken_up_with_the_names_of_today(tmp_path):
    """Types by values, a metric that had the name of an option, and columns of nothing."""
    rows = {"member": ["a", "a"], "hidden_sizes": [[8], [8]], "step": [1, 2], "time_s": [1, 2], "episodes": [0.0, 0.0]}
    old = rows | {"divergence": [0.5, None], "loss_value": pa.nulls(2)}
    pq.write_table(pa.table(old), tmp_path / HISTORIES)
    configs = {"a": CONFIGS["a"] | {"divergence": "kl"}}
    for _ in range(2):
        histories = Histories(tmp_path, configs, ("hidden_sizes", "divergence"), option_types())
        histories.load(again=[])
        histories.flush()
        table = read_histories(tmp_path)
        assert table["divergence"].to_pylist() == ["kl", "kl"]
        assert table["policy_divergence"].to_pylist() == [0.5, None]
        assert [str(table.schema.field(name).type) for name in ("step", "time_s", "episodes")] == [
            "int64",
            "double",
            "int64",
        ]
        assert "loss_value" not in table.column_names


def test_every_option_has_one_type_whatever_the_others_have():
    """Defaults of all algorithms in one column each, beside members that lack them."""
    forms = [form.options for kinds in ALGORITHMS.values() for form in kinds.values()]
    options = [option for each in (*forms, *REGULARIZER_OPTIONS) for option in dataclasses.fields(each)]
    for name in {option.name for option in options}:
        defaults = [list(o.default) if isinstance(o.default, tuple) else o.default for o in options if o.name == name]
        configs = [{name: default} for default in defaults]
        assert config_column(name, [{}, *configs, {name: None}], option_types()).to_pylist() == [None, *defaults, None]
    encoders = config_column("encoder", [{"encoder": "flat"}, {"encoder": {"camera": "cog"}}], option_types())
    assert encoders.to_pylist() == ["flat", '{"camera": "cog"}']
