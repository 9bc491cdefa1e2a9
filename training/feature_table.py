"""The feature table of the documentation, made from the catalog: `render`.

``python -m training.feature_table > docs/features.md`` writes it anew; a test fails when it is
stale. Nothing in it is typed twice: what a feature is, in words, is read off its expression.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, get_args

from features.catalog import FEATURES, MODEL_FEATURES
from features.engine import MAX_EVENTS
from features.feature import (
    MAX_DAYS,
    Age,
    Aggregate,
    Between,
    Both,
    Coalesce,
    Difference,
    Expression,
    Family,
    Feature,
    Field,
    FirstSeen,
    Known,
    Ratio,
    Unit,
    Where,
)

_HEAD: Final = f"""\
# The feature table

Made from `features/catalog.py` by `python -m training.feature_table > docs/features.md`; do not
edit it. There are {len(FEATURES)} features. A policy may read all of them, a coded one as its word.
A model sees {len(MODEL_FEATURES)}: those marked † are for rules and people, since neighbouring
windows and holders tell a model the same.

**Time.** A request is scored as of its cutoff: the instant from which it was known. A window of
w days is [cutoff - w, cutoff) on when an event became known; at a tie the request comes first. It
is at most {MAX_DAYS} days long and holds the latest {MAX_EVENTS:,} events of its type, whatever
condition then chooses among them. No request sees itself, nor other versions of the same refund.
A refund, and an order, counts once, with its first fields. An outcome, return, dispute or label
belongs to whom the refund or order it names belongs to. Only when something was *first seen* is
remembered for longer than a window.

**Unknown is not zero.** A count, sum or number of different things over nothing is 0. A mean,
median, maximum, latest value, time since, mixture or ratio over nothing is unknown, and so is all
that is about a device, address or other holder that the request does not name, a sum of which any
part is unknown, and an age to a time later than the cutoff.

**Money** is in minor units of the base currency at the rate of the day; without one it is unknown.
`payable_minor` is what a request asks for less what policy keeps of it, `amount` what an order cost
or a request asked for, `paid` what a refund paid. What is captured on an order, or refunded, stays
in the order's own currency.

