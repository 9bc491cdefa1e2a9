"""The hidden half of the synthetic world: who the customers are, where they buy, what they buy.

Nothing here is seen by the shop as such. Times are float64 days since the start of the run;
`simulate` turns them into epoch milliseconds. People, orders and lines are structs of equally
long arrays, one element a row, so that a year of a shop is a few array operations.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Rng = np.random.Generator
Rows = TypeVar("Rows")


@dataclass(frozen=True)
class Habits:
    """What a hidden kind of customer tends to do.

    `share` of all customers; `orders` per 100 active days; `intent`, the mean probability that an
    order is made to be abused; `appetite`, a factor on ordinary returns; `device_days`, how long
    a device (as the shop can tell) lasts; `prizes`, how much an order made to be abused goes for
    each of CATEGORIES.
    """

    share: float
    orders: float
    intent: float
    appetite: float
    device_days: float
    prizes: tuple[float, ...]


@dataclass(frozen=True)
class Category:
    """A shelf of the shop: share of lines, median price, how often a line goes back."""

    name: str
    share: float
    price_gbp: float
    return_rate: float
    final_sale: float


CATEGORIES = (
    Category("apparel", 0.34, 34, 0.48, 0.06),
    Category("shoes", 0.16, 62, 0.50, 0.03),
    Category("accessories", 0.12, 22, 0.16, 0.05),
    Category("beauty", 0.10, 18, 0.05, 0.15),
    Category("home", 0.13, 40, 0.15, 0.05),
    Category("electronics", 0.10, 140, 0.15, 0.02),
    Category("toys", 0.05, 25, 0.10, 0.03),
)
SKUS_PER_CATEGORY = 60

_ORDINARY = tuple(category.share for category in CATEGORIES)
_DEAR = (0.24, 0.22, 0.10, 0.06, 0.10, 0.24, 0.04)
HABITS = {
    "honest": Habits(0.653, 2.2, 0.0, 1.0, 420, _ORDINARY),
    "frequent_returner": Habits(0.080, 3.6, 0.0, 2.0, 420, _ORDINARY),
    "household": Habits(0.160, 2.2, 0.0, 1.0, 420, _ORDINARY),
    "non_delivery_claimer": Habits(0.020, 2.6, 0.30, 0.9, 150, _DEAR),
    "wardrober": Habits(0.022, 3.0, 0.28, 1.3, 300, (0.55, 0.28, 0.17, 0, 0, 0, 0)),
    "empty_box_swapper": Habits(0.012, 2.3, 0.30, 1.0, 150, (0.1, 0.15, 0.1, 0, 0.1, 0.55, 0)),
    "double_dipper": Habits(0.011, 2.3, 0.30, 1.0, 200, _DEAR),
    "account_farm": Habits(0.021, 5.0, 0.50, 0.6, 90, _DEAR),
    "hijacked": Habits(0.021, 2.3, 0.0, 1.0, 420, _DEAR),
}
KINDS = tuple(HABITS)
HOUSEHOLD, FARM, HIJACKED = (KINDS.index(k) for k in ("household", "account_farm", "hijacked"))

COUNTRIES = ("GB", "DE", "FR", "IE", "NL", "US", "SE", "PL")
COUNTRY_SHARES = (0.55, 0.12, 0.09, 0.04, 0.04, 0.09, 0.04, 0.03)
CURRENCIES = ("GBP", "EUR", "USD", "SEK", "PLN")
CURRENCY_OF = np.array([0, 1, 1, 1, 1, 2, 3, 4])  # by country
PRICE_LEVEL = np.array([1.0, 0.86, 0.79, 0.075, 0.2])  # GBP a unit of currency buys on the shelf
TRANSIT_DAYS = np.array([1.8, 2.8, 3.0, 2.4, 2.3, 4.5, 3.4, 3.6])  # by country
CHANNELS = ("web", "app", "phone")


def take(table: Rows, rows: Ints | Bools) -> Rows:
    """The chosen rows of a struct of arrays."""
    chosen: Any = table
    taken: Rows = replace(chosen, **{f.name: getattr(table, f.name)[rows] for f in fields(chosen)})
    return taken


def pick(shares: npt.ArrayLike, size: int, rng: Rng) -> Ints:
    """`size` draws of an index with the given shares (they need not sum to one)."""
    edges = np.cumsum(np.asarray(shares, dtype=np.float64))
    return np.searchsorted(edges / edges[-1], rng.random(size), side="right").astype(np.int64)


def pick_by(row: Ints, shares: npt.ArrayLike, rng: Rng) -> Ints:
    """One index for each element of `row`, with the shares in that row of the matrix."""
    edges = np.cumsum(np.asarray(shares, dtype=np.float64), axis=1)
    edges /= edges[:, -1:]
    drawn: Ints = (rng.random(len(row))[:, None] >= edges[row]).sum(axis=1, dtype=np.int64)
    return drawn


def flattened(*steps: Floats) -> tuple[Ints, Ints, Floats]:
    """(step, row, time) of everything that happened, from one array of times a step."""
    times = np.array(steps)
    step, row = np.nonzero(~np.isnan(times))
    return step, row, times[step, row]


@dataclass(frozen=True)
class Calendar:
    """How busy the shop is: campaigns, weekdays, hours of the day, slow growth."""

    days: int
    campaign: Bools  # (days + 1,) the last is for events past the end
    elapsed: Floats  # (24 * days + 1,) shopping done up to each hour, in average days

    @classmethod
    def draw(cls, days: int, first_weekday: int, rng: Rng) -> Calendar:
        """Campaigns come about every ten weeks and last three to six days."""
        campaign = np.zeros(days + 1, dtype=np.bool_)
        for week in range(4, days // 7 + 1, 10):
            start = 7 * week + int(rng.integers(-10, 11))
            campaign[max(start, 0) : start + int(rng.integers(3, 7))] = True
        day = np.arange(days)
        weekday = np.array([1.05, 0.95, 0.92, 0.95, 1.0, 1.1, 1.25])[(day + first_weekday) % 7]
        pull = weekday * np.where(campaign[:-1], 2.8, 1.0) * (1 + 0.25 * day / 548)
        hour = 1.0 + 0.85 * np.sin((np.arange(24) - 10.5) / 24 * 2 * np.pi)
        weight = np.outer(pull, hour / hour.sum()).ravel()
        return cls(days, campaign, np.concatenate([[0.0], np.cumsum(weight)]) * days / weight.sum())

    def shopping(self, time: Floats) -> Floats:
        """Shopping done up to an instant, in average days."""
        return np.interp(time, np.arange(len(self.elapsed)) / 24, self.elapsed)

    def instant(self, shopping: Floats) -> Floats:
        """The instant up to which that much shopping was done."""
        return np.interp(shopping, self.elapsed, np.arange(len(self.elapsed)) / 24)

    def in_campaign(self, time: Floats) -> Bools:
        """Whether each instant falls into a campaign."""
        return self.campaign[np.clip(time, 0, self.days).astype(np.int64)]


@dataclass(frozen=True)
class People:
    """Customers, one a row. `ring` is the farm (or the customer alone), `home` the household."""

    kind: Ints
    registered: Floats  # day of registration, negative before the run
    leaves: Floats  # day after which the customer has lost interest
    rate: Floats  # orders per average day
    intent: Floats  # probability that an order is made to be abused
    turns: Floats  # day from which that is so
    temptation: Floats  # probability of a false claim by an otherwise honest customer, per order
    appetite: Floats
    theft_risk: Floats  # probability that a delivered parcel is gone from the doorstep
    device_days: Floats
    hides: Floats  # probability that no device is sent
    country: Ints
    home: Ints
    ring: Ints
    hijacked: Floats  # day the account is taken over, NaN if never
    thief: Ints  # who takes it over

    @classmethod
    def draw(cls, customers: int, calendar: Calendar, rng: Rng) -> People:
        """A population as of the whole run; those registered later arrive with the shopping."""
        n, days = customers, calendar.days
        habits = list(HABITS.values())
        # Kinds in blocks make neighbours of those who share a household or a farm.
        kind = np.sort(pick([h.share for h in habits], n, rng))

        def of_kind(name: str) -> Floats:
            return np.array([getattr(h, name) for h in habits])[kind]

        number = np.arange(n)
        size = np.where(kind == FARM, 9, np.where(kind == HOUSEHOLD, 3, 1))
        first = np.searchsorted(kind, kind)  # where the block of this kind begins
        ring = first + (number - first) // size * size

        old = rng.random(n) < 0.55
        arrival = calendar.instant(rng.random(n) * calendar.elapsed[-1])
        registered = np.where(old, -900 * rng.random(n) ** 1.5, arrival)
        born = rng.uniform(-40, days - 5, n)[ring]  # the accounts of a farm are made together
        registered = np.where(kind == FARM, born + rng.exponential(9, n), registered)
        stay = rng.exponential(np.where(kind == FARM, 70, 700))
        intent = of_kind("intent")
        start = np.maximum(registered, 0)
        turns = start + np.where(rng.random(n) < 0.4, 0, rng.exponential(90, n))
        taken = rng.uniform(0, days, n)
        return cls(
            kind=kind,
            registered=registered,
            leaves=start + stay,
            rate=rng.gamma(1.3, of_kind("orders") / 100 / 1.3),
            intent=np.where(intent > 0, rng.beta(3 * intent + 1e-9, 3 * (1 - intent)), 0),
            turns=np.where(kind == FARM, registered, turns),
            temptation=rng.beta(0.12, 0.12 / 0.0070, n),
            appetite=of_kind("appetite") * rng.gamma(2.2, 1 / 2.2, n),
            theft_risk=0.007 * rng.gamma(0.5, 2, n),
            device_days=of_kind("device_days") * rng.uniform(0.4, 1.6, n),
            hides=rng.beta(0.25, 2.6, n),
            country=pick(COUNTRY_SHARES, n, rng)[ring],
            home=np.where(kind == FARM, ring + number % 3, ring),
            ring=np.where(kind == FARM, ring, number),
            hijacked=np.where(
                (kind == HIJACKED) & (taken > registered + 20) & (taken < start + stay),
                taken,
                np.nan,
            ),
            thief=rng.integers(0, max(int((kind == HIJACKED).sum()) // 2, 1), n),
        )


@dataclass(frozen=True)
class Orders:
    """Orders, one a row, in order of time."""

    customer: Ints
    time: Floats
    thief: Ints  # who orders through a stolen account, -1 if the customer does
    intent: Bools  # made to be abused
    channel: Ints

    @classmethod
    def draw(cls, people: People, calendar: Calendar, rng: Rng) -> Orders:
        """Everyone's own orders at their rate, and those of thieves in the days after a theft."""
        begin = calendar.shopping(np.maximum(people.registered, 0))
        busy = calendar.shopping(np.minimum(people.leaves, calendar.days)) - begin
        count = rng.poisson(people.rate * np.maximum(busy, 0))
        customer = np.repeat(np.arange(len(count)), count)
        time = calendar.instant(begin[customer] + rng.random(len(customer)) * busy[customer])
        # One registers in order to buy: the first order follows within the hour.
        new = np.flatnonzero((people.registered > 0) & (people.registered < calendar.days - 0.1))
        taken = np.flatnonzero(~np.isnan(people.hijacked))
        loot = np.repeat(taken, rng.integers(1, 5, len(taken)))
        customer = np.concatenate([customer, new, loot])
        time = np.concatenate(
            [
                time,
                people.registered[new] + rng.exponential(0.02, len(new)),
                people.hijacked[loot] + rng.exponential(2.0, len(loot)),
            ]
        )
        thief = np.full(len(customer), -1)
        thief[len(customer) - len(loot) :] = people.thief[loot]
        turned = time >= people.turns[customer]
        intent = (rng.random(len(time)) < people.intent[customer]) & turned
        orders = cls(
            customer,
            time,
            thief,
            intent | (thief >= 0),
            pick((0.62, 0.35, 0.03), len(time), rng),
        )
        order = np.argsort(time, kind="stable")
        return take(orders, order[time[order] < calendar.days])


