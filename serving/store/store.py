"""The store as the service sees it: one object per worker, reads, and write transactions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Unpack

from sqlalchemy import Connection, select

from features.events import Event, RefundRequest
from serving.store.accounts import Account, Accounts
from serving.store.attachments import Attachment, Attachments
from serving.store.audit import AuditEntry, AuditLog
from serving.store.database import Clock, Database, Mark, StoreRefusedError
from serving.store.decisions import (
    IDEMPOTENCY_MS,
    Decision,
    Decisions,
    FirstResult,
    RawDecision,
)
from serving.store.flights import Flights
from serving.store.history import Appended, History, Slices
from serving.store.identifiers import Identifiers
from serving.store.indexing import StoredEvent
from serving.store.jobs import Jobs
from serving.store.keys import ApiKeys
from serving.store.leases import Leases
from serving.store.lists import ListEntry, ListName, Lists, NewEntry
from serving.store.outbox import EventType, Outbox
from serving.store.policies import ActName, Policies, PolicyAct, PolicyVersion
from serving.store.refunds import Decided, Refund, Refunds, State
from serving.store.reservations import Reservation, Reservations
from serving.store.reviews import Act, Review, Reviews, Wanted
from serving.store.schema import fx_rates, identifiers


class Grounds(NamedTuple):
    """What a decision rests on: slices of history, list entries in force, its order's documents."""

    slices: Slices
    entries: tuple[ListEntry, ...]
    order_events: list[Event]


