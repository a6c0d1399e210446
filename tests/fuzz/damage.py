"""What may become of a file: bytes that are flipped, cut, doubled or written over, and JSON with other values in it."""

import json
from typing import Any

from hypothesis import strategies as st

NUMBERS = [0, 1, -1, 7, 255, 2**15, 2**31 - 1, -(2**31), 2**32, 2**63 - 1, -(2**63), 2**64, 10**30]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["NaN", "Infinity", "-Infinity", "../x", "/etc/passwd", "a" * 100_000, "\x00", "\ud800", "{step}"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: Any, content: bytes) -> bytes:
    """The content with one to four changes of its bytes."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        size = draw(st.sampled_from([1, 2, 4, 8, 64, 1000]))
        kind = draw(st.sampled_from(["flip", "number", "cut", "end", "double", "zero", "random"]))
        if kind == "flip" and found:
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            number = draw(st.sampled_from(NUMBERS[:-2])) & (2**64 - 1)
            at -= at % 4
            found[at : at + size] = number.to_bytes(8, "little")[:size]
        elif kind == "cut":
            del found[at : at + size]
        elif kind == "end":
            del found[at:]
        elif kind == "double":
            found[at:at] = found[at : at + size]
        elif kind == "zero":
            found[at : at + size] = bytes(min(size, len(found) - at))
        else:
            found[at : at + size] = draw(st.binary(min_size=1, max_size=8))
    return bytes(found)


@st.composite
def changed(draw: Any, document: Any) -> Any:
    """The JSON document with one to three other values, keys more or keys less."""
    found = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        holder: Any = None
        key: Any = None
        inner = found
        while isinstance(inner, dict | list) and inner and (holder is None or draw(st.integers(0, 3))):
            holder = inner
            key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
            inner = inner[key]
        if holder is None:
            return draw(values)
        kind = draw(st.sampled_from(["set", "set", "drop", "many"]))
        if kind == "set":
            holder[key] = draw(values)
        elif kind == "drop":
            del holder[key]
        elif isinstance(holder, list):
            holder += [holder[key]] * draw(st.sampled_from([1, 100, 20_000]))
        else:
            holder |= {f"{key}{number}": holder[key] for number in range(draw(st.sampled_from([1, 100, 20_000])))}
    return found


def as_text(document: Any) -> bytes:
    """JSON as Python writes it, with NaN and lone surrogates."""
    return json.dumps(document).encode()
