"""The line that says how far a sweep is."""

import io
import math
import time

from rich.console import Console

from dr3_ray.sweep.trials.progress import SweepProgress


def test_what_was_done_before_makes_a_sweep_neither_faster_nor_longer():
    progress = SweepProgress(Console(file=io.StringIO()), {"a": "pending", "b": "pending"}, {"a": 100, "b": 100})
    assert progress.text() == "2 pending"
    pack = ["a", "b", "one that diverged before"]
    progress.status(["a", "b"], "running")
    progress.skip(pack, 50)
    progress.advance(pack, 50)
    assert progress.text() == "2 running"
    time.sleep(0.2)
    progress.advance(pack, 60)
    shown, speed, left = progress.text().split(" · ")
    assert shown == "2 running"
    assert 0 < float(speed.removesuffix(" updates/s")) <= 2 * 10 / 0.2
    minutes, seconds = left.removesuffix(" left").split(":")
    assert 60 * int(minutes) + int(seconds) >= 1  # 80 updates are to come


def test_what_is_cut_is_not_waited_for():
    progress = SweepProgress(Console(file=io.StringIO()), dict.fromkeys("ab", "running"), {"a": 100, "b": 100})
    progress.status(["a", "b"], "running")
    progress.advance(["a", "b"], 50)
    progress.end(["a"], 50)
    progress.status(["a"], "cut")
    progress.advance(["b"], 100)
    progress.end(["b"], 100)
    shown, _, left = progress.text().split(" · ")
    assert (shown, left) == ("1 running, 1 cut", "0:00 left")


def test_failures_are_said_at_once():
    said = io.StringIO()
    progress = SweepProgress(Console(file=said, width=80), {"a": "running"}, {"a": 100})
    progress.status(["a"], "failed", "out of [memory]")
    assert said.getvalue() == "1 failed: out of [memory]\n"
    assert progress.text() == "1 failed"


def test_a_sweep_that_goes_on_starts_where_it_was():
    statuses = {"done": "finished", "a": "pending", "b": "pending"}
    console = Console(file=io.StringIO())
    progress = SweepProgress(console, statuses, {"a": 100, "b": 100}, before=100, reached={"a": 50})
    assert progress.share == 50  # 150 of 300
    progress.status(["a", "b"], "running")
    progress.skip(["a"], 40)  # the last checkpoint
    progress.advance(["a"], 40)
    assert round(progress.share, 6) == round(100 * 140 / 300, 6)
    progress.advance(["a", "b"], 100)
    assert progress.share == 100


def test_what_is_waited_for_is_said_until_something_is_counted(capsys):
    said = io.StringIO()
    progress = SweepProgress(Console(file=said, width=80), {"a": "pending"}, {"a": 100})
    progress.wait("waiting for [Ray]")
    progress.refresh()
    assert (capsys.readouterr().out, said.getvalue()) == ("waiting for [Ray]\n", "")


def test_the_best_return_so_far_is_shown():
    progress = SweepProgress(Console(file=io.StringIO()), {"a": "running"}, {"a": 100})
    for value in (None, math.nan, -3.0, 12.34, 5.0):
        progress.best.row("a", 10, {"episode_return_mean": value})
    progress.best.row("a", 10, {})
    assert progress.text() == "1 running · best return 12.34"
