"""Mistakes in a specification, told in one line: where, what, and what was probably meant."""

import reprlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from dr3_ray.errors import UserError, check_known, nearest

WORDS = {  # by pydantic's names of what is wrong; {…} is what it knows beside
    "missing": "it is missing",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "it has to be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "it has to be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "it has to be true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "it has to be a list"),
    **dict.fromkeys(("dict_type", "model_type", "mapping_type"), "it has to be names with values"),
    "string_type": "it has to be a text",
    "greater_than": "it has to be more than {gt:,.15g}",
    "greater_than_equal": "it has to be at least {ge:,.15g}",
    "less_than": "it has to be less than {lt:,.15g}",
    "less_than_equal": "it has to be at most {le:,.15g}",
    "literal_error": "it has to be {expected}",
}
SHORT = reprlib.Repr()
SHORT.maxstring, SHORT.maxlong, SHORT.maxother = 100, 40, 100
TAGS = ("list", "value", "bounds")  # pydantic's names for what may be one thing or another; people never wrote them


def first_mistake(error: ValidationError, model: type[BaseModel], parts: Mapping[str, type[BaseModel]]) -> UserError:
    """Return an error of the first mistake that pydantic found; `parts` are the models inside `model`, by tag."""
    errors = error.errors()
    # an unknown key is often why another one is missing
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    if not first["loc"] and isinstance(mistake := first.get("ctx", {}).get("error"), UserError):
        return mistake  # of several fields together
    *inside, last = path = [str(part) for part in first["loc"]] or ["sweep"]
    # a part's tag is also the name of the field after it: said once, and only what people wrote
    where = ".".join(part for part, before in zip(path, ["", *path], strict=False) if part not in (before, *TAGS))
    if first["type"] == "extra_forbidden":
        tags = [part for part in inside if part in parts]
        fields = (parts[tags[-1]] if tags else model).model_fields
        written = [part for part in inside if part not in TAGS and (part not in tags or part in model.model_fields)]
        what = f"key in {'.'.join(written)}" if inside else "key"
        try:
            check_known(what, [last], [field.alias or name for name, field in fields.items()])
        except UserError as unknown:
            return unknown
    if first["type"] == "too_short":
        return UserError(f"{where}: without a value the sweep has no members: give at least one")
    if first["type"] == "literal_error" and (near := nearest(str(first["input"]), _choices(first))):
        return UserError(f"{where}: {first['input']!r} is unknown: did you mean {near!r}?")
    said, value = _said(first), first["input"]
    told = first["type"] == "missing" or isinstance(value, dict) or (isinstance(value, str) and repr(value) in said)
    return UserError(f"{where}: {said}" + ("" if told else f", not {SHORT.repr(value)}"))


def _choices(error: Any) -> list[str]:
    return list(error["ctx"]["expected"].split("'")[1::2])


def _said(error: Any) -> str:
    """Return what is wrong in our words, where there are any; pydantic's own begin with `Input should be`."""
    if words := WORDS.get(error["type"]):
        return words.format(**error.get("ctx", {}))
    return str(error["msg"]).removeprefix("Value error, ")
