"""Evidence that people attach to a refund's case, as rows: the content under AES-GCM.

What may be attached, by whom, and that it is audited, is for `serving.attachments`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from sqlalchemy import Connection, delete, insert, select, update

from serving.store.database import Database
from serving.store.holdings import in_parts
from serving.store.identifiers import Identifiers
from serving.store.schema import attachments

Kind: TypeAlias = Literal["image/png", "image/jpeg", "image/webp", "application/pdf"]
"""What an attachment is, as its content says."""

_SEALED_AS: Final = "attachment"


class Attachment(NamedTuple):
    """A file that somebody attached to a refund's case, without its content.

    ``name`` is for display alone. ``sha256`` is of the content, in hex; times are epoch ms.
    """

    id: str
    refund_id: str
    name: str
    kind: Kind
    size_bytes: int
    sha256: str
    author: str
    added_at: int


class Attachments:
    """The table of attachments. Holds no state of its own."""

    def __init__(self, database: Database, identifiers: Identifiers) -> None:
        self._database = database
        self._identifiers = identifiers

    def add(self, connection: Connection, attachment: Attachment, content: bytes) -> None:
        """Keep a file, sealed: bound to its id, so that no content passes for another's."""
        sealed = self._identifiers.seal_bytes(_SEALED_AS, attachment.id, content)
        connection.execute(insert(attachments).values(**attachment._asdict(), content=sealed))

    def get(self, connection: Connection, id: str) -> Attachment | None:
        """An attachment by its id."""
        row = connection.execute(_SELECT.where(attachments.c.id == id)).one_or_none()
        return None if row is None else Attachment(*row)

    def of_refund(self, connection: Connection, refund_id: str) -> list[Attachment]:
        """What is attached to a refund, the first first."""
        statement = _SELECT.where(attachments.c.refund_id == refund_id)
        ordered = statement.order_by(attachments.c.added_at, attachments.c.id)
        return [Attachment(*row) for row in connection.execute(ordered)]

    def content(self, connection: Connection, id: str) -> bytes:
        """The content; raises `cryptography.exceptions.InvalidTag` if it was tampered with."""
        sealed = connection.execute(
            select(attachments.c.content).where(attachments.c.id == id)
        ).scalar_one()
        return self._identifiers.reveal_bytes(_SEALED_AS, id, sealed)

    def remove(self, connection: Connection, id: str) -> None:
        """Delete an attachment with its content."""
        connection.execute(delete(attachments).where(attachments.c.id == id))

    def remove_of(self, connection: Connection, refund_ids: Sequence[str]) -> int:
        """Delete all that is attached to refunds; returns how many."""
        of = attachments.c.refund_id
        return sum(
            connection.execute(delete(attachments).where(of.in_(part))).rowcount
            for part in in_parts(refund_ids)
        )

    def reseal(self, connection: Connection, old: Identifiers) -> int:
        """Put the contents that ``old`` sealed under this store's key; returns how many.

        One by one: a file is up to megabytes, so no two are in memory at once.
        """
        ids = connection.execute(select(attachments.c.id)).scalars().all()
        for id in ids:
            is_it = attachments.c.id == id
            sealed = connection.execute(select(attachments.c.content).where(is_it)).scalar_one()
            content = old.reveal_bytes(_SEALED_AS, id, sealed)
            new = self._identifiers.seal_bytes(_SEALED_AS, id, content)
            connection.execute(update(attachments).where(is_it).values(content=new))
        return len(ids)


_SELECT: Final = select(*(attachments.c[name] for name in Attachment._fields))
