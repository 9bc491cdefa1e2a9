"""Everything that is known of one customer by now: figures, history, refunds, what they used and
who else used it.

The history is told in pages, the latest first, each cut at a `Place`; all that it holds is looked
at by number and time, and only what is on the page is read. Persons stand under pseudonyms.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from features.attribution import CODES
from features.events import COLUMN_OF, ENTITIES, EVENTS
from features.money import Rates
from features.packed import LAYOUT
from serving.explanation.annals import act_told
from serving.explanation.happenings import Happening, decided, happening
from serving.explanation.links import Look, linked
from serving.explanation.parts import Links, Moment, Tone
from serving.explanation.words import entity_name
from serving.language import Language
from serving.store import lookup
from serving.store.around import MOST_OF_KEY, latest_of_customer
from serving.store.holdings import Person
from serving.store.indexing import StoredEvent
from serving.store.lists import ListEntry
from serving.store.lookup import Answer, Attached, FoundRefund, Row
from serving.store.reviews import Act
from serving.store.store import Store
from serving.wire import InvalidRequest, Problem, shown

PAGE: Final = 200
"""So many rows of the history, and so many refunds, are told at once."""

MOST_USED: Final = 6
"""Of the things of one kind the latest so many are told, with who else used them."""

_CHARGEBACKS: Final = ("CHARGEBACK", "SECOND_CHARGEBACK")
_LOST: Final = ("LOST", "ACCEPTED")
_COMPLETED: Final = CODES["outcome_status"].index("COMPLETED")

Standing = Literal["paid", "refused", "waiting", "promised", "ended"]
"""Where a refund stands, as a reader asks: money went, was refused, waits for a person, may go any
time, or nothing came of it."""

STANDING: Final[Mapping[str, Standing]] = {
    "REQUESTED": "promised", "VALIDATED": "promised", "DECIDED": "promised",
    "APPROVED": "promised", "EXECUTING": "promised", "FAILED": "promised",
    "NEEDS_REVIEW": "waiting", "REFUNDED": "paid", "DENIED": "refused", "CANCELED": "ended",
}  # fmt: skip


class Place(NamedTuple):
    """Where a row of the history stands: at what instant (epoch ms), and which of that instant.

    >>> Place.of("5-3-a-b"), str(Place(5, 3, "a-b"))
    (Place(at=5, rank=3, id='a-b'), '5-3-a-b')
    """

    at: int
    rank: int
    id: str

    @classmethod
    def of(cls, text: str) -> Place:
        """The place that a page was cut at, as it is written; raises `InvalidRequest`."""
        at, _, rest = text.partition("-")
        rank, _, id = rest.partition("-")
        try:
            return cls(int(at), int(rank), id)
        except ValueError:
            told = "must be a place in the history, as the link to older rows has it"
            raise InvalidRequest([Problem("before", told, shown(text))]) from None

    def __str__(self) -> str:
        return f"{self.at}-{self.rank}-{self.id}"


@dataclass(frozen=True, slots=True)
class Sum:
    """What refunds come to in one currency, in minor units; ``paid`` is what was reported paid."""

    currency: str
    asked_minor: int = 0
    paid_minor: int = 0
    refused_minor: int = 0
    waiting_minor: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """A customer in numbers; times are epoch ms, None where they are not known.

    ``orders_refunded`` of ``orders`` had a refund asked for. ``asked_base_minor`` and
    ``ordered_base_minor`` are in the base currency, None without a rate for all of it. Disputes
    and chargebacks are counted once each, confirmed abuse by case: its latest verdict counts.
    """

    first_seen: int | None
    registered_at: int | None
    orders: int
    orders_refunded: int
    refunds: int
    by_standing: Mapping[Standing, int]
    sums: tuple[Sum, ...]
    asked_base_minor: float | None
    ordered_base_minor: float | None
    disputes: int
    chargebacks: int
    chargebacks_lost: int
    confirmed_abuse: int
    cleared: int

    @property
    def refund_rate(self) -> float | None:
        """Which share of the orders had a refund asked for."""
        return self.orders_refunded / self.orders if self.orders else None


@dataclass(frozen=True, slots=True)
class History:
    """A page of the history, the oldest first: ``older`` is where the page before it ends.

    ``total`` counts all rows there are, of each type of event the latest 10,000; ``is_cut`` where
    there are more than these.
    """

    moments: tuple[Moment, ...]
    older: Place | None
    total: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class RefundTold:
    """A refund of the customer, the last decision on it, and whether it is abuse, if that is known.

    ``base_minor`` is what it is about in the base currency, None without a rate.
    """

    refund: FoundRefund
    standing: Standing
    base_minor: float | None
    answer: Answer | None
    is_abuse: bool | None


@dataclass(frozen=True, slots=True)
class Used:
    """Something that the customer used, in the latest 1,000 orders and requests: times epoch ms.

    ``others`` counts the other customers who used it within a year, of its latest 1,000 uses.
    """

    kind: str
    pseudonym: str
    name: str
    uses: int
    first_at: int
    last_at: int
    others: int
    listed: tuple[ListEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class CustomerFile:
    """All that a page about a customer tells, as of ``at`` (epoch ms).

    ``refunds`` are the latest, ``used_left_out`` counts things used that are not told. ``listed``
    are the lists' entries about the customer. ``erased_at`` is when whoever this was was erased:
    what is left then names nobody.
    """

    customer: str
    at: int
    figures: Figures
    history: History
    refunds: tuple[RefundTold, ...]
    used: tuple[Used, ...]
    used_left_out: int
    links: Links
    listed: tuple[ListEntry, ...]
    erased_at: int | None

    @property
    def is_known(self) -> bool:
        """Whether anything is known of the customer, if only that a list holds them."""
        return self.figures.first_seen is not None or self.history.total > 0 or bool(self.listed)


def customer_of(
    store: Store, pseudonym: str, rates: Rates, at: int, language: Language, *,
    before: Place | None = None,
) -> CustomerFile:  # fmt: skip
    """All that is known of a customer now, by pseudonym, with a page of the history.

    That is the latest one, or that of what is older than ``before``. Of one of whom nothing is
    known all is empty.
    """
    with store.database.read() as connection:
        look = _Look(store, connection, pseudonym, language)
        used, used_left_out = look.used()
        look.meet_disputes_of([value for kind, value in used if kind == "payment_method"])
        history = look.history(before)
        refunds = look.refunds_told(rates)
        figures = look.figures(rates)
        listed = lookup.listed(connection, [pseudonym, *(value for _, value in used)])
    cutoff = 1 + (at if store.clock == "ingest" else look.latest)
    links = linked(store, pseudonym, list(used), cutoff, language)
    others = {hub.value: hub.accounts - 1 for hub in links.hubs}
    return CustomerFile(
        pseudonym, at, figures, history, refunds,
        tuple(
            Used(kind, value, entity_name(kind, language), *used[kind, value], others[value],
                 tuple(e for e in listed if (e.entity, e.value) == (kind, value)))
            for kind, value in used
        ),
        used_left_out, links,
        tuple(e for e in listed if (e.entity, e.value) == ("customer", pseudonym)),
        _erased_at(store, pseudonym),
    )  # fmt: skip


class Brief(NamedTuple):
    """A customer in a few numbers, as `Figures` counts them; ``waiting`` are refunds."""

    orders: int
    orders_refunded: int
    waiting: int
    confirmed_abuse: int


def brief_of(store: Store, pseudonym: str) -> Brief:
    """What is told of a customer in one line: a part of the figures, without the rest."""
    with store.database.read() as connection:
        held = lookup.held_by(connection, "customer", pseudonym, ("order", "refund_request"))
        named = lookup.names_in(connection, [row.event_id for row in held]).values()
        orders = {one.order_id for one in named if one.event_type == "order"}
        asked = {one.refund_id for one in named if one.event_type == "refund_request"}
        refunds = lookup.found_refunds(connection, {each for each in asked if each is not None})
        abuse = Look(store.database, connection, _END).count(pseudonym, "label", "REFUND_ABUSE")
    refunded = {one.order_id for one in refunds if one.order_id} & orders
    waiting = sum(STANDING[one.state] == "waiting" for one in refunds)
    return Brief(len(orders), len(refunded), waiting, abuse)


def _erased_at(store: Store, pseudonym: str) -> int | None:
    entries = store.audit_about(f"customer:{pseudonym}")
    return next((entry.at for entry in entries if entry.action == "customer_erased"), None)


# --- looking -------------------------------------------------------------------------------------


_RANK: Final = {event_type: rank for rank, event_type in enumerate(EVENTS)}
_DECIDED, _ACTED, _ATTACHED, _LISTED = range(len(EVENTS), len(EVENTS) + 4)
"""What of one instant comes after its events."""

_Use = tuple[int, int, int]


@dataclass
class _Look:
    """What a store has of one customer: read once, and told in several ways."""

    store: Store
    connection: Connection
    customer: str
    language: Language
    rows: dict[str, list[Row]] = field(default_factory=dict)
    places: dict[Place, Any] = field(default_factory=dict)
    firsts: set[str] = field(default_factory=set)
    refunds: dict[str, FoundRefund] = field(default_factory=dict)

    def __post_init__(self) -> None:
        held = lookup.held_by(self.connection, "customer", self.customer, lookup.OF_CUSTOMER)
        self.rows = {each: [r for r in held if r.event_type == each] for each in lookup.OF_CUSTOMER}
        for row in held:
            self.firsts.add(row.event_id)
            self.places[Place(row.known_at, _RANK[row.event_type], row.event_id)] = None
        own = [r.event_id for each in ("order", "refund_request") for r in self.rows[each]]
        self.named = lookup.names_in(self.connection, own)
        self.orders = {one.order_id for one in self.named.values()
                       if one.event_type == "order" and one.order_id}  # fmt: skip
        asked = {one.refund_id for one in self.named.values()
                 if one.event_type == "refund_request" and one.refund_id}  # fmt: skip
        asked |= self._meet_what_names(asked)
        found = lookup.found_refunds(self.connection, asked)
        self.refunds = {one.refund_id: one for one in found}
        self._meet_what_people_did(asked)

    @property
    def latest(self) -> int:
        """When the last of the customer's events became known."""
        return max((place.at for place in self.places if place.rank < _DECIDED), default=0)

    @property
    def is_cut(self) -> bool:
        """Whether there is more than is looked at."""
        return any(len(held) >= lookup.MOST_HELD for held in self.rows.values())

    def _meet_what_names(self, asked: Collection[str]) -> set[str]:
        """Take in what names the customer's orders and refunds and stands in no history.

        These are updates, transactions, later versions, and refunds that are not to be counted,
        whose ids are returned. An order that the customer asked a refund of may be another's.
        """
        orders = {one.order_id for one in self.named.values() if one.order_id}
        met = {one.event_id: one for one in lookup.naming(self.connection, orders, asked)}
        new = [one for event_id, one in met.items() if event_id not in self.firsts]
        doubtful = [
            one for one in new
            if (one.event_type == "order" and one.order_id not in self.orders)
            or (one.refund_id is not None and one.refund_id not in asked)
        ]  # fmt: skip
        told = lookup.events_of(self.connection, (one.event_id for one in doubtful))
        mine = {event_id for event_id, event in told.items()
                if event.payload.get(COLUMN_OF["customer"]) == self.customer}  # fmt: skip
        ignored = {one.refund_id for one in doubtful
                   if one.event_id in mine and one.event_type == "refund_request"}  # fmt: skip
        anothers = {one.order_id for one in doubtful
                    if one.event_type == "order" and one.event_id not in mine}  # fmt: skip
        known = {one.event_id for one in doubtful}
        for one in new:
            is_mine = one.event_id in mine or (
                one.event_id not in known
                and (one.refund_id in asked or one.order_id not in anothers)
            )
            if is_mine:
                self.places[Place(one.known_at, _RANK[one.event_type], one.event_id)] = None
        self._meet_first(told[event_id] for event_id in mine)
        return {refund_id for refund_id in ignored if refund_id is not None}

    def _meet_first(self, events: Iterable[StoredEvent]) -> None:
        """Of refunds that are in no index the first version is the first one."""
        first: dict[Any, StoredEvent] = {}
        for event in events:
            name = event.own_name()
            if name is not None and (name not in first or event.is_before(first[name])):
                first[name] = event
        self.firsts |= {event.event_id for event in first.values()}

    def _meet_what_people_did(self, asked: Collection[str]) -> None:
        for score_id, refund_id, at in lookup.decided_when(self.connection, asked):
            self.places[Place(at, _DECIDED, score_id)] = refund_id
        for seq, at in lookup.acts_when(self.connection, asked):
            self.places[Place(at, _ACTED, f"{seq:019d}")] = None
        for one in lookup.attached_to(self.connection, asked):
            self.places[Place(one.added_at, _ATTACHED, one.id)] = one
        for entry in lookup.listed(self.connection, [self.customer]):
            if entry.entity == "customer":
                self.places[Place(entry.created_at, _LISTED, entry.list)] = entry

    def meet_disputes_of(self, payment_methods: Sequence[str]) -> None:
        """Take in disputes that name a payment method of the customer's alone."""
        ids = [row.event_id for each in payment_methods for row in
               lookup.held_by(self.connection, "payment_method", each, ("dispute",), MOST_OF_KEY)
               if row.event_id not in self.firsts]  # fmt: skip
        for event in lookup.events_of(self.connection, ids).values():
            if COLUMN_OF["payment_method"] in event.payload:
                self.places[Place(event.known_at, _RANK["dispute"], event.event_id)] = None

    # --- the history -------------------------------------------------------------------------

    def history(self, before: Place | None) -> History:
        """A page of it."""
        every = sorted(place for place in self.places if before is None or place < before)
        page = every[-PAGE:]
        older = page[0] if len(every) > PAGE else None
        return History(tuple(self._moments(page)), older, len(self.places), self.is_cut)

    def _moments(self, page: Sequence[Place]) -> Iterator[Moment]:
        told = lookup.events_of(self.connection, (p.id for p in page if p.rank < _DECIDED))
        answers = lookup.answers_of(self.connection, (p.id for p in page if p.rank == _DECIDED))
        acts = lookup.acts_of(self.connection, (int(p.id) for p in page if p.rank == _ACTED))
        first: dict[str, Place] = {}
        for place in sorted(place for place in self.places if place.rank == _DECIDED):
            first.setdefault(self.places[place], place)
        for place in page:
            if place.rank < _DECIDED:
                yield self._of_event(told[place.id], place.at)
            elif place.rank == _DECIDED:
                answer = answers[place.id]
                is_first = first[answer.refund_id] == place
                said = decided(answer.data, self.language, is_first=is_first)
                yield _moment(place.at, said, {"refund_id": answer.refund_id})
            elif place.rank == _ACTED:
                yield self._of_act(acts[int(place.id)])
            elif place.rank == _ATTACHED:
                yield self._of_file(self.places[place])
            else:
                yield self._of_entry(self.places[place])

    def _of_event(self, event: StoredEvent, at: int) -> Moment:
        payload = event.payload
        refund = self.refunds.get(payload.get("refund_id", ""))
        said = happening(
            event.event_type, payload, self.language,
            is_first=event.own_name() is None or event.event_id in self.firsts,
            currency=refund.currency if refund else None,
        )  # fmt: skip
        return _moment(at, said, payload)

    def _of_act(self, act: Act) -> Moment:
        note = act_told(act, self.language)
        by = self.language.say("by {person}", person=act.actor)
        said = Happening("verdicts", note.said, _TONE_OF_ACT.get(act.act, "plain"),
                         (by, *([note.detail] if note.detail else ())))  # fmt: skip
        return _moment(act.at, said, {"refund_id": act.refund_id})

    def _of_file(self, file: Attached) -> Moment:
        title = self.language.say("A file was attached: {name}", name=file.name)
        by = self.language.say("by {person}", person=file.author)
        return _moment(file.added_at, Happening("verdicts", title, "plain", (by,)),
                       {"refund_id": file.refund_id})  # fmt: skip

    def _of_entry(self, entry: ListEntry) -> Moment:
        if entry.list == "block":
            title = self.language.say("Put on the block list: {reason}", reason=entry.reason)
        else:
            title = self.language.say("Put on the allow list: {reason}", reason=entry.reason)
        by = [] if entry.author is None else [self.language.say("by {person}", person=entry.author)]
        tone: Tone = "bad" if entry.list == "block" else "good"
        return _moment(entry.created_at, Happening("verdicts", title, tone, tuple(by)), {})

    # --- in numbers --------------------------------------------------------------------------

    def figures(self, rates: Rates) -> Figures:
        """What all of it comes to."""
        asked_for = {one.refund_id for one in self.named.values()
                     if one.event_type == "refund_request"}  # fmt: skip
        counted = [one for refund_id, one in self.refunds.items() if refund_id in asked_for]
        orders = np.frombuffer(b"".join(r.packed for r in self.rows["order"]), LAYOUT["order"])
        refunded = {one.order_id for one in counted if one.order_id} & self.orders
        asked = _in_base(counted, rates)
        ordered = rates.to_base_codes(orders["amount"], orders["currency"], orders["known_at"])
        of_type = self._latest_of("dispute")
        opened = {_dispute(e) for e in of_type if e.payload.get("stage") in _CHARGEBACKS}
        lost = {_dispute(e) for e in of_type if e.payload.get("outcome") in _LOST}
        verdicts = Look(self.store.database, self.connection, _END)
        registered = [at for name in ("order", "refund_request")
                      for at in self._packed(name, "registered_at") if at >= 0]  # fmt: skip
        return Figures(
            first_seen=lookup.first_seen(self.connection, "customer", self.customer),
            registered_at=min(registered, default=None),
            orders=len(self.orders), orders_refunded=len(refunded), refunds=len(counted),
            by_standing=Counter(STANDING[one.state] for one in counted),
            sums=self._sums(counted),
            asked_base_minor=None if np.isnan(asked).any() else float(asked.sum()),
            ordered_base_minor=None if np.isnan(ordered).any() else float(ordered.sum()),
            disputes=len({_dispute(event) for event in of_type}),
            chargebacks=len(opened), chargebacks_lost=len(opened & lost),
            confirmed_abuse=verdicts.count(self.customer, "label", "REFUND_ABUSE"),
            cleared=verdicts.count(self.customer, "label", "NOT_REFUND_ABUSE"),
        )  # fmt: skip

    def _packed(self, event_type: str, column: str) -> list[int]:
        held = b"".join(row.packed for row in self.rows[event_type])
        found: list[int] = np.frombuffer(held, LAYOUT[event_type])[column].tolist()
        return found

    def _latest_of(self, event_type: str) -> list[StoredEvent]:
        return latest_of_customer(
            self.store.database, self.connection, self.customer, event_type, _END
        )

    def _sums(self, counted: Iterable[FoundRefund]) -> tuple[Sum, ...]:
        paid = self._paid()
        sums: dict[str, Counter[str]] = {}
        for one in counted:
            if one.currency is None or one.payable_minor is None:
                continue
            of = sums.setdefault(one.currency, Counter())
            of["asked_minor"] += one.payable_minor
            standing = STANDING[one.state]
            if standing == "paid":
                of["paid_minor"] += paid.get(one.refund_id, one.payable_minor)
            elif standing in ("refused", "waiting"):
                of[f"{standing}_minor"] += one.payable_minor
        return tuple(Sum(currency, **of) for currency, of in sorted(sums.items()))

    def _paid(self) -> dict[str, int]:
        """What was last reported paid of refunds, in minor units, where that is known."""
        rows = self.rows["refund_outcome"]
        packed = np.frombuffer(b"".join(r.packed for r in rows), LAYOUT["refund_outcome"])
        is_paid = zip(rows, packed["outcome_status"].tolist(), packed["paid"].tolist(), strict=True)
        minor = {row.event_id: paid for row, status, paid in is_paid
                 if status == _COMPLETED and paid >= 0}  # fmt: skip
        named = lookup.names_in(self.connection, list(minor))
        found: dict[str, int] = {}
        for event_id, paid in minor.items():  # the latest comes first
            found.setdefault(named[event_id].refund_id or "", paid)
        return found

    # --- refunds and things ------------------------------------------------------------------

    def refunds_told(self, rates: Rates) -> tuple[RefundTold, ...]:
        """The latest `PAGE` refunds, the latest first."""
        latest = sorted(self.refunds.values(), key=lambda one: (-one.at, one.refund_id))[:PAGE]
        ids = [one.score_id for one in latest if one.score_id is not None]
        answers = lookup.answers_of(self.connection, ids)
        verdicts: dict[str, StoredEvent] = {}
        for event in self._latest_of("label"):
            refund_id = event.payload.get("refund_id", "")
            if refund_id not in verdicts or verdicts[refund_id].is_before(event):
                verdicts[refund_id] = event
        known = {"REFUND_ABUSE": True, "NOT_REFUND_ABUSE": False}
        is_abuse = {of: known.get(e.payload["label"]) for of, e in verdicts.items()}
        return tuple(
            RefundTold(one, STANDING[one.state], None if np.isnan(minor) else minor,
                       answers.get(one.score_id or ""), is_abuse.get(one.refund_id))
            for one, minor in zip(latest, _in_base(latest, rates).tolist(), strict=True)
        )  # fmt: skip

    def used(self) -> tuple[dict[Person, _Use], int]:
        """Things used, of each kind the latest `MOST_USED`: how often, when first and last.

        And how many more there are.
        """
        found: dict[Person, _Use] = {}
        for event_type in ("order", "refund_request"):
            for event in self._latest_of(event_type):
                for person in event.direct_entities():
                    uses, first, last = found.get(person, (0, _END, -1))
                    at = event.known_at
                    found[person] = uses + 1, min(first, at), max(last, at)
        told: dict[Person, _Use] = {}
        for kind in ENTITIES[1:]:
            of_kind = [person for person in found if person[0] == kind]
            of_kind.sort(key=lambda person: (-found[person][2], person))
            told |= {person: found[person] for person in of_kind[:MOST_USED]}
        things = sum(kind != "customer" for kind, _ in found)
        return told, things - len(told)


_END: Final = 2**62
_TONE_OF_ACT: Final[Mapping[str, Tone]] = {
    "approved": "good", "denied": "bad", "information_requested": "wait",
    "approval_proposed": "wait", "reopened": "wait",
}  # fmt: skip


def _moment(at: int, said: Happening, payload: Mapping[str, Any]) -> Moment:
    return Moment(
        at=at, lane=said.lane, title=said.title, detail="; ".join(said.details),
        amount_minor=said.amount_minor, currency=said.currency,
        refund_id=payload.get("refund_id"), order_id=payload.get("order_id"), tone=said.tone,
    )  # fmt: skip


def _dispute(event: StoredEvent) -> str:
    """What tells disputes apart."""
    payload = event.payload
    return str(payload.get("dispute_id") or payload.get("order_id") or event.event_id)


def _in_base(refunds: Sequence[FoundRefund], rates: Rates) -> NDArray[np.float64]:
    """What refunds are about in the base currency, NaN where that is not known."""
    minor = np.array([math.nan if one.payable_minor is None else one.payable_minor
                      for one in refunds], np.float64)  # fmt: skip
    return rates.to_base(minor, [one.currency for one in refunds],
                         np.array([one.at for one in refunds], np.int64))  # fmt: skip