@dataclass(frozen=True)
class Places:
    """From where an order or a request is sent. Codes name a thing; -1 is not seen."""

    device: Ints
    payment: Ints
    address: Ints
    ip: Ints
    ip_host: Ints  # the part of an IPv6 address that changes within one home
    ip_risk: Floats
    abroad: Ints  # shipping country, where it is not the customer's own; else -1

    @classmethod
    def draw(cls, people: People, customer: Ints, time: Floats, thief: Ints, rng: Rng) -> Places:
        """What the shop could see of a customer (or thief) at an instant.

        A code is (owner, slot, generation): a new phone is a new generation. Owners below the
        number of customers are people, homes and farms; then come thieves, then public places.
        """
        n, count = len(customer), len(people.kind)
        owner = np.where(thief >= 0, count + thief, customer)
        home = np.where(thief >= 0, owner, people.home[customer])
        ring = np.where(thief >= 0, owner, people.ring[customer])
        farm = people.kind[customer] == FARM
        public = 2 * count

        def code(who: Ints, slot: Ints | int, life_days: Floats | float) -> Ints:
            generation = np.floor((time + 1000 + 37 * (who % 53)) / life_days).astype(np.int64)
            return (who * 8 + slot) * 4096 + generation

        u = rng.random((9, n))
        family = (people.home[customer] != customer) & (u[0] < np.where(farm, 0.55, 0.3))
        life = np.where(thief >= 0, 45, people.device_days[customer])
        device = code(owner, (u[1] > 0.75).astype(np.int64) + (u[1] > 0.96), life)
        device = np.where(
            family, code(np.where(farm, ring, home), 4 + farm * (customer % 2), 500), device
        )
        device = np.where(u[2] < people.hides[customer] * (thief < 0), -1, device)

        shared_card = farm & (customer % 3 == 0)
        payment = code(np.where(shared_card, ring, owner), (u[3] > 0.85), 900)
        # A thief may have the parcel sent to the owner's home and take it from there.
        shop = public + people.country[customer] * 64 + home % 40
        door = np.where((thief >= 0) & (thief % 2 == 0), people.home[customer], home)
        address = np.where(
            u[4] < 0.06, code(shop, 0, 1e9), code(door, (u[4] > 0.95) * (1 + customer % 3), 1e9)
        )
        mobile = public + 1000 + people.country[customer] * 4096 + customer % max(count // 60, 1)
        on_move = u[5] < 0.3
        ip = np.where(on_move, code(mobile, 0, 60), code(home, 0, 120))
        odd = (thief >= 0) | farm
        risk = rng.beta(np.where(odd, 1.0, 0.8), np.where(odd, 4.0, np.where(on_move, 5.0, 8.0)))
        return cls(
            device=device,
            payment=np.where(u[6] < 0.01, -1, payment),
            address=address,
            ip=np.where(u[7] < 0.03, -1, ip),
            ip_host=np.where(on_move, 0, (customer * 31 + time // 60).astype(np.int64) % 0xFFFF),
            ip_risk=np.where(u[8] < 0.35, np.nan, np.round(risk, 2)),
            abroad=np.where((thief >= 0) & (thief % 5 == 1), thief % len(COUNTRIES), -1),
        )


@dataclass(frozen=True)
class Lines:
    """Order lines, one a row, grouped by order."""

    order: Ints
    number: Ints  # 1, 2, … within the order
    sku: Ints
    quantity: Ints
    amount: Ints  # minor units of the order's currency
    final_sale: Bools
    unwanted: Bools  # would an honest customer send it back?

    @classmethod
    def draw(cls, people: People, orders: Orders, calendar: Calendar, rng: Rng) -> Lines:
        """Baskets: what is in them, at list price less discount, and what will not fit."""
        count = np.minimum(1 + rng.poisson(0.6, len(orders.time)), 6)
        order = np.repeat(np.arange(len(count)), count)
        n, customer = len(order), orders.customer[order]
        shelves = [_ORDINARY, *(habits.prizes for habits in HABITS.values())]
        kind = people.kind[customer]
        category = pick_by(np.where(orders.intent[order], 1 + kind, 0), shelves, rng)
        sku = category * SKUS_PER_CATEGORY + (SKUS_PER_CATEGORY * rng.random(n) ** 1.8).astype(int)
        prices, quality, final_sale = _shelves(rng)
        on_offer = rng.random(n) < np.where(calendar.in_campaign(orders.time)[order], 0.7, 0.12)
        quantity = 1 + pick((0.93, 0.055, 0.015), n, rng)
        price = prices[CURRENCY_OF[people.country[customer]], sku]
        rate = np.array([c.return_rate for c in CATEGORIES])[category]
        appetite = np.where(orders.thief[order] >= 0, 0, people.appetite[customer])
        wish = rate * quality[sku] * appetite * (1 - 0.6 * final_sale[sku])
        return cls(
            order=order,
            number=np.arange(n) - np.repeat(np.cumsum(count) - count, count) + 1,
            sku=sku,
            quantity=quantity,
            amount=price * quantity * np.where(on_offer, 8, 10) // 10,
            final_sale=final_sale[sku],
            unwanted=rng.random(n) < np.minimum(wish, 0.92),
        )


def _shelves(rng: Rng) -> tuple[Ints, Floats, Bools]:
    """List price by (currency, sku), a factor on returns by sku, and what is final sale."""
    category = np.repeat(np.arange(len(CATEGORIES)), SKUS_PER_CATEGORY)
    median = np.array([c.price_gbp for c in CATEGORIES])[category]
    price_gbp = median * rng.lognormal(0, 0.55, len(category))
    whole = np.maximum(np.round(price_gbp / PRICE_LEVEL[:, None]), 3).astype(np.int64)
    final = rng.random(len(category)) < np.array([c.final_sale for c in CATEGORIES])[category]
    return whole * 100 - 1, rng.gamma(6, 1 / 6, len(category)), final


@dataclass(frozen=True)
class Parcels:
    """What became of each order, one a row. NaN: it never happened."""

    shipped: Floats
    delivered: Floats
    cancelled: Floats
    lost: Bools
    stolen: Bools  # delivered as the carrier sees it, gone as the customer does
    damaged: Bools
    short: Bools  # an item was missing
    wrong: Bools  # another item was sent

    @classmethod
    def draw(cls, people: People, orders: Orders, calendar: Calendar, rng: Rng) -> Parcels:
        """Real losses and faults; campaigns slow the warehouse and lose more parcels."""
        n, country = len(orders.time), people.country[orders.customer]
        rush = np.where(calendar.in_campaign(orders.time), 1.8, 1.0)
        cancelled = rng.random(n) < 0.02
        shipped = orders.time + 0.15 + rng.gamma(2, 0.4, n) * rush
        transit = rng.gamma(4, TRANSIT_DAYS[country] / 4) * rush
        lost = (rng.random(n) < 0.011 * rush) & ~cancelled
        stolen = rng.random(n) < people.theft_risk[orders.customer]
        faults = rng.random((3, n)) < np.array([[0.014], [0.008], [0.010]]) * rush
        return cls(
            shipped=np.where(cancelled, np.nan, shipped),
            delivered=np.where(cancelled | lost, np.nan, shipped + transit),
            cancelled=np.where(cancelled, orders.time + rng.exponential(0.3, n), np.nan),
            lost=lost,
            stolen=stolen & ~lost & ~cancelled & ~orders.intent,
            damaged=faults[0],
            short=faults[1],
            wrong=faults[2],
        )
