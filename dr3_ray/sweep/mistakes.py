"""Mistakes in a specification, told in one line: where, what, and what was probably meant."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError

from dr3_ray.errors import UserError

TAGS = ("list", "value", "bounds")  # pydantic's names for what may be one thing or another; people never wrote them


def check_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """UserError: a name is not known; says the nearest that is, or all of them."""
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), list(known), 1)
            raise UserError(
                f"unknown {what} {name!r}: "
                + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}")
            )


def first_mistake(error: ValidationError, model: type[BaseModel], parts: Mapping[str, type[BaseModel]]) -> UserError:
    """The first thing that pydantic found wrong in a model; `parts` are the models inside it, by their tags."""
    errors = error.errors()
    # an unknown key is often why another one is missing
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
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
    given = "" if first["type"] == "missing" or isinstance(first["input"], dict) else f", not {first['input']!r}"
    return UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}{given}")
