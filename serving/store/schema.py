"""The tables of the store.

Identifiers of persons never stand in them: `identifiers` holds them encrypted, everything else
holds their pseudonyms. Times are epoch milliseconds UTC, documents are JSON text.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    literal_column,
)

SCHEMA_VERSION: Final = 8
"""Rises with any change below, which a module of `serving.store.migrations.versions` makes in the
stores there are. A newer program's store is refused, an older one's is upgraded."""

metadata = MetaData()

# Ids compare by bytes everywhere, as Python compares strings: ties must break alike on each store.
_ID: Final = Text().with_variant(Text(collation="C"), "postgresql")
_SEQ: Final = BigInteger().with_variant(Integer(), "sqlite")

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""What the store is: its clock, the id of the key its pseudonyms come from, and the layout that its
index is packed by. How far its schema has come stands in a table of Alembic's."""

events = Table(
    "events",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("event_id", _ID, nullable=False, unique=True),
    Column("event_type", _ID, nullable=False),
    Column("known_at", BigInteger, nullable=False),
    Column("order_id", _ID),
    Column("refund_id", _ID),
    Column("payload", Text, nullable=False),
    Column("xid", BigInteger),
    sqlite_autoincrement=True,
)
"""Every fact, once, in order of arrival. The payload is the whole event under pseudonyms. On
PostgreSQL ``xid`` is the transaction that wrote it, which fills it in itself: numbers are given out
before they are committed, so that a read may see a later one and not an earlier. Empty where it was
written before version 6."""

for _name in ("order_id", "refund_id"):
    _given = events.c[_name].is_not(None)
    Index(  # in the order in which the versions of an order or refund follow one another
        f"events_by_{_name}", events.c[_name], events.c.event_type, events.c.known_at,
        events.c.event_id, sqlite_where=_given, postgresql_where=_given,
    )  # fmt: skip

event_keys = Table(
    "event_keys",
    metadata,
    Column("slice", SmallInteger, nullable=False),
    Column("key_value", _ID, nullable=False),
    Column("known_at", BigInteger, nullable=False),
    Column("own_known_at", BigInteger, nullable=False),
    Column("event_id", _ID, nullable=False),
    Column("packed", LargeBinary, nullable=False),
    PrimaryKeyConstraint("key_value", "slice", "known_at", "own_known_at", "event_id"),
    sqlite_with_rowid=False,
)
"""Which events belong to a key, and from when: own keys and inherited ones (see `indexing`).

The primary key is the order in which a decision reads: all slices of a key side by side, and in
each its events as features see them, those inherited at one instant by their own times. ``packed``
is all that features read of an event (see `features.packed`), so that a decision looks at nothing
else. The table is derived: it is made anew from the events whenever another layout is wanted.
"""

