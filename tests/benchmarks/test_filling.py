"""A store that was filled is the store that an import of the same population would have made."""

from pathlib import Path

import pyarrow as pa

from benchmarks.filling import Populations, row_of
from features.events import address_key
from features.tables import Tables, arrow_schema, read_folder, write_folder
from serving.store.store import Store
from serving.store.transfer import import_folder
from tests.training.tables import simulated

SECRET = b"a secret of 16 bytes or more"
POPULATION = 2


def imported(folder: Path, tables: Tables) -> Path:
    write_folder({name: t for name, t in tables.items() if t.num_rows}, folder / "data")
    store = Store.open(f"sqlite:///{folder}/store.db", SECRET, clock="event")
    import_folder(store, read_folder(folder / "data"))
    store.close()
    return folder / "store.db"


def told(store: Path) -> dict[str, list[tuple[object, ...]]]:
    opened = Store.open(f"sqlite:///{store}", SECRET, create=False)
    with opened.database.read() as connection:
        found = {
            name: sorted(map(tuple, connection.exec_driver_sql(f"SELECT {columns} FROM {name}")))
            for name, columns in (
                ("events", "event_type, known_at, order_id, refund_id, length(payload)"),
                ("event_keys", "slice, key_value, known_at, own_known_at, length(packed)"),
                ("entities", "kind, value, first_seen, moved"),
                ("refunds", "refund_id, state, customer, order_id, payable_minor"),
            )
        }
    opened.close()
    return found


def as_sent(row: dict[str, object]) -> dict[str, object]:
    """A row of the population; its address as a body would give it, by street and country."""
    named = row_of(row, POPULATION)
    street, country = named.get("address_id"), named.get("shipping_country")
    if street is not None:
        named["address_id"] = address_key(str(street), None, country and str(country))
    return named


def test_a_filled_store_is_what_an_import_makes(tmp_path: Path) -> None:
    tables = simulated(customers=40, days=120, seed=7)
    (tmp_path / "template").mkdir()
    (tmp_path / "other").mkdir()
    template = imported(tmp_path / "template", tables)
    filled = tmp_path / "filled.db"
    Populations(template, SECRET, tables).fill(filled, [POPULATION])
    other = {
        name: pa.Table.from_pylist(list(map(as_sent, table.to_pylist())), arrow_schema(name))
        for name, table in tables.items()
    }
    expected = told(imported(tmp_path / "other", other))
    for name, rows in told(filled).items():
        assert rows == expected[name], name
