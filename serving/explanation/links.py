"""Accounts linked to a request's customer by what they used, as it was known at the decision.

A hub is a device, payment method, address, IP or e-mail of the request. An account is linked where
it ordered or asked for a refund with a hub before the decision, in what features look at: the
latest 1,000 orders and refund requests of each hub, of 365 days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from serving.store.indexing import StoredEvent
from serving.store.store import Store

POOL: Final = 50
"""So many of the accounts that look most telling are looked into."""

_BEARING: Final = ("order", "refund_request")
_ABUSE: Final = CODES["label"].index("REFUND_ABUSE")


def links_of(store: Store, decision: Decision, language: Language, most: int = 12) -> Links:
    """The accounts that share something with a request's customer, the most telling first.

    That is: confirmed abusers, then those linked by more, then those with more refunds. What they
    ordered and asked for is counted where they did it with a hub; refused refunds (by what was
    reported of them) and confirmed abuse (by the latest verdict of each case) wherever they were.
    """
    record = decision.record
    keys: Mapping[str, str] = record["keys"]
    own, cutoff = keys["customer"], record["cutoff"]
    with store.database.read() as connection:
        rows = shared_rows(store.database, connection, keys, cutoff, (*_BEARING, "label"))
        found = _Found.of(rows, id63(own), id63(decision.refund_id))
        suspects = found.confirmed(connection)
        pool = sorted(found.accounts.values(), key=lambda one: one.rank(one.code in suspects))[
            :POOL
        ]
        names = payloads(connection, (one.latest for one in pool))
        named = {names[one.latest]["customer_id"]: one for one in pool if one.latest in names}
        look = _Look(store.database, connection, cutoff)
        abuse = {name: look.count(name, "label", "REFUND_ABUSE") for name in named}
        order = sorted(named, key=lambda name: (-abuse[name], *named[name].rank()))[:most]
        refused = {name: look.count(name, "refund_outcome", "DECLINED") for name in order}
    hubs = tuple(
        Hub(kind, keys[kind], entity_name(kind, language), 1 + found.users[kind])
        for kind in ENTITIES[1:] if keys.get(kind)
    )  # fmt: skip
    accounts = tuple(
        Linked(
            customer=name,
            through=tuple(hub.value for hub in hubs if hub.kind in named[name].kinds),
            orders=len(named[name].orders),
            refunds=len(named[name].refunds),
            refused=refused[name],
            confirmed_abuse=abuse[name],
            last_seen=named[name].last_seen,
        )
        for name in order
    )
    return Links(own, hubs, accounts, len(found.accounts) - len(accounts))


@dataclass
class _Account:
    """Another customer, by the hash that packed events have of the pseudonym."""

    code: int
    kinds: set[str] = field(default_factory=set)
    orders: set[str] = field(default_factory=set)
    refunds: set[str] = field(default_factory=set)
    last_seen: int = -1
    latest: str = ""

    def add(self, row: Held) -> None:
        """Take in an order or a refund request with a hub."""
        self.kinds.add(row.kind)
        (self.orders if row.event_type == "order" else self.refunds).add(row.event_id)
        if row.known_at > self.last_seen:
            self.last_seen, self.latest = row.known_at, row.event_id

    def rank(self, is_suspect: bool = False) -> tuple[int, int, int, int, int, str]:
        """Sorts the most telling first."""
        return (-is_suspect, -len(self.kinds), -len(self.refunds), -len(self.orders),
                -self.last_seen, self.latest)  # fmt: skip


@dataclass
class _Found:
    """What the hubs hold: other accounts by their hash, and how many used each kind of hub."""

    accounts: dict[int, _Account]
    users: dict[str, int]
    account_of: dict[int, int]
    """The account that asked for a refund, by the hash of the refund's id."""
    abuse: list[str]
    """The ids of verdicts of abuse."""

    @classmethod
    def of(cls, rows: Sequence[Held], own: int, own_refund: int) -> _Found:
        """Sort what hubs hold by account, without ``own`` and without the decided refund."""
        found = cls({}, dict.fromkeys(ENTITIES, 0), {}, [])
        for event_type in _BEARING:
            held = [row for row in rows if row.event_type == event_type]
            packed = np.frombuffer(b"".join(row.packed for row in held), LAYOUT[event_type])
            is_refund = event_type == "refund_request"
            things = (packed["refund" if is_refund else "order"]).tolist()
            for row, code, thing in zip(held, packed["customer"].tolist(), things, strict=True):
                if code == own or (is_refund and thing == own_refund):
                    continue
                found.accounts.setdefault(code, _Account(code)).add(row)
                if is_refund:
                    found.account_of[thing] = code
        for account in found.accounts.values():
            for kind in account.kinds:
                found.users[kind] += 1
        labels = [row for row in rows if row.event_type == "label"]
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
class _Look:
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
