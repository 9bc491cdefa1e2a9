"""Small data folders in memory, from plain rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from features.tables import Tables, arrow_schema, canonical_table
from training.simulate import simulate

START = 1_735_689_600_000
"""2025-01-01 UTC."""


def folder_of(**tables: Sequence[Mapping[str, Any]]) -> Tables:
    """Canonical tables of the rows given by table name."""
    return {
        name: canonical_table(name, pa.Table.from_pylist(list(rows), schema=arrow_schema(name)))
        for name, rows in tables.items()
    }


def simulated(customers: int, days: int, seed: int) -> Tables:
    """A simulated data folder, as if written and read again."""
    found = {}
    for name, table in simulate(customers, days, seed).items():
        schema = arrow_schema(name)
        columns = [
            table[column.name] if column.name in table.column_names
            else pa.nulls(table.num_rows, column.type)
            for column in schema
        ]  # fmt: skip
        found[name] = canonical_table(name, pa.table(columns, schema=schema))
    return found
