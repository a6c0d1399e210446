"""Nested mappings by the paths of their leaves; nothing else of the package is needed for it."""

from collections.abc import Mapping
from typing import Any


def named_parts(nested: Any) -> dict[str, Any]:
    """The leaves of nested mappings by their path, {"goal": {"x": a}} as {"goal/x": a}; anything else is {"": itself}.

    Of spaces, observations and arrays of observations alike.
    """
    if not isinstance(nested, Mapping):
        return {"": nested}
    return {
        f"{key}/{path}" if path else str(key): leaf
        for key, inner in nested.items()
        for path, leaf in named_parts(inner).items()
    }
