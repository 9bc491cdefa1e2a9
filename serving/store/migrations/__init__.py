"""The schema of a store, version by version: what makes a new store, and an older one this one.

Each module of `versions` brings the tables from the version before to its own, on SQLite and on
PostgreSQL; Alembic keeps in the table ``alembic_version`` how far a store has come. Only forward: a
store of a newer program is refused. To change the schema, change `serving.store.schema`, add a
module that does the same to the tables of a store, and raise ``SCHEMA_VERSION``; a test holds the
two equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def upgrade(connection: Connection, to: str = "head") -> None:
    """Bring the store to a version, within the transaction of ``connection``.

    An empty database gets its tables. Rows are kept, and the index of keys where it need not be
    made anew (see `serving.store.database.Database.is_current`).
    """
    if not connection.in_transaction():
        connection.begin()  # the caller's, told to SQLAlchemy: Alembic would begin and end its own
    scripts = ScriptDirectory(Path(__file__).parent)

    def steps(reached: Any, _: MigrationContext) -> Iterable[MigrationStep]:
        ahead = list(scripts.iterate_revisions(to, reached, implicit_base=True))
        return [
            MigrationStep.upgrade_from_script(scripts.revision_map, script)
            for script in reversed(ahead)
        ]

    context = MigrationContext.configure(connection, opts={"fn": steps})
    with Operations.context(context):
        context.run_migrations()
