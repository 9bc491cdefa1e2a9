"""The oracle: features by brute force in plain Python, straight from the rules on the time axis.

Loops, dicts and ints, no arrays and no index: slow, and short enough to be seen to be right. The
engine must agree with it on every history. What a request sees is looked up once and remembered,
because hundreds of features ask for it.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from features.attribution import CODES, STREAM_COLUMNS, STREAM_KEYS
from features.events import COLUMN_OF, EVENTS, KEYS, derive_event_id
from features.feature import (
    Age,
    Aggregate,
    Between,
    Both,
    Coalesce,
    Difference,
    Expression,
    Field,
    FirstSeen,
    Known,
    Ratio,
    Where,
)
from features.money import MINOR_UNIT_DIGITS

DAY_MS = 86_400_000
MAX_EVENTS = 1_000
EXACT_BELOW = 2**53
"""From here on a double cannot tell a whole number from the next."""

Row = Mapping[str, Any]
"""An event as a plain row: the columns of its table, None or absent where nothing is given."""


def counted_once(event_type: str, rows: Iterable[Row]) -> list[Row]:
    """The events of a table by (known_at, event_id), each once, at its first known_at."""
    repeats = EVENTS[event_type].repeats

    def id_of(row: Row) -> str:
        return row.get("event_id") or derive_event_id(event_type, row, repeats=repeats)

    named = [{**row, "event_id": id_of(row)} for row in rows]
    once: dict[str, Row] = {}
    for row in sorted(named, key=lambda row: (row["known_at"], row["event_id"])):
        once.setdefault(row["event_id"], row)
    return list(once.values())


def first_versions(rows: Iterable[Row], column: str) -> dict[str, Row]:
    """The first version of each order or refund; the rows come in canonical order."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row[column], row)
    return first


@dataclass(frozen=True)
class Attributed:
    """An event of a stream: per key, whose history it is in and from when."""

    event: Row
    holders: Mapping[str, tuple[str, int]]
    refund: Row | None
    """The first version of the refund it names."""


Window = Sequence[tuple[int, Attributed]]
"""Events with the instants from which they count, latest last."""


