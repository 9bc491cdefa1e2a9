"""The data folder page of the documentation, made from the schema: `render`.

``python -m training.folder_page > docs/data-folder.md`` writes it anew; a test fails when it is
stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from features.attribution import CODES
from features.events import VOCABULARY
from features.tables import EVENT_OF_TABLE, SCHEMA, Column

_HEAD: Final = """\
# The data folder

Made from `features/events.py` by `make docs`; do not edit it.

A data folder has one file a table, `NAME.parquet` or `NAME.csv`: any of the tables below, and
`refund_requests`. Train on it, import it, compute its features; `recourse export` writes one. A
folder in which anything is wrong is refused whole, with every problem; columns that are not known
are named and ignored.

- **Times** are ISO 8601 with an offset, or epoch milliseconds, from 1990 to 2099. `known_at` is the
  instant from which the fact could be known here; nothing else moves a window.
- **Money** is whole minor units with an ISO 4217 code. `fx_rates.rate` is what one unit of the
  currency was worth in the base currency on a day; the latest rate on or before the day counts,
  and without one an amount is unknown, never zero.
- **Ids** are texts. `event_id` may be left out: it is then a hash of what the row says, without
  times and persons. Rows that differ in a person alone need ids of their own.
- **An outcome without an amount** paid what its refund asked for, less what policy keeps.
- Of several versions of an order or refund the one known first counts in history.
- **An order update** is about the line that it names by `sku` or `line_id`, else about the whole
  order; `quantity` is how many pieces of the line have come so far, without one all of them.
- **`payment_method_expires_at`** is the last instant at which the payment method was valid.
- **`decisions`** is what a service decided, written by `recourse export`: at `known_at`, with the
  probability (`propensity`) of the action taken, and whether the policy's random holdout paid a
  refund that it would have held (`explored`). No feature reads it and no import loads it;
  evaluation weighs labels by it.
"""

_CODES: Final = """
## Coded values

The feature table holds a coded column as the place of its value in its list, from 0; a value
outside the list is kept and coded as the list's length.
"""


def render() -> str:
    """The page: the rules, a table of columns for each table, and the lists of coded values."""
    return "\n".join([_HEAD, *_tables(), _CODES, *_lists()]) + "\n"


def _tables() -> Iterator[str]:
    for name, columns in SCHEMA.items():
        yield f"## {name}\n"
        if name in EVENT_OF_TABLE and EVENT_OF_TABLE[name].one_of:
            event = EVENT_OF_TABLE[name]
            how = "Exactly one" if event.only_one else "At least one"
            yield f"{how} of {', '.join(f'`{column}`' for column in event.one_of)} is given.\n"
        yield "| column | holds | |"
        yield "|---|---|---|"
        for column in columns:
            yield f"| `{column.name}` | {_holds(column)} | {'required' * column.required} |"
        yield ""


def _holds(column: Column) -> str:
    if column.name in VOCABULARY and not column.choices:
        return f"a value of the list `{column.name}`, or another"
    return column.expected


def _lists() -> Iterator[str]:
    yield "| list | values, from 0 |"
    yield "|---|---|"
    for column, values in CODES.items():
        if column != "currency":
            yield f"| `{column}` | {', '.join(values)} |"
    yield f"| `currency` | the {len(CODES['currency'])} codes of ISO 4217 in alphabetical order |"


if __name__ == "__main__":
    sys.stdout.write(render())
