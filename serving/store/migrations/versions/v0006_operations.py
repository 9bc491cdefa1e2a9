"""What running the service asks for: the sealed audit log, webhooks, erasure, keys in rotation."""

from __future__ import annotations

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Bring a store from version 5 to version 6."""
