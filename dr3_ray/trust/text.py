"""Text of others for a terminal, without characters that would move, hide or rename what is there; values for JSON."""

import json
import math
import re
from dataclasses import asdict, is_dataclass
from typing import Any

# C0 and C1 controls but tab and newline, what turns the direction of writing, and halves of characters: not those that
# stand for the bytes of a file's name
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(value: Any) -> Any:
    """Return a text, or whatever holds some, in which control characters are written out by their codes."""
    if isinstance(value, str):
        return _CONTROLS.sub(lambda match: ascii(match.group())[1:-1], value)
    if isinstance(value, dict):
        return {printable(name): printable(item) for name, item in value.items()}
    return [printable(item) for item in value] if isinstance(value, list) else value


def printable_json(line: bytes) -> Any:
    """Return the value of a line of JSON, printable.

    Raises:
        ValueError: it is none.
    """
    document = json.loads(line, parse_constant=_refuse)
    return printable(document) if b"\\" in line or b"\x7f" in line or not line.isascii() else document


def json_value(value: Any) -> Any:
    """Return a value, or whatever holds some, as JSON can have it.

    NaN and infinities are null, arrays and tuples lists, tuples with names and dataclasses objects.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    elif hasattr(value, "dtype"):  # an array or a number of numpy
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): json_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