class Store:
    """What the service remembers. Open one per worker process, after it was forked.

    Threads may share it: every read and every transaction takes a connection of its own. A
    `Transaction` belongs to the thread that opened it. Nothing here reads a clock: times of
    decisions and entries are arguments.

    >>> import tempfile
    >>> import numpy as np
    >>> from features.events import RefundRequest
    >>> from features.packed import LAYOUT
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = Store.open(f"sqlite:///{folder.name}/s.db", b"a secret of 16 bytes or more")
    >>> request = RefundRequest(
    ...     refund_id="r1", customer_id="c1", known_at=1_000, amount_minor=500, currency="GBP")
    >>> with store.write("c1") as tx:
    ...     [appended.is_new for appended in tx.append([request, request])]
    [True, False]
    >>> slices = store.read({"customer": "c1"}, 2_000, [("customer", "refund_request")])
    >>> packed = slices.rows["customer", "refund_request"]
    >>> np.frombuffer(packed, LAYOUT["refund_request"])[["at", "amount"]].tolist()
    [(1000, 500)]
    >>> store.close(); folder.cleanup()
    """

    def __init__(self, database: Database, pseudonyms_of: Identifiers, clock: Clock) -> None:
        self.database = database
        self.identifiers = pseudonyms_of
        self.clock = clock
        self.history = History(database, pseudonyms_of)
        self.refunds = Refunds(database)
        self.reservations = Reservations(database)
        self.reviews = Reviews(database)
        self.decision_log = Decisions(database)
        self.lists = Lists(database, pseudonyms_of)
        self.audit_log = AuditLog(database)
        self.keys = ApiKeys(database)
        self.accounts = Accounts(database, pseudonyms_of)
        self.attachments = Attachments(database, pseudonyms_of)
        self.flights = Flights(database)
        self.policies = Policies(database)
        self.outbox = Outbox(database, pseudonyms_of)
        self.leases = Leases(database)
        self.jobs = Jobs(database)

    @classmethod
    def open(
        cls, url: str, secret: bytes, *, create: bool = True, clock: Clock | None = None,
        upgrade: bool = False,
    ) -> Store:  # fmt: skip
        """Open a store, and make it first where there is none and ``create`` allows it.

        A store of an older program is refused, or with ``upgrade`` brought to this program's
        schema; where its index was packed by another layout, it is made anew, which takes two
        minutes for a million events. Whoever opens the store meanwhile waits. No worker of the
        older program may be left running then.

        ``clock`` is a new store's clock (``ingest`` if None) and must fit that of one already made.
        Raises `StoreRefusedError` for a store that this program, or this secret, must not use, and
        what `STORE_UNAVAILABLE` lists when the database cannot be reached.
        """
        pseudonyms_of = Identifiers(secret)
        database = Database(url)
        try:
            if create:
                database.create(pseudonyms_of.key_id, clock or "ingest")
            kept = database.check(pseudonyms_of.key_id)
            if clock not in (None, kept):
                raise StoreRefusedError(f"the store's clock is {kept!r} for good, got {clock!r}")
            database.upgrade(allowed=upgrade)
            store = cls(database, pseudonyms_of, kept)
            store.history.upgrade(allowed=upgrade)
        except BaseException:
            database.close()
            raise
        return store

    def close(self) -> None:
        """Give every connection back."""
        self.flights.close()
        self.database.close()

    def read(
        self, keys: Mapping[str, str], cutoff: int, reads: Sequence[tuple[str, str]]
    ) -> Slices:
        """The slices of these keys as of a cutoff; see `History.read`."""
        with self.database.read() as connection:
            return self.history.read(connection, keys, cutoff, reads)

    def order_events(self, request: RefundRequest) -> list[Event]:
        """The documents of a request's order; see `History.order_events`."""
        with self.database.read() as connection:
            return self.history.order_events(connection, request)

    def grounds(
        self, request: RefundRequest, keys: Mapping[str, str], reads: Sequence[tuple[str, str]]
    ) -> Grounds:
        """All that a decision on a request reads as of its cutoff, a statement each.

        ``keys`` are the request's and ``reads`` the slices wanted, as `read` takes them.
        """
        at, pseudonyms = request.known_at, self.history.pseudonyms(keys)
        with self.database.read() as connection:
            return Grounds(
                self.history.read(connection, keys, at, reads, pseudonyms),
                self.lists.of_pseudonyms(connection, pseudonyms, at),
                self.history.order_events(connection, request, pseudonyms),
            )

    def refund_events(self, refund_id: str) -> list[StoredEvent]:
        """The latest 1,000 events that name a refund; see `History.refund_events`."""
        return self.history.refund_events(refund_id)

    @contextmanager
    def write(
        self, customer_id: str | None = None, order_id: str | None = None
    ) -> Iterator[Transaction]:
        """A write transaction: committed, and then durable, at the end of the ``with`` block.

        Transactions of one customer, and of one order, run one after another. On SQLite all do.
        """
        customers = () if customer_id is None else (customer_id,)
        with self.write_about(customers, () if order_id is None else (order_id,)) as tx:
            yield tx

    @contextmanager
    def write_about(
        self, customer_ids: Iterable[str], order_ids: Iterable[str]
    ) -> Iterator[Transaction]:
        """As `write`, about any number of customers and orders."""
        names = [("customer", self.identifiers.mac("customer", each)) for each in customer_ids]
        names += [("order", each) for each in order_ids]
        with self.database.write() as connection:
            self.database.lock(connection, names)
            yield Transaction(self, connection)

    @contextmanager
    def write_on(self, review: Review) -> Iterator[Transaction]:
        """As `write`, about a review: its customer, and the orders that its refund holds any of."""
        names = {("customer", review.customer)}
        names |= {("order", one.order_id) for one in self.reserved_for(review.refund_id)}
        names |= {("order", review.order_id)} if review.order_id else set()
        with self.database.write() as connection:
            self.database.lock(connection, names)
            yield Transaction(self, connection)

    @contextmanager
    def write_on_refund(self, refund: Refund) -> Iterator[Transaction]:
        """As `write`, about what people attach to a refund: one at a time, none as it is erased."""
        names = {("attachments", refund.refund_id)}
        names |= {("customer", refund.customer)} if refund.customer else set()
        with self.database.write() as connection:
            self.database.lock(connection, names)
            yield Transaction(self, connection)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """What a transaction can read, each by itself as it is committed; nothing is to be written.

        In a ``with`` block of one connection: several reads cost little more than one.
        """
        with self.database.read() as connection:
            yield Transaction(self, connection)

    def matching_lists(self, keys: Mapping[str, str], at: int) -> tuple[ListEntry, ...]:
        """The list entries in force about any of these entities (kind -> original)."""
        with self.database.read() as connection:
            return self.lists.matching(connection, keys, at)

    def list_entries(
        self,
        name: ListName,
        *,
        entity: str | None = None,
        in_force_at: int | None = None,
        over_at: int | None = None,
        limit: int | None = None,
        after: tuple[int, str] | None = None,
    ) -> tuple[ListEntry, ...]:
        """The entries of a list, the newest first: of one kind of entity, in force at an instant.

        Expired ones are among them unless ``in_force_at`` is given; with ``over_at`` (epoch ms)
        there are only those. ``limit`` entries from
        ``after`` on, which is the `ListEntry.place` of the last one of the page before.
        """
        with self.database.read() as connection:
            return self.lists.entries(
                connection, name, entity=entity, in_force_at=in_force_at, over_at=over_at,
                limit=limit, after=after,
            )  # fmt: skip

    def policy_versions(self) -> list[PolicyVersion]:
        """Every policy there ever was, the oldest first."""
        with self.database.read() as connection:
            return self.policies.versions(connection)

    def policy(self, version: str) -> PolicyVersion | None:
        """The policy of this version."""
        with self.database.read() as connection:
            return self.policies.get(connection, version)

    def policy_by_hash(self, hash: str) -> PolicyVersion | None:
        """The policy of this hash, as decisions name it."""
        with self.database.read() as connection:
            return self.policies.by_hash(connection, hash)

    def active_policy(self) -> PolicyVersion | None:
        """The policy in force; None before the first was activated."""
        with self.database.read() as connection:
            return self.policies.active(connection)

    def last_policy_act(self) -> int:
        """The number of the last act that put a policy in force, 0 before the first.

        A look at the end of an index: to be asked as often as each second.
        """
        with self.database.read() as connection:
            return self.policies.last_act(connection)

    def policy_acts(self) -> list[PolicyAct]:
        """Every act that put a policy in force, the first first."""
        with self.database.read() as connection:
            return self.policies.acts(connection)

    def refund(self, refund_id: str) -> Refund | None:
        """Where a refund stands; None if nothing ever named it."""
        with self.database.read() as connection:
            return self.refunds.get(connection, [refund_id]).get(refund_id)

    def reserved(self, order_id: str, besides: str) -> tuple[Reservation, ...]:
        """What other refunds than ``besides`` hold of an order's balance."""
        with self.database.read() as connection:
            return self.reservations.of_order(connection, order_id, besides)

    def reserved_for(self, refund_id: str) -> list[Reservation]:
        """What a refund holds, of each order that a decision on it was about."""
        with self.database.read() as connection:
            return self.reservations.of_refunds(connection, [refund_id]).get(refund_id, [])

    def review_queue(
        self, *, limit: int = 100, after: tuple[int, str] | None = None, **wanted: Unpack[Wanted]
    ) -> list[Review]:
        """What waits for a person; see `Reviews.queue`. Nothing is late by the clock ``event``."""
        if wanted.get("overdue_at") is not None and self.clock == "event":
            return []
        with self.database.read() as connection:
            return self.reviews.queue(connection, limit=limit, after=after, **wanted)

    def count_review_queue(self, **wanted: Unpack[Wanted]) -> int:
        """How many there are of what `review_queue` gives, without a limit."""
        if wanted.get("overdue_at") is not None and self.clock == "event":
            return 0
        with self.database.read() as connection:
            return self.reviews.count_queue(connection, **wanted)

    def next_review(
        self, name: str, rank: int, after: tuple[int, str] | None = None,
        **wanted: Unpack[Wanted],
    ) -> Review | None:  # fmt: skip
        """The next case for somebody; see `Reviews.next_open`. Late is as `review_queue` has it."""
        if wanted.get("overdue_at") is not None and self.clock == "event":
            return None
        with self.database.read() as connection:
            return self.reviews.next_open(connection, name, rank, after, **wanted)

    def review_assignees(self, limit: int) -> list[str]:
        """Who has reviews that wait, by name."""
        with self.database.read() as connection:
            return self.reviews.assignees(connection, limit)

    def is_overdue(self, review: Review, at: int) -> bool:
        """Whether a review is late at ``at`` (epoch ms).

        In a store with the clock ``event`` the present tells no age, so nothing is late there.
        """
        return self.clock == "ingest" and review.is_overdue(at)

    def reviews_waiting(self, at: int) -> tuple[int, int]:
        """How many reviews wait, and how many of them are late by ``at`` (epoch ms)."""
        with self.database.read() as connection:
            waiting, overdue = self.reviews.count(connection, at)
        return waiting, overdue if self.clock == "ingest" else 0

    def reviews_of(
        self, refund_id: str, limit: int | None = None
    ) -> tuple[list[Review], list[Act]]:
        """The reviews of a refund, the latest first, and what people did there, the first first.

        The one that is open, if one is, is the latest; there is one for each time that it was held.
        """
        with self.database.read() as connection:
            return (
                self.reviews.of_refund(connection, refund_id, limit),
                self.reviews.acts(connection, refund_id),
            )

    def decision(self, score_id: str) -> Decision | None:
        """A decision by its id."""
        with self.database.read() as connection:
            return self.decision_log.get(connection, score_id)

    def decisions_of(self, refund_id: str) -> list[Decision]:
        """Every decision on a refund, the latest first."""
        with self.database.read() as connection:
            return self.decision_log.of_refund(connection, refund_id)

    def outbox_lag(self, at: int) -> tuple[int, int, int]:
        """How many webhooks wait, how old the oldest of them is at ``at`` (ms), how many are dead.

        Both counts read indexes that hold nothing else, so they cost what there is to count.
        """
        with self.database.read() as connection:
            waiting, oldest, dead = self.outbox.backlog(connection)
        return waiting, 0 if oldest is None else max(at - oldest, 0), dead

    def audit_about(self, subject: str) -> list[AuditEntry]:
        """The audit entries about one subject, oldest first."""
        with self.database.read() as connection:
            return self.audit_log.about(connection, subject)

    def events(self, until_seq: int | None = None) -> Iterator[StoredEvent]:
        """Every event up to a sequence number (None: all), as stored, in order of arrival.

        ``Slices.snapshot`` is such a number. Payloads are under pseudonyms, with their
        ``event_id`` and without nulls; an order's or refund's lines are its ``items``. Read in
        parts of 10,000, so that neither memory nor the database is held.
        """
        return self.history.events(until_seq)

    def event_transactions(self) -> Iterator[tuple[int, int]]:
        """Sequence number and writing transaction of events; none on SQLite.

        With ``Slices.transactions`` they tell exactly which events a read saw.
        """
        return self.history.transactions()

    def decisions(self, since: int | None = None, until: int | None = None) -> Iterator[Decision]:
        """Decisions with ``since <= decided_at < until`` (epoch ms; None: no bound), oldest first.

        At one instant in the order of their ids; read in parts, as `events` is.
        """
        return self.decision_log.between(since, until)

    def raw_decisions(
        self, since: int | None = None, until: int | None = None, *, contributions: bool = False
    ) -> Iterator[RawDecision]:
        """As `decisions`, with nothing parsed: for reading millions of them.

        What each feature contributed comes only where it is asked for.
        """
        return self.decision_log.raw_between(since, until, contributions=contributions)

    def decision_ranges(
        self, parts: int, since: int | None = None, until: int | None = None
    ) -> list[tuple[int, int]]:
        """Ranges ``(since, until)`` that share out the decisions there are now, about evenly.

        So several processes may each read a part. What is decided at one instant stays together, so
        there may be fewer than ``parts``; without decisions there are none.
        """
        with self.database.read() as connection:
            return self.decision_log.ranges(connection, parts, since, until)

    def fx_rates(self) -> list[tuple[str, str, float]]:
        """Rows of (ISO date, currency, rate), as `features.money.Rates.of` takes them."""
        columns = (fx_rates.c.date, fx_rates.c.currency, fx_rates.c.rate)
        statement = select(*columns).order_by(fx_rates.c.date, fx_rates.c.currency)
        with self.database.read() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(statement)]

    def reveal(self, kind: str, pseudonyms: Collection[str]) -> dict[str, str]:
        """Originals by pseudonym; what was erased is left out. The caller audits this."""
        statement = select(identifiers.c.mac, identifiers.c.ciphertext).where(
            identifiers.c.kind == kind, identifiers.c.mac.in_(list(pseudonyms))
        )
        with self.database.read() as connection:
            rows = connection.execute(statement).fetchall()
        return {mac: self.identifiers.reveal(kind, mac, sealed) for mac, sealed in rows}


