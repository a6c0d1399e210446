"""Whole numbers as people write them."""

import re
from decimal import Decimal

TEXT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:e\+?[0-9]{1,2})?)([km]?)", re.IGNORECASE)
FACTORS = {"": 1, "k": 1_000, "m": 1_000_000}


def read_count(text: str) -> int:
    """Read a whole number, which may end in k for thousands or M for millions.

    Raises:
        ValueError: the text is none.
    """
    found = TEXT.fullmatch(text.strip())
    value = Decimal(found[1].replace("_", "")) * FACTORS[found[2].lower()] if found else Decimal("0.5")
    if value != int(value):
        raise ValueError("it has to be a whole number, such as 5000, 10k or 1e6")
    return int(value)