class Oracle:
    """All history as plain rows per event type, and daily rates (ISO date, currency, rate).

    A window holds the latest ``max_events`` of its type.
    """

    def __init__(
        self,
        events: Mapping[str, Iterable[Row]],
        rates: Iterable[tuple[str, str, float]] = (),
        base: str = "GBP",
        max_events: int = MAX_EVENTS,
    ) -> None:
        self.base = base
        self.max_events = max_events
        self._held: dict[Hashable, Window] = {}
        self._windows: dict[Hashable, Window] = {}
        self._values: dict[Hashable, float] = {}
        self.rates = {(currency, date.fromisoformat(day)): rate for day, currency, rate in rates}
        self.events = {kind: counted_once(kind, events.get(kind, ())) for kind in EVENTS}
        self.orders = first_versions(self.events["order"], "order_id")
        self.refunds = first_versions(self.events["refund_request"], "refund_id")
        self.streams = {kind: [self.attributed(kind, e) for e in self.history(kind)]
                        for kind in EVENTS}  # fmt: skip

    @property
    def requests(self) -> list[Row]:
        """Every refund request, re-sent versions too, in canonical order."""
        return self.events["refund_request"]

    # --- history and attribution ---

    def history(self, kind: str) -> list[Row]:
        """The events that count: an order and a refund once, and no refund born ignored."""
        if kind == "order":
            return list(self.orders.values())
        if kind == "refund_request":
            return [refund for refund in self.refunds.values() if not refund.get("ignore")]
        return self.events[kind]

    def attributed(self, kind: str, event: Row) -> Attributed:
        """An event with the holders it names, and those of the refund or order it names."""
        own = {key: event[COLUMN_OF[key]] for key in KEYS if event.get(COLUMN_OF[key]) is not None}
        holders = {key: (holder, event["known_at"]) for key, holder in own.items()}
        refund = named = None
        if kind not in ("order", "refund_request"):
            if "refund" in own:
                refund = named = self.refunds.get(own["refund"])
            elif "order" in own:
                named = self.orders.get(own["order"])
        for key in KEYS:
            if named is not None and key not in own and named.get(COLUMN_OF[key]) is not None:
                since = max(event["known_at"], named["known_at"])
                holders[key] = (named[COLUMN_OF[key]], since)
        holders = {key: holders[key] for key in STREAM_KEYS[kind] if key in holders}
        return Attributed(event, holders, refund)

    def held(self, kind: str, key: str, request: Row) -> Window:
        """What the request's holder holds before the cutoff, the request's own refund too."""
        asked = (kind, key, request["event_id"])
        if asked not in self._held:
            self._held[asked] = self._find(kind, key, request)
        return self._held[asked]

    def _find(self, kind: str, key: str, request: Row) -> Window:
        found = [
            (attributed.holders[key][1], attributed)
            for attributed in self.streams[kind]
            if key in attributed.holders
            and attributed.holders[key][0] == request[COLUMN_OF[key]]
            and attributed.holders[key][1] < request["known_at"]
        ]

        def order(pair: tuple[int, Attributed]) -> tuple[int, int, str]:
            effective, attributed = pair
            return effective, attributed.event["known_at"], attributed.event["event_id"]

        return sorted(found, key=order)

    def window(self, kind: str, key: str, days: int, request: Row) -> Window:
        """The latest events of so many days before the cutoff, no version of the own refund."""
        asked = (kind, key, days, request["event_id"])
        if asked not in self._windows:
            since = request["known_at"] - days * DAY_MS
            self._windows[asked] = [
                (at, found)
                for at, found in self.held(kind, key, request)
                if at >= since and not is_own(kind, found.event, request)
            ][-self.max_events :]
        return self._windows[asked]

    # --- values ---

    def in_base(self, amount_minor: int | None, currency: str | None, at: int) -> float:
        """Whole minor units of the base currency, half to even; NaN without a rate or too large."""
        if amount_minor is None or currency is None:
            return math.nan
        if currency == self.base:
            return amount_minor
        today = date.fromordinal(date(1970, 1, 1).toordinal() + at // DAY_MS)
        days = [day for name, day in self.rates if name == currency and day <= today]
        if not days:
            return math.nan
        digits = MINOR_UNIT_DIGITS[self.base] - MINOR_UNIT_DIGITS[currency]
        value = round(amount_minor * (self.rates[currency, max(days)] * 10.0**digits))
        return value if abs(value) < EXACT_BELOW else math.nan

    def column_value(self, kind: str, column: str, found: Attributed) -> Any:
        """What an event says in a column of its stream or as a key; None or NaN when unknown."""
        event = found.event
        if column in KEYS:
            return event.get(COLUMN_OF[column])
        source, meaning = STREAM_COLUMNS[kind][column]
        value = event.get(source)
        if meaning == "base":
            return self.in_base(value, event.get("currency"), event["known_at"])
        if meaning == "code":
            return code(column, value)
        if meaning == "case":
            return case(event)
        if meaning == "paid":
            refund = found.refund or {}
            if value is None and "amount_minor" in refund:
                value = payable(refund)
            return self.in_base(value, refund.get("currency"), event["known_at"])
        return value

    def aggregate(self, a: Aggregate, request: Row) -> float:
        """One number over the events of a window."""
        if request.get(COLUMN_OF[a.by]) is None:
            return math.nan
        window = self.window(a.stream, a.by, a.days, request)
        if a.op == "standing":
            return self.standing(a, window)
        window = [(at, found) for at, found in window if chosen(a.where, a.stream, found.event)]
        if a.op == "count":
            return len(window)
        if a.op in ("since_last", "since_first"):
            place = -1 if a.op == "since_last" else 0
            return (request["known_at"] - window[place][0]) / DAY_MS if window else math.nan
        if a.near is not None:
            middle = self.field(a.near.column, request)
            if unknown(middle):
                return math.nan
            window = [
                (at, found)
                for at, found in window
                if is_near(self.column_value(a.stream, a.near.column, found), middle, a.near.days)
            ]
        values = [self.column_value(a.stream, a.column or "", found) for _, found in window]
        if a.op == "count_same":
            own = request.get(COLUMN_OF[a.column or ""])
            return math.nan if own is None else values.count(own)
        return summary(a.op, values)

    def standing(self, a: Aggregate, window: Window) -> int:
        """How many things there are whose latest event in the window is chosen."""
        latest: dict[Hashable, Row] = {}
        for _, found in window:
            latest[self.column_value(a.stream, a.column or "", found)] = found.event
        return sum(chosen(a.where, a.stream, event)
                   for thing, event in latest.items() if thing is not None)  # fmt: skip

    def field(self, column: str, request: Row) -> float:
        """A number or code that the request itself carries."""
        in_base = {
            "payable_minor": payable(request),
            "refund_amount_minor": request["amount_minor"],
            "order_amount_minor": request.get("order_amount_minor"),
        }
        if column in in_base:
            return self.in_base(in_base[column], request["currency"], request["known_at"])
        if column == "asked_minor":
            return payable(request)
        if column == "country_mismatch":
            countries = [request.get("billing_country"), request.get("shipping_country")]
            return math.nan if None in countries else float(countries[0] != countries[1])
        value = request.get({"nonrefundable_minor": "non_refundable_minor"}.get(column, column))
        if column in CODES:
            return code(column, value)
        return math.nan if value is None else float(value)

    def first_seen(self, entity: str, request: Row) -> float:
        """When any event first named the request's entity itself, if before the cutoff."""
        column = COLUMN_OF[entity]
        times = [
            event["known_at"]
            for events in self.events.values()
            for event in events
            if request.get(column) is not None
            and event.get(column) == request[column]
            and event["known_at"] < request["known_at"]
        ]
        return min(times, default=math.nan)

    def value(self, e: Expression, request: Row) -> float:
        """Any expression of the catalog for one request; NaN is unknown."""
        asked = (e, request["event_id"])
        if asked not in self._values:
            self._values[asked] = float(self._evaluate(e, request))
        return self._values[asked]

    def _evaluate(self, e: Expression, request: Row) -> float:
        cutoff = request["known_at"]
        match e:
            case Aggregate():
                return self.aggregate(e, request)
            case Field():
                return self.field(e.column, request)
            case FirstSeen():
                return self.first_seen(e.entity, request)
            case Coalesce():
                values = [self.value(part, request) for part in e.of]
                return next((value for value in values if not unknown(value)), math.nan)
            case Age():
                time = self.value(e.of, request)
                return (cutoff - time) / DAY_MS if time <= cutoff else math.nan
            case Between():
                start, end = self.value(e.start, request), self.value(e.end, request)
                return (end - start) / DAY_MS if start <= cutoff and end <= cutoff else math.nan
            case Ratio():
                top, bottom = self.value(e.top, request), self.value(e.bottom, request)
                return top / bottom if bottom != 0 else math.nan
            case Difference():
                return self.value(e.left, request) - self.value(e.right, request)
            case Both():
                counts = [self.value(e.left, request), self.value(e.right, request)]
                return math.nan if any(map(unknown, counts)) else min(counts) > 0
            case Known():
                return float(not unknown(self.value(e.of, request)))
        raise TypeError(f"the oracle knows no {type(e).__name__}")


def summary(op: str, values: Sequence[Any]) -> float:
    """One number over the values of the chosen events, earliest first; None or NaN is unknown."""
    known = [value for value in values if not unknown(value)]
    if op == "total":
        return sum(known) if len(known) == len(values) else math.nan
    if op in ("distinct", "distinct_near"):
        return len(set(known))
    if not known:
        return math.nan
    match op:
        case "entropy":
            shares = [times / len(known) for times in Counter(known).values()]
            return -sum(share * math.log2(share) for share in shares)
        case "mean":
            return statistics.fmean(known)
        case "median":
            return float(statistics.median(known))
        case "maximum":
            return float(max(known))
        case "last":
            return float(known[-1])
    raise ValueError(f"the oracle knows no {op}")


def unknown(value: Any) -> bool:
    return value is None or value != value


def is_near(time: int | None, middle: float, days: int) -> bool:
    """Whether a time is known and at most so many days away, before or after."""
    return time is not None and abs(time - middle) <= days * DAY_MS


def text(value: Any) -> Any:
    """A coded value as its vocabulary spells it: flags too are words."""
    return str(value).lower() if isinstance(value, bool) else value


def code(column: str, value: Any) -> float:
    """The place of a value in its vocabulary; its length for a value outside."""
    if value is None:
        return math.nan
    choices = CODES[column]
    return choices.index(said) if (said := text(value)) in choices else len(choices)


def case(event: Row) -> tuple[str, str] | None:
    """What an event is a case of: a refund, else an order, else a customer; never one another."""
    for column in ("refund_id", "order_id", "customer_id"):
        if event.get(column) is not None:
            return column, event[column]
    return None


def is_own(kind: str, event: Row, request: Row) -> bool:
    """Whether an event is a version of the request's own refund."""
    return kind == "refund_request" and event["refund_id"] == request["refund_id"]


def payable(refund: Row) -> int:
    """What would be paid: the amount less the part that policy keeps, never less than nothing."""
    return max(0, int(refund["amount_minor"]) - (refund.get("non_refundable_minor") or 0))


def chosen(where: Where | None, kind: str, event: Row) -> bool:
    """Whether all conditions of any group hold."""
    return where is None or any(
        all(text(event.get(STREAM_COLUMNS[kind][column][0])) in values for column, values in group)
        for group in where.groups
    )
