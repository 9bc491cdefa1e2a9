"""Accounts linked to a customer by what they used, as it was known at a decision, or is by now.

A hub is a device, payment method, address, IP or e-mail of the request, or of the customer. An
account is linked where it ordered or asked for a refund with a hub before the cutoff, in what
features look at: the latest 1,000 orders and refund requests of each hub, of 365 days.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from sqlalchemy import Connection

from features.attribution import CODES
from features.events import ENTITIES
from features.packed import LAYOUT, id63
from serving.explanation.parts import Hub, Linked, Links
from serving.explanation.words import entity_name
from serving.language import Language
from serving.store.around import Held, latest_of_customer, payloads, shared_rows
from serving.store.database import Database
from serving.store.decisions import Decision
from serving.store.holdings import Person
from serving.store.indexing import StoredEvent
from serving.store.store import Store

POOL: Final = 50
"""So many of the accounts that look most telling are looked into."""

_BEARING: Final = ("order", "refund_request")
_ABUSE: Final = CODES["label"].index("REFUND_ABUSE")


def links_of(store: Store, decision: Decision, language: Language, most: int = 12) -> Links:
    """The accounts that share something with a request's customer, as of the decision."""
    record = decision.record
    keys: Mapping[str, str] = record["keys"]
    hubs = [(kind, keys[kind]) for kind in ENTITIES[1:] if keys.get(kind)]
    return linked(store, keys["customer"], hubs, record["cutoff"], language, most,
                  besides=decision.refund_id)  # fmt: skip


def linked(
    store: Store, own: str, hubs: Sequence[Person], cutoff: int, language: Language,
    most: int = 12, *, besides: str | None = None,
) -> Links:  # fmt: skip
    """The accounts that used one of these hubs (kind, pseudonym), the most telling first.

    That is: confirmed abusers, then those linked by more, then those with more refunds. What they
    ordered and asked for is counted where they did it with a hub; refused refunds (by what was
    reported of them) and confirmed abuse (by the latest verdict of each case) wherever they were.
    ``own`` is the customer that is no link of their own, ``besides`` a refund that does not count.
    """
    with store.database.read() as connection:
        rows = [
            (keys[row.kind], row)
            for keys in _of_each_kind_one(hubs)
            for row in shared_rows(store.database, connection, keys, cutoff, (*_BEARING, "label"))
        ]
        found = _Found.of(rows, id63(own), None if besides is None else id63(besides))
        suspects = found.confirmed(connection)
        pool = sorted(found.accounts.values(), key=lambda one: one.rank(one.code in suspects))[
            :POOL
        ]
        names = payloads(connection, (one.latest for one in pool))
        named = {names[one.latest]["customer_id"]: one for one in pool if one.latest in names}
        look = Look(store.database, connection, cutoff)
        abuse = {name: look.count(name, "label", "REFUND_ABUSE") for name in named}
        order = sorted(named, key=lambda name: (-abuse[name], *named[name].rank()))[:most]
        refused = {name: look.count(name, "refund_outcome", "DECLINED") for name in order}
    told = tuple(
        Hub(kind, value, entity_name(kind, language), 1 + found.users.get(value, 0))
        for kind, value in hubs
    )
    accounts = tuple(
        Linked(
            customer=name,
            through=tuple(hub.value for hub in told if hub.value in named[name].hubs),
            orders=len(named[name].orders),
            refunds=len(named[name].refunds),
            refused=refused[name],
            confirmed_abuse=abuse[name],
            last_seen=named[name].last_seen,
        )
        for name in order
    )
    return Links(own, told, accounts, len(found.accounts) - len(accounts))


def _of_each_kind_one(hubs: Iterable[Person]) -> list[dict[str, str]]:
    """Hubs as several sets of keys: a statement reads one hub of each kind."""
    sets: list[dict[str, str]] = []
    for kind, value in hubs:
        room = next((keys for keys in sets if kind not in keys), None)
        if room is None:
            sets.append(room := {})
        room[kind] = value
    return sets


@dataclass
class _Account:
    """Another customer, by the hash that packed events have of the pseudonym."""

    code: int
    hubs: set[str] = field(default_factory=set)
    orders: set[str] = field(default_factory=set)
    refunds: set[str] = field(default_factory=set)
    last_seen: int = -1
    latest: str = ""

    def add(self, hub: str, row: Held) -> None:
        """Take in an order or a refund request with a hub."""
        self.hubs.add(hub)
        (self.orders if row.event_type == "order" else self.refunds).add(row.event_id)
        if row.known_at > self.last_seen:
            self.last_seen, self.latest = row.known_at, row.event_id

    def rank(self, is_suspect: bool = False) -> tuple[int, int, int, int, int, str]:
        """Sorts the most telling first."""
        return (-is_suspect, -len(self.hubs), -len(self.refunds), -len(self.orders),
                -self.last_seen, self.latest)  # fmt: skip


@dataclass
class _Found:
    """What the hubs hold: other accounts by their hash, and how many used each hub."""

    accounts: dict[int, _Account]
    users: dict[str, int]
    account_of: dict[int, int]
    """The account that asked for a refund, by the hash of the refund's id."""
    abuse: list[str]
    """The ids of verdicts of abuse."""

    @classmethod
    def of(cls, rows: Sequence[tuple[str, Held]], own: int, besides: int | None) -> _Found:
        """Sort what hubs hold by account, without ``own`` and without the refund ``besides``."""
        found = cls({}, {}, {}, [])
        for event_type in _BEARING:
            held = [each for each in rows if each[1].event_type == event_type]
            packed = np.frombuffer(b"".join(row.packed for _, row in held), LAYOUT[event_type])
            is_refund = event_type == "refund_request"
            things = (packed["refund" if is_refund else "order"]).tolist()
            codes = packed["customer"].tolist()
            for (hub, row), code, thing in zip(held, codes, things, strict=True):
                if code == own or (is_refund and thing == besides):
                    continue
                found.accounts.setdefault(code, _Account(code)).add(hub, row)
                if is_refund:
                    found.account_of[thing] = code
        for account in found.accounts.values():
            for hub in account.hubs:
                found.users[hub] = found.users.get(hub, 0) + 1
        labels = [row for _, row in rows if row.event_type == "label"]
        verdicts = np.frombuffer(b"".join(row.packed for row in labels), LAYOUT["label"])["label"]
        found.abuse = [row.event_id for row, code in zip(labels, verdicts, strict=True)
                       if code == _ABUSE]  # fmt: skip
        return found

    def confirmed(self, connection: Connection) -> set[int]:
        """The accounts with a refund of a hub that was ever found to be abuse."""
        refunds = (e.get("refund_id") for e in payloads(connection, self.abuse).values())
        codes = (self.account_of.get(id63(refund_id)) for refund_id in refunds if refund_id)
        return {code for code in codes if code is not None}


@dataclass(frozen=True)
class Look:
    """What was known of single customers before a cutoff."""

    database: Database
    connection: Connection
    cutoff: int

    def count(self, customer: str, event_type: str, what: str) -> int:
        """Of how many cases of a customer the latest word is ``what``."""
        latest: dict[str | None, StoredEvent] = {}
        for event in latest_of_customer(
            self.database, self.connection, customer, event_type, self.cutoff
        ):
            case = event.payload.get("refund_id")  # None: about the customer
            if case not in latest or latest[case].is_before(event):
                latest[case] = event
        word = "label" if event_type == "label" else "status"
        return sum(event.payload[word] == what for event in latest.values())
