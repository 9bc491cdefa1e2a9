"""What an analyst types in one box, and what it leads to: ids of refunds, orders and decisions,
persons and what they use by their originals, and pseudonyms.

Of refunds and orders the beginning of an id will do. Of persons only keyed hashes are kept, so they
are found by the whole original or not at all. What was typed may be an original: it is never kept,
logged or put in an address, which names what was found instead (`Findings.references`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from features.events import ENTITIES
from features.packed import LAYOUT
from serving.listing import Entry
from serving.store import lookup
from serving.store.around import payloads
from serving.store.holdings import Person
from serving.store.lists import ListEntry
from serving.store.lookup import FoundRefund
from serving.store.store import Store
from serving.wire import InvalidRequest, Problem, shown

MOST_FOUND: Final = 20
"""So many refunds, and so many orders, are found by the beginning of their ids."""

MOST_CHARACTERS: Final = 256
MOST_USES: Final = 1_000
"""Of the orders and refund requests of one thing the latest so many are looked at, each."""

MOST_USERS: Final = 100
"""So many customers, and so many refunds, of one thing are told."""

_MOST_OF_ORDERS: Final = 200
_PSEUDONYM: Final = re.compile("[A-Za-z0-9_-]{22}")

Reference: TypeAlias = tuple[str, str]
"""What was found: ``refund``, ``order`` or ``decision`` and its id, or a kind of entity and its
pseudonym."""


@dataclass(frozen=True, slots=True)
class FoundOrder:
    """An order that some event names, who placed it, where that is known, and its refunds."""

    order_id: str
    customer: str | None
    refunds: tuple[FoundRefund, ...]


@dataclass(frozen=True, slots=True)
class FoundDecision:
    """A decision, and the refund that it is about."""

    score_id: str
    refund: FoundRefund


@dataclass(frozen=True, slots=True)
class FoundPerson:
    """A person, or what one uses, by pseudonym: when it was first seen (epoch ms), and its lists.

    One that is only listed was never seen.
    """

    kind: str
    pseudonym: str
    first_seen: int | None
    listed: tuple[ListEntry, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found, by kind; ``more_refunds`` and ``more_orders`` that there are more of them."""

    refunds: tuple[FoundRefund, ...] = ()
    orders: tuple[FoundOrder, ...] = ()
    decisions: tuple[FoundDecision, ...] = ()
    persons: tuple[FoundPerson, ...] = ()
    more_refunds: bool = False
    more_orders: bool = False

    @property
    def references(self) -> tuple[Reference, ...]:
        """What `recall` finds all of this by; no original is among them."""
        return (
            *(("refund", one.refund_id) for one in self.refunds),
            *(("order", one.order_id) for one in self.orders),
            *(("decision", one.score_id) for one in self.decisions),
            *((one.kind, one.pseudonym) for one in self.persons),
        )

    def sole(self, text: str) -> Reference | None:
        """The one thing that is meant by a text: what alone bears it whole, or all that was found.

        >>> found = Findings(orders=(FoundOrder("o1", None, ()), FoundOrder("o12", None, ())))
        >>> found.sole("o1"), found.sole("o")
        (('order', 'o1'), None)
        """
        by_beginning = ("refund", "order")
        whole = [one for one in self.references if one[0] not in by_beginning or one[1] == text]
        meant = whole or self.references
        return meant[0] if len(meant) == 1 else None


def find(store: Store, text: str, *, at: int) -> Findings:
    """What a text may mean, as of ``at`` (epoch ms); nothing where nothing bears it.

    Ids of refunds and orders that no text begins as typed are sought in small and in large letters.

    Raises `InvalidRequest` for what no id can be.
    """
    wanted = _checked(text)
    limit = MOST_FOUND + 1
    spellings = dict.fromkeys((wanted, wanted.lower(), wanted.upper()))
    with store.database.read() as connection:
        refund_ids, order_ids = (
            next(filter(None, (like(connection, each, limit) for each in spellings)), [])
            for like in (lookup.refunds_like, lookup.orders_like)
        )
        is_decision = lookup.decided_on(connection, wanted) is not None
        persons = lookup.persons_there(connection, _persons(store, {text, wanted}, at))
    references = [
        *(("refund", each) for each in refund_ids[:MOST_FOUND]),
        *(("order", each) for each in order_ids[:MOST_FOUND]),
        *([("decision", wanted)] if is_decision else ()),
        *persons,
    ]
    return recall(store, references, more_refunds=len(refund_ids) == limit,
                  more_orders=len(order_ids) == limit)  # fmt: skip


def _checked(text: str) -> str:
    wanted = text.strip()
    if not wanted or len(wanted) > MOST_CHARACTERS or not _is_plain(wanted):
        told = f"must be 1 to {MOST_CHARACTERS} characters that can be read"
        raise InvalidRequest([Problem("text", told, shown(text))])
    return wanted


def _is_plain(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)


def _persons(store: Store, texts: Iterable[str], at: int) -> list[Person]:
    """The pseudonyms that a text may be, or may stand for, of every kind."""
    found = []
    for text in texts:
        for kind in ENTITIES:
            if _PSEUDONYM.fullmatch(text):
                found.append((kind, text))
            try:
                original = Entry.of(kind, text, "-", None, at).original
            except InvalidRequest:
                continue
            found.append((kind, store.identifiers.mac(kind, original)))
    return found