entities = Table(
    "entities",
    metadata,
    Column("kind", _ID, nullable=False),
    Column("value", _ID, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("moved", BigInteger, nullable=False),
    Column("latest", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("kind", "value"),
    sqlite_with_rowid=False,
)
"""When an entity was first seen; for customers, how often their history has been added to, and the
latest time that it reaches to (0 if nothing was added since version 6)."""

identifiers = Table(
    "identifiers",
    metadata,
    Column("kind", _ID, nullable=False),
    Column("mac", _ID, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    PrimaryKeyConstraint("kind", "mac"),
    sqlite_with_rowid=False,
)
"""What a pseudonym stands for, under AES-GCM."""

refunds = Table(
    "refunds",
    metadata,
    Column("refund_id", _ID, primary_key=True),
    Column("state", Text, nullable=False),
    Column("state_at", BigInteger, nullable=False),
    Column("customer", _ID),
    Column("order_id", _ID, index=True),
    Column("first_known_at", BigInteger),
    Column("payable_minor", BigInteger),
    Column("currency", Text),
    Column("score_id", _ID),
    sqlite_with_rowid=False,
)
"""Where each refund stands. Customer and first_known_at are empty when only reports named it."""

reservations = Table(
    "reservations",
    metadata,
    Column("refund_id", _ID, nullable=False),
    Column("order_id", _ID, nullable=False),
    Column("currency", _ID, nullable=False),
    Column("promised_minor", BigInteger, nullable=False),
    Column("review_minor", BigInteger, nullable=False),
    Column("paid_at", BigInteger),
    PrimaryKeyConstraint("refund_id", "order_id", "currency"),
    Index("reservations_by_order", "order_id"),
    sqlite_with_rowid=False,
)
"""What each refund holds of the orders that decisions on it were about, in minor units. It stays
when nothing is held any more: that the service decided on the refund is to be known, too."""

reviews = Table(
    "reviews",
    metadata,
    Column("score_id", _ID, nullable=False),
    Column("refund_id", _ID, nullable=False),
    Column("customer", _ID, nullable=False),
    Column("order_id", _ID),
    Column("currency", _ID, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("due_minor", BigInteger, nullable=False),
    Column("payable_minor", BigInteger),
    Column("expected_loss_minor", BigInteger),
    Column("probability", Float(53)),
    Column("place", BigInteger, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("overdue_told_at", BigInteger),
    Column("status", Text, nullable=False),
    Column("assignee", Text),
    Column("closed_at", BigInteger),
    Column("ending", Text),
    Column("closed_by", Text),
    PrimaryKeyConstraint("score_id"),
    Index("reviews_by_refund", "refund_id", "opened_at"),
    sqlite_with_rowid=False,
)
"""What waits, or waited, for a person: a review for each decision that held a refund. ``due_minor``
is what would be paid, in the refund's currency; ``payable_minor`` the same in the base currency, as
is the expected loss. ``place`` is where it stands in the queue, the lowest first."""

is_waiting = reviews.c.status != literal_column("'DONE'")
"""Of the reviews that are not done; said as the indexes have it, which a parameter would not be."""

for _index, _named, _which in (
    ("reviews_open_by_refund", "refund_id", reviews.c.closed_at.is_(None)),  # at most one
    # In other words than the one above, lest a database take one of these in its place.
    # All that the queue is asked for by: so what is not wanted is not looked up in the table.
    (
        "reviews_open_by_place",
        "place score_id status assignee due_at opened_at payable_minor currency order_id customer",
        is_waiting,
    ),
    ("reviews_open_by_due", "due_at overdue_told_at", is_waiting),
    ("reviews_closed", "closed_at score_id", reviews.c.closed_at.is_not(None)),
):
    Index(
        _index, *(reviews.c[column] for column in _named.split()),
        unique=_index == "reviews_open_by_refund", sqlite_where=_which, postgresql_where=_which,
    )  # fmt: skip

review_acts = Table(
    "review_acts",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("refund_id", _ID, nullable=False),
    Column("score_id", _ID, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("act", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("justification", Text),
    Column("abuse", Boolean),
    Column("assignee", Text),
    Index("review_acts_by_refund", "refund_id", "seq"),
    Index("review_acts_by_time", "at"),
    sqlite_autoincrement=True,
)
"""What people did on reviews. Only ever appended to, but that ``justification`` may be erased."""

review_approvals = Table(
    "review_approvals",
    metadata,
    Column("score_id", _ID, primary_key=True),
    Column("first_by", Text, nullable=False),
    Column("first_rank", Integer, nullable=False),
    Column("first_limit_minor", BigInteger),
    Column("first_at", BigInteger, nullable=False),
    Column("justification", Text),
    Column("abuse", Boolean),
    Column("second_by", Text),
    Column("second_rank", Integer),
    Column("second_limit_minor", BigInteger),
    Column("second_at", BigInteger),
    sqlite_with_rowid=False,
)
"""Who stands behind a refund that was approved, or is proposed to be: with how much each may
approve alone (base currency, empty for any amount). Without enough of them a trigger lets no review
end as approved."""

attachments = Table(
    "attachments",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("refund_id", _ID, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("added_at", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Index("attachments_by_refund", "refund_id", "added_at"),
)
"""Evidence that people attached to a refund's case; ``content`` is under AES-GCM."""

accounts = Table(
    "accounts",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("name_key", _ID, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("limit_minor", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("password", Text),
    Column("totp", LargeBinary),
    Column("totp_step", BigInteger),
    Column("invitation", Text, unique=True),
    Column("invited_until", BigInteger),
    Column("disabled_at", BigInteger),
    sqlite_with_rowid=False,
)
"""The people who use the console. ``name_key`` is the name as people are told apart by it,
``password`` an argon2 hash, ``totp`` the secret of one-time codes under AES-GCM, ``totp_step`` the
last code that was taken, and ``invitation`` the hash of the one that lets them set both."""

sign_in_tries = Table(
    "sign_in_tries",
    metadata,
    Column("name_mac", _ID, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("locked_until", BigInteger),
    Index("sign_in_tries_by_time", "last_at"),
    sqlite_with_rowid=False,
)
"""How often in a row signing in failed under a name, whether or not an account has it: so that
being made to wait tells nobody which names there are. The names stand under a keyed hash, as people
type passwords there, too."""

sessions = Table(
    "sessions",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("account_id", _ID, nullable=False),
    Column("began_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Index("sessions_by_account", "account_id"),
    sqlite_with_rowid=False,
)
"""Who is signed in, by the hash of what their browser holds."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("begun_at", BigInteger),
    Column("tries", Integer, nullable=False),
    Column("done_at", BigInteger),
    Column("problem", Text),
    Column("document", Text),
    Column("page", Text),
    Index("jobs_by_kind", "kind", "asked_at"),
    sqlite_with_rowid=False,
)
"""What takes too long for a page: backtests and reports of a period, asked for, under way, done.
``document`` is what came of one as JSON, ``page`` the same for a browser."""

decisions = Table(
    "decisions",
    metadata,
    Column("score_id", _ID, primary_key=True),
    Column("refund_id", _ID, nullable=False),
    Column("content_hash", _ID, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    Column("record", Text, nullable=False),
    Column("response", Text, nullable=False),
    Column("features", LargeBinary),
    Column("feature_names", _ID),
    Column("contributions", LargeBinary),
    Column("contribution_names", _ID),
    Index("decisions_by_refund", "refund_id", "content_hash", "decided_at"),
    Index("decisions_by_time", "decided_at", "score_id"),
)
"""What was decided, on what grounds (record) and what was answered (response).

The numbers of a record stand beside it, as little-endian float64 in the order of a list of names,
NaN for unknown: they are most of it, and a million of them are to be read without parsing. Rows of
a store before version 4 hold them in the record.
"""

name_lists = Table(
    "name_lists",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("names", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""Lists of names that decisions give a number each: the features of a catalog."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("api_key_id", _ID, nullable=False),
    Column("key", _ID, nullable=False),
    Column("content_hash", _ID, nullable=False),
    Column("status", Integer, nullable=False),
    Column("response", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    PrimaryKeyConstraint("api_key_id", "key"),
    sqlite_with_rowid=False,
)
"""The first result of each idempotency key."""

audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", _ID, nullable=False, index=True),
    Column("content", Text, nullable=False),
    Column("commitment", Text),
    Column("personal", Text),
    sqlite_autoincrement=True,
)
"""Who did what to what. Only ever appended to, but that ``personal`` may be erased: what the
commitment is to, with its salt."""

audit_seals = Table(
    "audit_seals",
    metadata,
    Column("position", _SEQ, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)
"""The chain over the audit log: position 1, 2, 3 … seals the entry ``seq`` (see `seals`). Only ever
appended to."""

lists = Table(
    "lists",
    metadata,
    Column("value", _ID, nullable=False),
    Column("list", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("author", Text),
    PrimaryKeyConstraint("value", "list"),
    Index("lists_by_time", "list", "created_at", "value"),
    sqlite_with_rowid=False,
)
"""Blocked and allowed entities. A pseudonym differs by kind, so it alone is the key. Who put an
entity there is unknown for the entries of a store before version 4."""

policies = Table(
    "policies",
    metadata,
    Column("hash", _ID, primary_key=True),
    Column("version", _ID, nullable=False, unique=True),
    Column("text", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("note", Text),
    Column("created_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Every policy that was ever proposed. Only ever appended to."""

policy_acts = Table(
    "policy_acts",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("act", Text, nullable=False),
    Column("hash", _ID, nullable=False),
    Column("replaced", _ID),
    Column("actor", Text, nullable=False),
    Column("note", Text),
    sqlite_autoincrement=True,
)
"""Which policy was put in force, when and by whom. Only ever appended to."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sha256", Text, nullable=False, unique=True),
    Column("mode", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("name", Text),
    Column("expires_at", BigInteger),
)
"""API keys by the hash of the key; ``name`` is the holder's, as a person or a program."""

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("url", Text, nullable=False, unique=True),
    Column("types", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("previous_secret", LargeBinary),
    Column("previous_until", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    Column("disabled_why", Text),
)
"""Who is told what, and the secret that signs it, under AES-GCM; for a while after a rotation the
one before it, too. ``types`` stand between spaces, each with one on either side."""

webhook_outbox = Table(
    "webhook_outbox",
    metadata,
    Column("webhook_id", _ID, nullable=False),
    Column("endpoint_id", _ID, nullable=False),
    Column("type", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("due_since", BigInteger, nullable=False),
    Column("next_at", BigInteger),
    Column("attempts", Integer, nullable=False),
    Column("delivered_at", BigInteger),
    Column("dead_at", BigInteger),
    Column("outcome", Text),
    PrimaryKeyConstraint("webhook_id", "endpoint_id"),
    sqlite_with_rowid=False,
)
"""What is to be told to whom, written in the transaction of what it tells.

``next_at`` is empty once it was delivered or given up; ``due_since`` is when it was announced, or
last sent again by a person. An id begins with its time, so the table is in the order of time.
"""

for _name, _columns in (("next_at", ("endpoint_id", "next_at", "created_at")),
                        ("dead_at", ("dead_at",))):  # fmt: skip
    _given = webhook_outbox.c[_name].is_not(None)
    Index(
        f"webhook_outbox_by_{_name}", *(webhook_outbox.c[column] for column in _columns),
        sqlite_where=_given, postgresql_where=_given,
    )  # fmt: skip

leases = Table(
    "leases",
    metadata,
    Column("name", _ID, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until_at", BigInteger, nullable=False),
    Column("ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Which process does what only one may do at a time, and until when."""

fx_rates = Table(
    "fx_rates",
    metadata,
    Column("date", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("rate", Float(53), nullable=False),
    PrimaryKeyConstraint("date", "currency"),
    sqlite_with_rowid=False,
)
"""What one major unit of a currency was worth in the base currency on a day."""