**As it stands.** Disputes, returns and label cases change. Where it says *now*, each counts once,
by the latest event about it within the window.
"""

_UNITS: Final[Mapping[Unit, str]] = {
    "count": "a number of things",
    "minor": "money in minor units",
    "days": "days, with fractions",
    "share": "a part of a whole, 1 being all of it; of money it may be more",
    "ratio": "so many times something",
    "flag": "1 is yes, 0 is no",
    "code": "a word of a list, told to a model by its place in it",
    "bits": "entropy: 0 if all are one, 1 if two are equally frequent",
}

_FAMILIES: Final[Mapping[Family, str]] = {
    "velocity": "Velocity",
    "amount": "Amount",
    "account_age": "Account age",
    "order": "Orders and timing",
    "claim": "Claim pattern",
    "return": "Returns",
    "device": "Device and links",
    "chargeback": "Chargebacks",
    "label_history": "Label history",
}

_COLUMNS: Final = (
    "Name",
    "Unit",
    "What it is",
    "Reason code",
    "Sentence",
    "Where there is no value",
    "Why it speaks of abuse",
)

_EVENTS: Final[Mapping[str, tuple[str, str]]] = {
    "order": ("order", "orders"),
    "order_update": ("order update", "order updates"),
    "transaction": ("transaction", "transactions"),
    "refund_request": ("refund request", "refund requests"),
    "refund_outcome": ("refund outcome", "refund outcomes"),
    "return": ("step of a return", "returns"),
    "dispute": ("step of a dispute", "disputes"),
    "label": ("label", "label cases"),
}
"""Of each stream: one event, and many of what they are about."""


def render() -> str:
    """The whole page, Markdown."""
    return "\n".join(
        [
            _HEAD,
            *_listed("Units", ((unit, said) for unit, said in _UNITS.items())),
            *_listed("Conditions", ((w.noun, _condition(w)) for w in _conditions())),
            *(line for family in get_args(Family) for line in _section(family)),
        ]
    )


def _listed(title: str, lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield from (f"## {title}", "")
    yield from (f"- `{word}`: {said}." for word, said in lines)
    yield ""


def _section(family: Family) -> Iterator[str]:
    features = [feature for feature in FEATURES if feature.family == family]
    yield from (f"## {_FAMILIES[family]} ({len(features)})", "")
    yield _row(_COLUMNS)
    yield _row("---" for _ in _COLUMNS)
    yield from (_row(_cells(feature)) for feature in features)
    yield ""


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cells(feature: Feature) -> tuple[str, ...]:
    mark = "" if feature.for_model else " †"
    return (
        f"`{feature.name}`{mark}",
        feature.unit,
        in_words(feature.expression),
        f"`{feature.reason_code}`",
        feature.sentence.many,
        feature.sentence.none,
        feature.why,
    )


# --- conditions ----------------------------------------------------------------------------------


def _conditions() -> Iterable[Where]:
    """Every condition of the catalog, by its noun."""
    parts = (part for feature in FEATURES for part in feature.expression.walk())
    found = (part.where for part in parts if isinstance(part, Aggregate))
    return sorted({where for where in found if where}, key=lambda where: where.noun)


def _condition(where: Where) -> str:
    """What an event must be like.

    >>> from features.feature import either, where
    >>> lost = where("x", stage=("CHARGEBACK", None), outcome=("LOST",))
    >>> _condition(either("gone", lost, where("y", outcome=("EXPIRED",))))
    '`stage` CHARGEBACK or not given and `outcome` LOST, or `outcome` EXPIRED'
    """
    return ", or ".join(
        " and ".join(
            f"`{column}` {' or '.join(value or 'not given' for value in values)}"
            for column, values in group
        )
        for group in where.groups
    )


# --- expressions ---------------------------------------------------------------------------------


def in_words(expression: Expression) -> str:
    """What an expression is, in words; raises TypeError for a kind it has no words for.

    >>> from features.feature import count, distinct
    >>> in_words(Ratio(count("order", by="device", days=1), Field("item_count")))
    'number of orders by device in 1 day / `item_count`'
    >>> in_words(distinct("order", "customer", by="ip", days=30))
    'number of different values of `customer` among orders by ip in 30 days'
    """
    match expression:
        case Aggregate():
            return _aggregate(expression)
        case Field(column):
            return f"`{column}`"
        case FirstSeen(entity):
            return f"when the {entity.replace('_', ' ')} was first seen"
        case Coalesce(of):
            return ", else ".join(map(in_words, of))
        case Age(of):
            return f"days from ({in_words(of)}) to the cutoff"
        case Between(start, end):
            return f"days from ({in_words(start)}) to ({in_words(end)})"
        case Ratio(top, bottom):
            return f"{_part(top)} / {_part(bottom)}"
        case Difference(_, left, right):
            return f"{in_words(left)} - {in_words(right)}"
        case Both(_, left, right):
            return f"1 if each is above 0: {in_words(left)}; {in_words(right)}"
        case Known(of):
            return f"1 if known: {in_words(of)}"
        case _:
            raise TypeError(f"no words for {type(expression).__name__}")


def _part(of: Expression) -> str:
    """A part of a ratio, in brackets where it would run into the other."""
    return f"({in_words(of)})" if isinstance(of, Coalesce | Age) else in_words(of)


def _aggregate(a: Aggregate) -> str:
    one, many = _EVENTS[a.stream]
    chosen = f" that {{}} `{a.where.noun}`" if a.where else ""
    scope = f"by {a.by.replace('_', ' ')} in {a.days} day{'s' if a.days > 1 else ''}"
    events = f"{many}{chosen.format('are')} {scope}"
    match a.op:
        case "count" if a.stream in ("return", "dispute", "label"):
            return f"number of steps of {events}"
        case "count":
            return f"number of {events}"
        case "count_same":
            return f"number of {events} with the request's own `{a.column}`"
        case "standing":
            return f"number of {many}{chosen.format('are now')} {scope}"
        case "distinct":
            return f"number of different values of `{a.column}` among {events}"
        case "distinct_near" if a.near:
            near = f"`{a.near.column}` within {a.near.days} days of the request's"
            return f"number of different values of `{a.column}` among {events} with {near}"
        case "total":
            return f"sum of `{a.column}` of {events}"
        case "since_last" | "since_first":
            which = "latest" if a.op == "since_last" else "first"
            return f"days since the {which} {one}{chosen.format('is')} {scope}"
        case "last":
            return f"latest known `{a.column}` of {events}"
        case op:
            return f"{op} of `{a.column}` of {events}"


if __name__ == "__main__":
    sys.stdout.write(render())
