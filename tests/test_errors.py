"""What is quoted of other errors: their type and the first line of what they say."""

import errno
import os

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import RayTaskError

from dr3_ray.errors import UserError, first_line
from dr3_ray.trust.text import printable


class OfTwoLinesError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a}\n{b}")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first line\nsecond line"), "ValueError: first line"),
        (ValueError("\n\n  first line\nsecond line"), "ValueError: first line"),
        (OfTwoLinesError("first", "second"), "OfTwoLinesError: first"),
        (KeyError("name"), "KeyError: 'name'"),
        (AssertionError(), "AssertionError"),
        (RuntimeError("  \n "), "RuntimeError"),
        (UserError("wrong: do this"), "wrong: do this"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "[Errno 28] No space left on device"),
        (
            RayTaskError("train", "Traceback\nValueError: first\nsecond", ValueError("first\nsecond")),
            "ValueError: first",
        ),
        (RayTaskError("train", "Traceback", UserError("wrong: do this")), "wrong: do this"),
        (
            RuntimeError(
                'ray::Pack.reset() (pid=1)\n  File "a.py", line 1, in f\n    g()\n    ^^^\nOSError: full\nmore'
            ),
            "OSError: full",
        ),
    ],
)
def test_type_and_first_line(error, line):
    assert first_line(error) == line


@given(st.sampled_from([ValueError, RuntimeError, ray.exceptions.RayError, UserError]), st.text())
def test_it_is_one_line_that_says_something(kind, text):
    line = first_line(kind(text))
    assert line and len(line.splitlines()) == 1
    if first := str(kind(text)).strip():
        assert line.endswith(printable(first.splitlines()[0].strip()))
