"""The line that says how far a sweep is."""

import io
import time

from rich.console import Console

from dr3_ray.sweep.progress import SweepProgress


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
