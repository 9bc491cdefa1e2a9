"""What is asked with a refund, in words: for whoever decides it, and what a later version changed.

Told from the request as it is stored: persons stand under pseudonyms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from features.events import due_minor
from features.money import DAY_MS
from serving.explanation.happenings import outside
from serving.language import Language
from serving.store.store import Store
from serving.vocabulary import word_of


class Line(NamedTuple):
    """An item that is asked for: its article, or else its line, and what is said of it."""

    name: str
    quantity: int | None
    said: tuple[str, ...]


class Asked(NamedTuple):
    """What a decision was asked: (name, words) of each thing, and the items."""

    facts: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]


def asked_of(store: Store, score_id: str, language: Language) -> Asked | None:
    """What was asked of a decision; None where it, or the request, is not kept any more."""
    decision = store.decision(score_id)
    if decision is None:
        return None
    event_id, events = decision.record["event_id"], store.refund_events(decision.refund_id)
    event = next((one for one in events if one.event_id == event_id), None)
    if event is None:
        return None
    facts = tuple(_facts(event.payload, event.known_at, language))
    return Asked(facts, tuple(_lines(event.payload, language)))


def changes(before: Asked, after: Asked, language: Language) -> list[str]:
    """What is asked otherwise than before, in words.

    >>> from serving.language import ENGLISH
    >>> before, after = (Asked((("Reason", said),), ()) for said in ("empty box", "item damaged"))
    >>> changes(before, after, ENGLISH)
    ['Reason: empty box → item damaged']
    """
    olds, news, say = dict(before.facts), dict(after.facts), language.say
    nothing = say("nothing")
    told = [
        say("{what}: {before} → {after}", what=name, before=olds.get(name, nothing),
            after=news.get(name, nothing))
        for name in {**olds, **news} if olds.get(name) != news.get(name)
    ]  # fmt: skip
    return [*told, *([say("other items")] if before.lines != after.lines else [])]


def _facts(asked: Mapping[str, Any], at: int, language: Language) -> Iterator[tuple[str, str]]:
    say, currency = language.say, asked["currency"]
    due = due_minor(asked["amount_minor"], asked.get("non_refundable_minor"))
    yield say("Asked back"), language.money(due, currency)
    if due != asked["amount_minor"]:
        whole = language.money(asked["amount_minor"], currency)
        kept = language.money(asked["amount_minor"] - due, currency)
        yield say("Kept by the shop"), say("{kept} of {amount}", kept=kept, amount=whole)
    if (order_minor := asked.get("order_amount_minor")) is not None:
        yield say("The order came to"), language.money(order_minor, currency)
    names = {
        "reason": say("Reason"), "claim": say("Claim"), "type": say("Kind"),
        "issued_to": say("Paid to"), "initiated_by": say("Asked for by"),
        "policy": say("Owed under"),
    }  # fmt: skip
    for column, name in names.items():
        if (code := asked.get(column)) is not None:
            yield name, _word(column, code, language)
    for column, name in (("ordered_at", say("Ordered")), ("delivered_at", say("Delivered")),
                         ("registered_at", say("Account since"))):  # fmt: skip
        if (then := asked.get(column)) is not None:
            yield name, _when(then, at, language)
        elif column == "delivered_at":
            yield name, say("not reported with the request")
    if asked.get("final_sale"):
        yield say("Final sale"), say("yes")


def _word(column: str, code: str, language: Language) -> str:
    return word_of(column, code, language) or outside(code, language)


def _when(then: int, at: int, language: Language) -> str:
    day = language.day(then)
    if then > at:
        return day
    before = language.duration((at - then) / DAY_MS)
    return language.say("{day}, {time} before", day=day, time=before)


def _lines(asked: Mapping[str, Any], language: Language) -> Iterator[Line]:
    for item in asked.get("items", ()):
        said = []
        if (minor := item.get("amount_minor")) is not None:
            said.append(language.money(minor, asked["currency"]))
        if item.get("category"):
            said.append(item["category"])
        if (code := item.get("reason")) is not None:
            said.append(_word("reason", code, language))
        name = item.get("sku") or language.say("line {number}", number=item["line_id"])
        yield Line(name, item.get("quantity"), tuple(said))
