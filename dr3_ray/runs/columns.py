"""The types of the columns of histories, by what is declared and never by values: see `dr3_ray.quantities`."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from dr3_ray.quantities import CATALOGUE, quantity
from dr3_ray.runs.identity import OF_PARENT

Row = dict[str, Any]

FIXED = {
    **dict.fromkeys(("algorithm", "dataset", "data_fingerprint", "environment"), pa.string()),
    **dict.fromkeys(("seed", "steps", "evaluations", "evaluation_episodes", "updates"), pa.int64()),
}  # of every configuration
FORMS: dict[str, tuple[pa.DataType, type]] = {"real": (pa.float64(), float), "count": (pa.int64(), int)}
FORMER = {"divergence": "policy_divergence"}  # names that were also those of options


def config_column(name: str, configs: list[dict[str, Any]], types: Mapping[str, pa.DataType]) -> pa.Array:
    """Return the column of a key of these configurations, null where one lacks it.

    Options have the `types` of their declaration. An undeclared one, such as a mapping of encoders, is JSON text.
    """
    type_ = {**types, **FIXED}.get(name.rpartition(OF_PARENT)[2], pa.string())
    values = [config.get(name) for config in configs]
    if pa.types.is_string(type_):
        values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array(values, type_)


def measured(values: Row) -> Row:
    """Return measured values, each in the type of its column; None is nothing."""
    named = ((FORMER.get(name, name), value) for name, value in values.items() if value is not None)
    return {name: FORMS[quantity(name).form][1](value) for name, value in named}


def measured_table(rows: list[Row]) -> pa.Table:
    """Return rows of `member`, `step` and measured values, with a column for every name in one of them."""
    names = dict.fromkeys(["member", "step", *(name for row in rows for name in row)])
    return pa.Table.from_pylist(rows, pa.schema([(name, measured_type(name)) for name in names]))


def measured_type(name: str) -> pa.DataType:
    """Return the type of `member` or of a measured quantity."""
    return pa.string() if name == "member" else FORMS[quantity(name).form][0]


def measurements(table: pa.Table, configured: Collection[str] = ()) -> pa.Table:
    """Return the columns of histories that are not `configured`, in their types, whatever wrote them.

    A column without a measurement is left out, and an undeclared one if it has no numbers.

    Raises:
        pa.ArrowException: a value has no place in its type, or there is no column `member` or `step`.
    """
    reals = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    table = table.rename_columns([FORMER.get(name, name) if name in reals else name for name in table.column_names])
    if lacking := {"member", "step"} - set(table.column_names):
        raise pa.ArrowInvalid(f"it lacks the column {min(lacking)}")
    if table["member"].null_count or table["step"].null_count:
        raise pa.ArrowInvalid("a row has no member or step")
    names = [name for name in table.column_names if name not in configured and _is_measured(name, table[name])]
    columns = {name: table[name].cast(measured_type(name)) for name in dict.fromkeys(["member", "step", *names])}
    return pa.table(columns).replace_schema_metadata(table.schema.metadata)


def _is_measured(name: str, column: pa.ChunkedArray) -> bool:
    is_number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    return column.null_count < len(column) and (name in CATALOGUE or is_number)