class Transaction:
    """What can be done in one write transaction: all of it is kept, or nothing."""

    def __init__(self, store: Store, connection: Connection) -> None:
        self._store = store
        self._connection = connection

    def mark(self) -> Mark | None:
        """Where the store stands, to be taken before what is read; None on PostgreSQL."""
        return self._store.database.mark(self._connection)

    def is_still_at(self, mark: Mark | None) -> bool:
        """Whether nothing at all was written since the mark, so that all is as it was read then.

        In doubt it is not: what rests on a read is then to be looked at again.
        """
        return mark is not None and mark == self.mark()

    def customer_moved_since(self, slices: Slices) -> bool:
        """Whether the customer's history was added to since the slices were read.

        To be asked before this transaction appends anything.
        """
        return self._store.history.customer_moved(self._connection, slices)

    def append(self, events: Iterable[Event], decided: Decided | None = None) -> list[Appended]:
        """Store events in the order given; one whose ``event_id`` is there already is ignored.

        Refund requests and outcomes move the refund's lifecycle as what they are: reports. An
        outcome that is told again once the refund stands otherwise is a new one. What was
        ``decided`` on the refund that the events ask for comes after them.
        """
        taken = self._store.refunds.taken_again(self._connection, events)
        return self._store.history.append(self._connection, taken, decided)

    def transition(self, refund_id: str, *to: State, at: int, reported: bool = False) -> bool:
        """Move a refund through states; returns whether a report was unexpected.

        Ours are refused with `TransitionRefusedError` when not listed; reports are always
        recorded, except those older than the state the refund is in.
        """
        return self._store.refunds.transition(self._connection, refund_id, to, at, reported)

    def refund(self, refund_id: str) -> Refund | None:
        """Where a refund stands."""
        return self._store.refunds.get(self._connection, [refund_id]).get(refund_id)

    def ask_again(self, refund_id: str, *, at: int) -> None:
        """Begin anew with a refund that was denied or canceled, as its backend asks for it again.

        Any other stays where it is; see `serving.store.refunds.Refund.ask_again`.
        """
        self._store.refunds.ask_again(self._connection, refund_id, at)

    def reserve(self, reservation: Reservation) -> None:
        """Keep what a refund holds of an order, in place of what it held."""
        self._store.reservations.put(self._connection, [reservation])

    def reservation(self, refund_id: str, order_id: str, currency: str) -> Reservation:
        """What a refund holds of an order in a currency: nothing where no decision was about it."""
        held = self._store.reservations.of_refunds(self._connection, [refund_id])
        found = (
            r for r in held.get(refund_id, ()) if (r.order_id, r.currency) == (order_id, currency)
        )
        return next(found, Reservation(refund_id, order_id, currency))

    def reserved_for(self, refund_id: str) -> list[Reservation]:
        """What a refund holds, of each order that a decision on it was about."""
        return self._store.reservations.of_refunds(self._connection, [refund_id]).get(refund_id, [])

    def reserved(self, order_id: str, besides: str) -> tuple[Reservation, ...]:
        """What other refunds than ``besides`` hold of an order's balance."""
        return self._store.reservations.of_order(self._connection, order_id, besides)

    def order_events(self, request: RefundRequest) -> list[Event]:
        """The documents of the order of a request whose persons stand under pseudonyms."""
        return self._store.history.order_events(self._connection, request, {})

    def review(self, refund_id: str) -> Review | None:
        """The latest review of a refund: the one that is open, if one is."""
        return next(iter(self._store.reviews.of_refund(self._connection, refund_id, 1)), None)

    def account(self, name: str) -> Account | None:
        """The account of a person, however their name is spelt."""
        return self._store.accounts.by_name(self._connection, name)

    def has_verdict(self, refund_id: str) -> bool:
        """Whether somebody said on a refund's reviews whether it is abuse, last of all."""
        said = self._store.reviews.acts(self._connection, refund_id)
        last = next((act for act in reversed(said)
                     if act.abuse is not None or act.act == "reopened"), None)  # fmt: skip
        return last is not None and last.act != "reopened"

    def last_act_at(self, refund_id: str) -> int:
        """When a person last did something on a refund's reviews; 0 if nobody did."""
        return self._store.reviews.last_act_at(self._connection, refund_id)

    def decision(self, score_id: str) -> Decision | None:
        """A decision by its id."""
        return self._store.decision_log.get(self._connection, score_id)

    def change_review(self, review: Review, act: Act) -> None:
        """Keep how a review stands after what a person did, and that they did it."""
        self._store.reviews.change(self._connection, review)
        self._store.reviews.add_act(self._connection, act)

    def dispose(self, review: Review, to: State, *, at: int) -> Refund:
        """Move a refund as an analyst answered; see `serving.store.refunds.Refunds.dispose`."""
        return self._store.refunds.dispose(self._connection, review, to, at)

    def reopen(self, review: Review, *, at: int) -> Refund:
        """Let a refusal wait for a person again; see `serving.store.refunds.Refunds.reopen`."""
        return self._store.refunds.reopen(self._connection, review, at)

    def attachment(self, id: str) -> Attachment | None:
        """An attachment by its id."""
        return self._store.attachments.get(self._connection, id)

    def attachments(self, refund_id: str) -> list[Attachment]:
        """What is attached to a refund, the first first."""
        return self._store.attachments.of_refund(self._connection, refund_id)

    def attached(self, id: str) -> bytes:
        """The content of an attachment; see `Attachments.content`."""
        return self._store.attachments.content(self._connection, id)

    def attach(self, attachment: Attachment, content: bytes) -> None:
        """Keep a file with a refund."""
        self._store.attachments.add(self._connection, attachment, content)

    def detach(self, id: str) -> None:
        """Delete an attachment with its content."""
        self._store.attachments.remove(self._connection, id)

    def overdue_reviews(self, at: int, limit: int) -> list[Review]:
        """What is late by ``at`` and nobody was told of, the longest due first."""
        if self._store.clock == "event":
            return []
        return self._store.reviews.overdue(self._connection, at, limit)

    def told_overdue(self, review: Review, at: int) -> bool:
        """Note that it was told that a review is late; whether that was still to be told."""
        return self._store.reviews.told_overdue(self._connection, review.score_id, at)

    def find_decision(self, refund_id: str, content_hash: str) -> Decision | None:
        """The latest decision about exactly this content, and what became of its review."""
        return self._store.decision_log.find(self._connection, refund_id, content_hash)

    def decisions_of(self, refund_id: str) -> list[Decision]:
        """Every decision on a refund, the latest first."""
        return self._store.decision_log.of_refund(self._connection, refund_id)

    def save_decision(self, decision: Decision, *, is_last: bool = False) -> None:
        """Store a decision and make it the refund's last one, unless it ``is_last`` already."""
        self._store.decision_log.save(self._connection, decision, is_last=is_last)

    def first_result(self, api_key_id: str, key: str, at: int) -> FirstResult | None:
        """What an idempotency key got at first, if that is not 24 hours old."""
        return self._store.decision_log.first_result(self._connection, api_key_id, key, at)

    def latest_result(self, api_key_id: str, key: str) -> FirstResult | None:
        """What an idempotency key got, however long ago."""
        since_ever = IDEMPOTENCY_MS
        return self.first_result(api_key_id, key, since_ever)

    def customer(self, customer_id: str) -> tuple[int, int]:
        """How often a customer's history was added to, and the latest time that it reaches to."""
        return self._store.history.customer(self._connection, customer_id)

    def save_first_result(self, api_key_id: str, key: str, result: FirstResult) -> None:
        """Store what an idempotency key got."""
        self._store.decision_log.save_first_result(self._connection, api_key_id, key, result)

    def audit(
        self, actor: str, action: str, subject: str, content: Mapping[str, Any], *, at: int,
        personal: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Add an audit entry; what names a person, and free text, is ``personal``."""
        entry = AuditEntry(at, actor, action, subject, content, personal)
        self._store.audit_log.append(self._connection, entry)

    def audit_many(self, entries: Iterable[AuditEntry]) -> None:
        """Add audit entries, in this order: many at once in a third of the time."""
        self._store.audit_log.append_many(self._connection, entries)

    def announce(self, event_type: EventType, data: Mapping[str, Any], at: int) -> None:
        """Tell the webhooks that want this type; nothing of a person may be in ``data``."""
        self._store.outbox.announce(self._connection, event_type, data, at)

    def put_on_list(
        self,
        name: ListName,
        entity: str,
        original: str,
        *,
        reason: str,
        author: str,
        at: int,
        expires_at: int | None = None,
    ) -> ListEntry:
        """Put an entity on a list, or renew its entry."""
        new = NewEntry(entity, original, reason, expires_at)
        [entry] = self.put_many_on_list(name, [new], author=author, at=at)
        return entry

    def put_many_on_list(
        self, name: ListName, new: Iterable[NewEntry], *, author: str, at: int
    ) -> tuple[ListEntry, ...]:
        """Put entities on a list, or renew their entries; of one entity the last entry counts."""
        return self._store.lists.put(self._connection, name, new, author=author, at=at)

    def take_off_list(self, name: ListName, entity: str, original: str) -> bool:
        """Take an entity off a list; returns whether it was on it."""
        value = self._store.identifiers.mac(entity, original)
        return self._store.lists.remove(self._connection, name, value) is not None

    # --- policies ----------------------------------------------------------------------------

    def lock_policies(self) -> None:
        """Hold other authors and activations off, so that what is read here stays so."""
        self._store.policies.lock(self._connection)

    def add_policy(
        self, *, version: str, hash: str, text: str, author: str, note: str | None, at: int
    ) -> PolicyVersion:
        """Keep a policy for ever; one of this hash that is kept already is returned as it is.

        Raises `serving.store.policies.PolicyExistsError` for a version kept with other content.
        """
        return self._store.policies.add(
            self._connection, version=version, hash=hash, text=text, author=author, note=note, at=at
        )

    def activate_policy(
        self, hash: str, *, actor: str, at: int, act: ActName = "activated",
        note: str | None = None,
    ) -> PolicyAct:  # fmt: skip
        """Put a policy that is kept in force, in place of the one that is."""
        return self._store.policies.activate(
            self._connection, hash, actor=actor, at=at, act=act, note=note
        )

    def policy(self, version: str) -> PolicyVersion | None:
        """The policy of this version."""
        return self._store.policies.get(self._connection, version)

    def active_policy(self) -> PolicyVersion | None:
        """The policy in force."""
        return self._store.policies.active(self._connection)

    def policy_acts(self) -> list[PolicyAct]:
        """Every act that put a policy in force, the first first."""
        return self._store.policies.acts(self._connection)
