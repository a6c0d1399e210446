"""What is used of other libraries that is not public: a file for each library, and a test that names what is gone."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_NOTHING = object()


def find(path: str, gone: Any = None) -> Any:
    """Return what a dotted path of modules and attributes names, or `gone` where it is not there any more."""
    first, *names = path.split(".")
    part, module = import_module(first), first
    for name in names:
        module = f"{module}.{name}"
        try:
            part = getattr(part, name)
        except AttributeError:
            try:
                part = import_module(module)
            except ImportError:
                return gone
    return part


@contextmanager
def attribute(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute of another library another value for a while."""
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


@contextmanager
def item(mapping: MutableMapping[Any, Any], key: Any, value: Any) -> Iterator[None]:
    """Give an item of a mapping another value for a while."""
    before = mapping.get(key, _NOTHING)
    mapping[key] = value
    try:
        yield
    finally:
        if before is _NOTHING:
            del mapping[key]
        else:
            mapping[key] = before
