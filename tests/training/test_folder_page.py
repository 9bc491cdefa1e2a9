"""The data folder page says what a folder may hold, today."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.tables import SCHEMA
from training.folder_page import render

PAGE = Path(__file__).parents[2] / "docs" / "data-folder.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "docs/data-folder.md is stale: make docs"


@pytest.mark.parametrize("table", SCHEMA)
def test_every_column_of_a_table_is_told_and_whether_it_is_required(table: str) -> None:
    section = render().partition(f"## {table}\n")[2].partition("\n## ")[0]
    for column in SCHEMA[table]:
        (row,) = [line for line in section.splitlines() if line.startswith(f"| `{column.name}` |")]
        assert row.endswith("| required |") == column.required
