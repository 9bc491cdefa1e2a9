"""Everything that happened in one synthetic run: the parts of the world, drawn in their order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np

from training.world import (
    CURRENCY_OF,
    PRICE_LEVEL,
    Calendar,
    Floats,
    Ints,
    Lines,
    Orders,
    Parcels,
    People,
    Places,
    Rng,
    take,
)
from training.world_aftermath import (
    Disputes,
    Handling,
    Labels,
    Verdicts,
    dispute,
    handle,
    investigate,
    label,
)
from training.world_claims import Claims, draw_claims, fill_forms

# By currency, in minor units.
FREE_SHIPPING = np.array([5_000, 6_000, 7_500, 60_000, 20_000])
SHIPPING = np.array([395, 495, 595, 4_900, 1_490])

_STREAMS = (
    *("calendar", "people", "orders", "lines", "parcels", "claims", "verdicts", "handling"),
    *("disputes", "labels", "order_places", "claim_places", "forms", "records"),
)


@dataclass(frozen=True)
class Purchases:
    """Who bought what, and what became of the parcels; `lines` by their row in `orders`."""

    orders: Orders
    lines: Lines
    parcels: Parcels


@dataclass(frozen=True)
class History:
    """All that happened, seen or not."""

    start: date
    days: int
    people: People
    purchases: Purchases
    currency: Ints  # by order
    shipping: Ints  # by order, minor units
    claims: Claims
    line_claim: Ints  # by line: the claim it is asked back in, -1 for none
    asked: Ints  # by claim, minor units
    forms: dict[str, Ints]  # by claim
    handling: Handling
    disputes: Disputes
    labels: Labels
    order_places: Places
    claim_places: Places
    records: Rng  # the stream left for what depends on record keeping alone

    @classmethod
    def draw(cls, customers: int, days: int, end: date, rng: Rng) -> History:
        """Each part has a stream of its own, so that one may change and leave the rest alone."""
        streams = dict(zip(_STREAMS, rng.spawn(len(_STREAMS)), strict=True))
        start = end - timedelta(days=days)
        calendar = Calendar.draw(days, start.weekday(), streams["calendar"])
        people = People.draw(customers, calendar, streams["people"])
        orders = Orders.draw(people, calendar, streams["orders"])
        bought = Purchases(
            orders,
            Lines.draw(people, orders, calendar, streams["lines"]),
            Parcels.draw(people, orders, calendar, streams["parcels"]),
        )
        claims, batch = draw_claims(
            people, orders, bought.lines, bought.parcels, calendar, streams["claims"]
        )
        verdicts, banned = investigate(people, orders, claims, streams["verdicts"])
        bought, claims, batch = _until_banned(bought, claims, batch, banned[orders.customer])
        return cls._settle(start, calendar, people, bought, claims, batch, verdicts, streams)

    @classmethod
    def _settle(
        cls,
        start: date,
        calendar: Calendar,
        people: People,
        bought: Purchases,
        claims: Claims,
        batch: Ints,
        verdicts: Verdicts,
        streams: dict[str, Rng],
    ) -> History:
        """Put a price on the claims, then let the shop, the banks and the analysts answer."""
        orders, lines = bought.orders, bought.lines
        currency = CURRENCY_OF[people.country[orders.customer]]
        goods = np.bincount(lines.order, lines.amount, len(currency)).astype(np.int64)
        shipping = np.where(goods >= FREE_SHIPPING[currency], 0, SHIPPING[currency])
        claim_of = np.full((len(currency), 3), -1)
        claim_of[claims.order, claims.batch] = np.arange(len(claims.order))
        line_claim = claim_of[lines.order, batch]
        back = line_claim >= 0
        asked = np.bincount(line_claim[back], lines.amount[back], len(claims.order))
        # Shipping comes back with the whole order, unless the customer merely changed their mind.
        whole = (asked == goods[claims.order]) & ~claims.returns
        asked = asked.astype(np.int64) + np.where(whole, shipping[claims.order], 0)

        buyer, thief = orders.customer[claims.order], orders.thief[claims.order]
        amount_gbp = asked / 100 * PRICE_LEVEL[currency[claims.order]]
        handling = handle(people, orders, claims, amount_gbp, streams["handling"])
        disputes = dispute(orders, claims, handling, calendar, streams["disputes"])
        return cls(
            start=start,
            days=calendar.days,
            people=people,
            purchases=bought,
            currency=currency,
            shipping=shipping,
            claims=claims,
            line_claim=line_claim,
            asked=asked,
            forms=fill_forms(claims, people, buyer, streams["forms"]),
            handling=handling,
            disputes=disputes,
            labels=label(people, orders, claims, handling, disputes, verdicts, streams["labels"]),
            order_places=Places.draw(
                people, orders.customer, orders.time, orders.thief, streams["order_places"]
            ),
            claim_places=Places.draw(people, buyer, claims.time, thief, streams["claim_places"]),
            records=streams["records"],
        )


def _until_banned(
    bought: Purchases, claims: Claims, batch: Ints, banned: Floats
) -> tuple[Purchases, Claims, Ints]:
    """A banned customer orders no more: later orders, and what follows from them, never were."""
    kept = bought.orders.time <= banned
    number = np.cumsum(kept) - 1
    of_kept = kept[bought.lines.order]
    lines, claims = take(bought.lines, of_kept), take(claims, kept[claims.order])
    purchases = Purchases(
        take(bought.orders, kept),
        replace(lines, order=number[lines.order]),
        take(bought.parcels, kept),
    )
    return purchases, replace(claims, order=number[claims.order]), batch[of_kept]
