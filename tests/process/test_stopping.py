"""A sweep that is told to stop, at any moment: rc 130, one line with what to type, and nothing lost."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dr3_ray.runs.index import read_index

pytestmark = pytest.mark.slow  # processes that are ended at bad moments

TINY = ("--coefficients=0,0.1", "--seeds=2", "--evaluations=20", "--environment=none", "--pack=2", "--concurrent=1")
SMALL = ("--set=hidden_sizes=[8]", "--set=batch_size=16", "--dataset=embedded:breakout-replay")
WAITING = re.compile(r" *\d+% |waiting for Ray$|building |stopping: ")  # what a sweep shows
COMMAND = [sys.executable, "-m", "dr3_ray", "sweep", *TINY, *SMALL]


def handled(process: int, number: int) -> bool:
    """Whether a process handles a signal, by what the kernel knows."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (mask,) = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")]
    return bool(mask >> (number - 1) & 1)


def children(process: int) -> dict[str, int]:
    """The names of the processes that a process has started, with their numbers."""
    found = {}
    for number in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        try:
            found[Path(f"/proc/{number}/comm").read_text().strip()] = int(number)
        except FileNotFoundError:
            continue
    return found


def as_in_a_terminal() -> None:
    """Signals that whoever runs the tests ignores, in the background or by nohup, are those of a command again."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(run: Path, steps: int = 200_000, **more) -> subprocess.Popen[str]:
    command = [*COMMAND, f"--steps={steps}", f"--out={run}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | more
    pipes.setdefault("preexec_fn", as_in_a_terminal)
    return subprocess.Popen(command, text=True, start_new_session=True, **pipes)


def until(process: subprocess.Popen[str], condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Exit code and lines, without the display of progress; it has half a minute."""
    try:
        said = process.communicate(timeout=30 + 30 * (os.getloadavg()[0] > 4))[0] or ""
    finally:
        process.kill()
    lines = [line for line in said.splitlines() if line.strip() and "(raylet)" not in line]  # which is Ray's own
    return process.returncode, [line for line in lines if not WAITING.match(line)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_the_command_is_imported(tmp_path, number):
    process = start(tmp_path / "run")
    until(process, lambda: handled(process.pid, signal.SIGHUP))
    process.send_signal(number)
    code, (line,) = ended(process)
    assert code == 130
    assert line.startswith("stopped; this starts again: dr3-ray sweep --coefficients=0,0.1 ")


@pytest.mark.parametrize(("part", "number"), [("gcs_server", signal.SIGHUP), ("raylet", signal.SIGTERM)])
def test_while_ray_starts(tmp_path, part, number):
    process = start(tmp_path / "run")
    until(process, lambda: part in children(process.pid))
    process.send_signal(number)
    assert ended(process) == (130, [f"stopped with 4 pending; this goes on: dr3-ray sweep --resume {tmp_path / 'run'}"])


def test_ray_dies_and_the_sweep_says_so_at_once(tmp_path):
    """Of its raylet tests/sweep/test_survival.py knows."""
    run = tmp_path / "run"
    process = start(run)
    until(process, lambda: run.is_dir() and any(each["status"] == "running" for each in read_index(run)))
    os.kill(children(process.pid)["gcs_server"], signal.SIGKILL)
    died = time.monotonic()
    code, lines = ended(process)
    assert time.monotonic() - died < 30
    assert (code, lines) == (2, [f"error: Ray has died on this machine: `dr3-ray sweep --resume {run}` goes on"])
    assert {each["status"] for each in read_index(run)} == {"pending"}


def test_a_terminal_that_goes_away_takes_nothing_with_it(tmp_path):
    run = tmp_path / "run"
    ours, theirs = pty.openpty()
    process = start(run, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=lambda: os.close(ours))
    os.close(theirs)
    until(process, lambda: run.is_dir() and any(each["status"] == "running" for each in read_index(run)))
    os.close(ours)  # writing to it is an error from now on
    process.send_signal(signal.SIGHUP)
    assert process.wait(300) == 130  # the limit of what hangs
    assert {each["status"] for each in read_index(run)} == {"pending"}
    (folder,) = [json.loads(line)["error"] for line in (run / "index.jsonl").read_text().splitlines()[-1:]]
    assert folder == "interrupted"


def test_a_reader_that_goes_away_stops_nothing_and_nohup_is_heard(tmp_path):
    """Its report goes nowhere; SIGHUP is ignored where it was when the command started."""
    run = tmp_path / "run"
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = start(run, steps=200, **ignoring)
    assert process.stdout is not None
    process.stdout.close()
    until(process, lambda: run.is_dir() and any(each["status"] == "running" for each in read_index(run)))
    process.send_signal(signal.SIGHUP)
    assert process.wait(120) == 0
    assert {each["status"] for each in read_index(run)} == {"finished"}
    assert (run / "report" / "report.html").exists()


STUCK = """
import pathlib, signal, sys, threading, time
from dr3_ray.process import stopping
stopping.GRACE = 1.0
def work():
    stopping.advise(lambda: "TYPE THIS")
    with stopping.stoppable(), stopping.leaving(lambda: pathlib.Path(sys.argv[1]).write_text("what is known")):
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)  # as in a call of C++ that does not return
        threading.Timer(1.0, lambda: print("waits", flush=True)).start()  # said when the main thread is stuck already
        time.sleep(600)
stopping.run_command(work)
"""


def test_a_main_thread_that_is_stuck_leaves_what_is_known(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path / "left")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "stopped; this goes on: TYPE THIS\n")
    assert process.returncode == 130
    assert (tmp_path / "left").read_text() == "what is known"
