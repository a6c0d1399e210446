"""What a person at a terminal is told while a command is slow to say its first word."""

import os
import pty
import subprocess
import sys

import pytest

COMMAND = """
import sys, time
from dr3_ray.process.terminal import outlast_the_terminal, said_if_silent

outlast_the_terminal()
with said_if_silent("loading torch", 0.3):
    if "first" in sys.argv:
        print("a word", flush=True)
    time.sleep(0 if "quick" in sys.argv else 1)
"""


@pytest.mark.parametrize(("how", "said"), [((), b"loading torch\r\n"), (("first",), b"a word\r\n"), (("quick",), b"")])
def test_the_first_word_at_a_terminal(how, said):
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", 0) as terminal:
        process = subprocess.Popen([sys.executable, "-c", COMMAND, *how], stdout=theirs, stderr=theirs)
        os.close(theirs)
        found = b""
        while True:
            try:
                found += terminal.read(1000)
            except OSError:  # EIO, which is how a terminal without processes ends
                break
        assert process.wait() == 0
    assert found == said


def test_nothing_is_said_to_a_program():
    found = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, check=True)
    assert (found.stdout, found.stderr) == (b"", b"")
