"""Whole numbers of users: as people write them, and the most that can be meant.

More is a slip of the keyboard, by which a process would hang or run out of memory.
"""

import re
from decimal import Decimal

COUNT = 10**15
"""Of steps, episodes for a mean, and whatever is only counted; the index keeps numbers below 2^53."""
PROCESSES = 10_000
"""Of one job, as of machines, trials at a time and starts again."""
SHARE = 10_000
"""CPUs or GPUs of one process."""
RESOURCE = 10**14
"""Of any other resource, such as bytes; Ray counts ten-thousandths in 64 bits."""
SECONDS = 10**8
"""Three years; operating systems take no more than some hundred."""
EPISODES = 100_000
"""Of a member in an evaluation: each has an environment of its own."""
MEMBERS = 1_000_000
"""Of a sweep, and values of one axis; 20,000 were tried (benchmarks/scale.py)."""

TEXT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:e\+?[0-9]{1,2})?)([km]?)", re.IGNORECASE)
FACTORS = {"": 1, "k": 1_000, "m": 1_000_000}


def read_count(text: str) -> int:
    """Read a whole number, which may end in k for thousands or M for millions.

    Raises:
        ValueError: the text is none.
    """
    match = TEXT.fullmatch(text.strip())
    value = Decimal(match[1].replace("_", "")) * FACTORS[match[2].lower()] if match else Decimal("0.5")
    if value != int(value):
        raise ValueError("it has to be a whole number, such as 5000, 10k or 1e6")
    return int(value)
