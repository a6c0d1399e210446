"""`dr3-ray status`: from files alone, whatever became of the process that wrote them."""

import io
import json
import shutil
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from dr3_ray.cli.app import main
from dr3_ray.runs.histories import HISTORIES, Histories, read_histories
from dr3_ray.runs.index import Index
from dr3_ray.runs.status import read_status, sentences, watch
from dr3_ray.sweep.directory import open_run
from dr3_ray.sweep.spec.names import option_types
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


@pytest.fixture
def sweep(cartpole, tmp_path):
    return SweepSpec(
        datasets=[cartpole], environment="none", seeds=3, coefficients=[0, 0.1], steps=100, evaluations=4,
        out=tmp_path / "run",
    )  # fmt: skip


def write(sweep: SweepSpec, index: Index, rows: dict[str, list[tuple[int, float]]]) -> None:
    """Rows of (step, time_s) by member."""
    histories = Histories(
        sweep.out, {member: record["config"] for member, record in index.records.items()}, ["seed"], option_types()
    )
    histories.load(again=())
    for member, measured in rows.items():
        for step, seconds in measured:
            histories.add(member, step, {"time_s": seconds, "updates_per_second": 1.0})
    histories.flush()


def begun(sweep: SweepSpec) -> list[str]:
    """Six members: one finished, one diverged, one failed; two train in a pack, one waits."""
    planned = members(sweep)
    with open_run(sweep, planned, ["sweep"]) as index:
        a, b, c, d, e, f = planned
        for names, status in (([a], "finished"), ([b], "diverged")):
            index.write(names, status, pack="one")
        index.write([c], "failed", error="RuntimeError: [no] memory", pack="two")
        index.write([d, e], "running", pack="three")
        rows = {a: [(100, 9.0)], b: [(25, 2.0)], d: [(25, 4.0), (50, 10.0)], e: [(25, 4.0), (50, 10.0)]}
        write(sweep, index, rows)
        return [a, b, c, d, e, f]


def test_counts_speed_and_time_left(sweep):
    begun(sweep)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sweep.out.iterdir()}
    status = read_status(sweep.out)
    assert status.counts == {"finished": 1, "running": 2, "pending": 1, "diverged": 1, "cut": 0, "failed": 1}
    assert status.made == 100 + 100 + 100 + 50 + 50  # what diverged or failed gets no more
    assert status.planned == 600
    assert status.speed == (50 + 50) / 10.0
    assert status.left == 200 / 10.0
    assert status.usual == 6.0
    assert abs(status.written - time.time()) < 30
    assert not status.over
    now = status.written + 3
    assert sentences(status, sweep.out, now) == [
        "67% · 1 finished, 2 running, 1 pending, 1 diverged, 1 failed · 10 updates/s · 0:20 left · written 0:03 ago",
        "1 failed: RuntimeError: [no] memory",
    ]
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sweep.out.iterdir()} == before


def test_a_sweep_that_was_killed_is_told_by_its_silence_also_in_a_copy(sweep, tmp_path):
    begun(sweep)
    copy = Path(shutil.copytree(sweep.out, tmp_path / "copy", copy_function=shutil.copyfile))  # without times
    status = read_status(copy)
    assert status == read_status(sweep.out)
    quiet = sentences(status, copy, status.written + 125)
    assert quiet[1] == f"nothing was written for 2:05: if the sweep was stopped, dr3-ray sweep --resume {copy} goes on"
    assert len(sentences(status._replace(usual=60.0), copy, status.written + 125)) == len(quiet) - 1


def test_members_that_ended_without_their_rows_are_told(sweep):
    begun(sweep)
    assert read_status(sweep.out).lacking == 0
    table = read_histories(sweep.out)
    pq.write_table(table.slice(2), sweep.out / HISTORIES)  # of the finished one and the one that diverged
    status = read_status(sweep.out)
    assert status.lacking == 2
    said = sentences(status, sweep.out, status.written)
    assert any(
        line.startswith(f"2 runs that have ended lack rows: `dr3-ray sweep --resume {sweep.out}`") for line in said
    )


def test_a_sweep_that_was_stopped_says_how_to_go_on(sweep):
    with open_run(sweep, members(sweep), ["sweep"]):
        pass
    status = read_status(sweep.out)  # no histories yet
    assert (status.made, status.speed, status.left) == (0, 0.0, None)
    assert sentences(status, sweep.out, status.written) == [
        "0% · 6 pending",
        f"nothing is running: it is starting, or it was stopped and dr3-ray sweep --resume {sweep.out} goes on",
    ]


def test_the_command_prints_it(sweep, capsys):
    begun(sweep)
    assert run("status", str(sweep.out)) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("run ")
    assert "67% · 1 finished, 2 running" in shown
    assert "1 failed: RuntimeError: [no] memory" in shown
    assert run("status", str(sweep.out), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {name: count for name, count in read_status(sweep.out).counts.items()}
    assert not found["over"] and found["left_s"] > 0 and found["errors"] == {"failed: RuntimeError: [no] memory": 1}


def test_watch_ends_with_the_sweep(sweep):
    *_, d, e, f = begun(sweep)
    told = io.StringIO()

    def end() -> None:
        time.sleep(0.3)
        with Index(sweep.out) as index:
            write(sweep, index, {member: [(100, 20.0)] for member in (d, e, f)})
            index.write([d, e, f], "finished")

    thread = threading.Thread(target=end)
    thread.start()
    watch(sweep.out, Console(file=told, width=200), pause=lambda _: time.sleep(0.05))
    thread.join()
    lines = told.getvalue().splitlines()
    assert lines[0].startswith("67% · 1 finished, 2 running, 1 pending")
    assert "100% · 4 finished, 1 diverged, 1 failed" in lines[-2]
    assert read_status(sweep.out).over


@pytest.mark.parametrize("name", ["run.json", "index.jsonl", "histories.parquet"])
def test_a_damaged_file_is_one_line(sweep, name, capsys):
    begun(sweep)
    (sweep.out / name).write_text("no\nno\n")
    assert run("status", str(sweep.out)) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert name in shown.err


def test_what_is_no_run_is_one_line(tmp_path, capsys):
    for path, message in ((tmp_path, "is not a run directory"), (tmp_path / "nowhere", "is not a run directory")):
        assert run("status", str(path)) == 2
        assert message in capsys.readouterr().err