def recall(
    store: Store, references: Sequence[Reference], *, more_refunds: bool = False,
    more_orders: bool = False,
) -> Findings:  # fmt: skip
    """What references lead to now, of those that there still are."""
    ids: dict[str, list[str]] = {}
    for kind, value in references:
        if _is_plain(value):
            ids.setdefault(kind, []).append(value)
    with store.database.read() as connection:
        order_ids = ids.get("order", [])
        in_orders = lookup.refunds_of_orders(connection, order_ids, _MOST_OF_ORDERS)
        decided = {
            score_id: refund_id
            for score_id in ids.get("decision", ())
            if (refund_id := lookup.decided_on(connection, score_id)) is not None
        }
        refund_ids = ids.get("refund", [])
        every = [*refund_ids, *in_orders, *decided.values()]
        refunds = {one.refund_id: one for one in lookup.found_refunds(connection, every)}
        placed = lookup.customers_of_orders(connection, order_ids)
        wanted = [(kind, value) for kind in ENTITIES for value in ids.get(kind, ())]
        persons = lookup.persons_there(connection, wanted)
        listed = lookup.listed(connection, [value for _, value in persons])
        seen = {person: lookup.first_seen(connection, *person) for person in persons}
    return Findings(
        tuple(refunds[each] for each in dict.fromkeys(refund_ids) if each in refunds),
        tuple(
            FoundOrder(each, placed[each],
                       tuple(one for one in refunds.values()
                             if one.order_id == each and one.refund_id in in_orders))
            for each in dict.fromkeys(order_ids) if each in placed
        ),
        tuple(FoundDecision(score_id, refunds[refund_id])
              for score_id, refund_id in decided.items() if refund_id in refunds),
        tuple(
            FoundPerson(kind, value, seen[kind, value],
                        tuple(e for e in listed if (e.entity, e.value) == (kind, value)))
            for kind, value in persons
        ),
        more_refunds, more_orders,
    )  # fmt: skip


# --- who used a thing ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class User:
    """A customer who used a thing: with it so many orders and refund requests; times epoch ms."""

    customer: str
    orders: int
    refunds: int
    first_at: int
    last_at: int


@dataclass(frozen=True, slots=True)
class Uses:
    """Who used a device, payment method, address, IP or e-mail, and for which refunds.

    The latest first; ``user_count`` and ``refund_count`` count them all, of the latest 1,000 orders
    and 1,000 refund requests, which are all there are unless ``is_cut``.
    """

    kind: str
    pseudonym: str
    first_seen: int | None
    listed: tuple[ListEntry, ...]
    users: tuple[User, ...]
    user_count: int
    refunds: tuple[FoundRefund, ...]
    refund_count: int
    is_cut: bool

    @property
    def is_known(self) -> bool:
        """Whether any event bore it, or a list holds it."""
        return self.first_seen is not None or bool(self.listed or self.users)


def uses_of(store: Store, kind: str, pseudonym: str) -> Uses:
    """Who used a thing by its kind and pseudonym, whenever that was."""
    with store.database.read() as connection:
        seen = lookup.first_seen(connection, kind, pseudonym)
        listed = [e for e in lookup.listed(connection, [pseudonym]) if e.entity == kind]
        rows = lookup.held_by(
            connection, kind, pseudonym, ("order", "refund_request"), MOST_USES + 1
        )
        of_type = {
            each: [row for row in rows if row.event_type == each]
            for each in ("order", "refund_request")
        }
        is_cut = any(len(held) > MOST_USES for held in of_type.values())
        of_type = {each: held[:MOST_USES] for each, held in of_type.items()}
        users = _users(of_type)
        told = sorted(users.values(), key=lambda one: (-one.last_at, one.latest))[:MOST_USERS]
        asked = of_type["refund_request"]
        named = payloads(connection, [*(one.latest for one in told),
                                      *(row.event_id for row in asked[:MOST_USERS])])  # fmt: skip
        refund_ids = [named[row.event_id]["refund_id"] for row in asked[:MOST_USERS]]
        refunds = lookup.found_refunds(connection, refund_ids)
    return Uses(
        kind, pseudonym, seen, tuple(listed),
        tuple(User(named[one.latest]["customer_id"], one.orders, one.refunds, one.first_at,
                   one.last_at) for one in told),
        len(users), tuple(refunds), len(asked), is_cut,
    )  # fmt: skip


@dataclass(slots=True)
class _User:
    orders: int = 0
    refunds: int = 0
    first_at: int = 2**63 - 1
    last_at: int = -1
    latest: str = ""


def _users(of_type: Mapping[str, Sequence[lookup.Row]]) -> dict[int, _User]:
    """Customers by the hash that packed events have of them."""
    users: dict[int, _User] = {}
    for event_type, rows in of_type.items():
        packed = np.frombuffer(b"".join(row.packed for row in rows), LAYOUT[event_type])
        for row, code in zip(rows, packed["customer"].tolist(), strict=True):
            one = users.setdefault(code, _User())
            one.orders += event_type == "order"
            one.refunds += event_type == "refund_request"
            one.first_at = min(one.first_at, row.known_at)
            if row.known_at > one.last_at:
                one.last_at, one.latest = row.known_at, row.event_id
    return users
