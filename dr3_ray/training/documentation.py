"""Options in words: what `dr3-ray options`, `help(DR3CQLConfig.training)` and a notebook's tooltip show."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, Literal

from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS

Method = Literal["training", "regularization"]  # of RLlib's configs, which set the options of an algorithm
ByKind = Mapping[str, Sequence["Field[Any]"]]  # kind of action space -> options


class Verbatim(str):
    """A text that stands in a signature without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def options_of(algorithm: str, method: Method) -> ByKind:
    """Return the options of an algorithm, or those of its critic's regularisers: none where it has no critic.

    Raises:
        UserError: there is no such algorithm.
    """
    by_kind: dict[str, list[Field[Any]]] = {}
    for kind, spec in kinds_of(algorithm).items():
        classes = (spec.options,) if method == "training" else REGULARIZER_OPTIONS if spec.has_critic else ()
        by_kind[kind] = [option for options in classes for option in fields(options)]
    return by_kind


def describe(kinds: ByKind) -> list[str]:
    """Describe options, a line each: `name = default (range): meaning and source`.

    The kind of actions comes first, if it matters.
    """
    lines: dict[tuple[str, str], list[str]] = {}
    for kind, options in kinds.items():
        for option in options:
            limits = "; ".join(filter(None, [allowed(option), *needed(option)]))
            line = f"{option.name} = {option.default!r}{limits and f' ({limits})'}: {option.metadata['doc']}"
            lines.setdefault((option.name, line), []).append(kind)
    order = list(dict.fromkeys(name for name, _ in lines))
    return [
        line if len(has_it) == len(kinds) else f"{', '.join(has_it)}: {line}"
        for (_, line), has_it in sorted(lines.items(), key=lambda item: order.index(item[0][0]))
    ]


def allowed(option: "Field[Any]") -> str:
    """Return the range or the choices of an option."""
    limits = option.metadata
    if limits["number"]:
        low, high = (f"{limits[end]:g}" if math.isfinite(limits[end]) else "" for end in ("low", "high"))
        return f"{low} to {high}" if low and high else f"at least {low}" if low else high and f"at most {high}"
    return f"one of {', '.join(map(str, limits['among']))}" if limits["among"] else ""


def needed(option: "Field[Any]") -> list[str]:
    """Return the values of other options under which an option has an effect."""
    return [f"with {name} = {' or '.join(map(repr, values))}" for name, values in option.metadata["needs"].items()]


def documented(method: Callable[..., Any], kinds: ByKind) -> Callable[..., Any]:
    """Return the method with these options as visible keyword arguments, with names and defaults."""
    defaults: dict[str, list[str]] = {}
    for options in kinds.values():
        for option in options:
            texts = defaults.setdefault(option.name, [])
            texts += [] if repr(option.default) in texts else [repr(option.default)]

    @functools.wraps(method)
    def with_options(self: Any, **options: Any) -> Any:
        return method(self, **options)

    lines = describe(kinds) or ["none: there is no critic"]
    with_options.__doc__ = "\n            ".join([f"{method.__doc__}\n\n        Options:", *lines])
    with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        + [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=Verbatim(" | ".join(texts)))
            for name, texts in defaults.items()
        ]
    )
    return with_options
