"""What events and decisions say, as moments of a timeline in the language of the reader.

Codes are told in words. A value that no list knows is told as such, and as the data that it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from serving.explanation.parts import Lane, Tone
from serving.explanation.words import action_name, source_name
from serving.language import Language
from serving.store.renaming import ERASED
from serving.vocabulary import word_of

Payload = Mapping[str, Any]


class Happening(NamedTuple):
    """What is told of an event, before it has its place in time."""

    lane: Lane
    title: str
    tone: Tone = "plain"
    details: tuple[str, ...] = ()
    amount_minor: int | None = None
    currency: str | None = None


def happening(
    event_type: str, payload: Payload, language: Language, *, is_first: bool = True,
    currency: str | None = None,
) -> Happening:  # fmt: skip
    """What an event says.

    ``is_first`` tells first versions of an order or a refund from later ones, ``currency`` is that
    of the refund it is about.

    >>> from serving.language import ENGLISH
    >>> asked = {"amount_minor": 4_900, "currency": "GBP", "reason": "ITEM_NOT_RECEIVED"}
    >>> happening("refund_request", asked, ENGLISH).title
    'Asked 49.00 GBP back: item not received'
    >>> happening("return", {"status": "RECEIVED"}, ENGLISH)[:3]
    ('returns', 'Return received', 'good')
    """
    match event_type:
        case "order":
            return _order(payload, language, is_first=is_first)
        case "order_update":
            return _update(payload, language)
        case "transaction":
            return _transaction(payload, language)
        case "refund_request":
            return _request(payload, language, is_first=is_first)
        case "refund_outcome":
            return _outcome(payload, language, currency)
        case "return":
            return _return(payload, language)
        case "dispute":
            return _dispute(payload, language)
        case _:
            return verdict(payload, language)


def outside(value: object, language: Language) -> str:
    """A value that no list knows.

    >>> from serving.language import ENGLISH
    >>> outside("{EATEN}", ENGLISH)
    'a value outside the list (“{EATEN}”)'
    """
    if value == ERASED:
        return language.say("a value that was erased")
    return language.say("a value outside the list (“{value}”)", value=value)


# --- orders ------------------------------------------------------------------------------------


def _order(payload: Payload, language: Language, *, is_first: bool) -> Happening:
    items = payload.get("item_count")
    if not is_first:
        title = language.say("The order was reported again, with other fields")
    elif items is None:
        title = language.say("Placed an order")
    else:
        title = language.say_of(items, "Ordered {value} item", "Ordered {value} items")
    return Happening("orders", title, "plain", (), payload["amount_minor"], payload["currency"])


def _update(payload: Payload, language: Language) -> Happening:
    title, tone = _said(
        payload["status"],
        {
            "ACCEPTED": (language.say("Order accepted"), "plain"),
            "SHIPPED": (language.say("Order shipped"), "plain"),
            "DELIVERED": (language.say("Order delivered"), "good"),
            "CANCELLED": (language.say("Order cancelled"), "plain"),
        },
        lambda word: language.say("Order: {word}", word=outside(word, language)),
    )
    details = []
    if (delivered_at := payload.get("delivered_at")) is not None:
        day = language.day(delivered_at)
        if day != language.day(payload["known_at"]):
            details.append(language.say("delivered on {day}", day=day))
    if "line_id" in payload:
        details.append(language.say("one line of the order only"))
    return Happening("orders", title, tone, tuple(details))


def _transaction(payload: Payload, language: Language) -> Happening:
    failed = payload.get("success") is False
    kind = payload["kind"]
    title, tone = _said(
        kind,
        {
            "CAPTURE": (language.say("Taking the payment failed"), "bad") if failed
            else (language.say("Payment taken"), "plain"),
            "REFUND": (language.say("Paying back failed"), "bad") if failed
            else (language.say("Money paid back"), "plain"),
            "VOID": (language.say("Voiding the payment failed"), "bad") if failed
            else (language.say("Payment voided"), "plain"),
        },
        lambda word: language.say("Transaction: {word}", word=outside(word, language)),
    )  # fmt: skip
    lane: Lane = "refunds" if kind == "REFUND" else "orders"
    return Happening(lane, title, tone, (), payload["amount_minor"], payload["currency"])


# --- refunds -----------------------------------------------------------------------------------


def _request(payload: Payload, language: Language, *, is_first: bool) -> Happening:
    minor, currency = payload["amount_minor"], payload["currency"]
    amount, code = language.money(minor, currency), payload.get("reason")
    if code is None and is_first:
        title = language.say("Asked {amount} back", amount=amount)
    elif code is None:
        title = language.say("Asked {amount} back, in a later version of the request",
                             amount=amount)  # fmt: skip
    elif is_first:
        title = language.say("Asked {amount} back: {reason}", amount=amount,
                             reason=_reason(code, language))  # fmt: skip
    else:
        title = language.say("Asked {amount} back, in a later version of the request: {reason}",
                             amount=amount, reason=_reason(code, language))  # fmt: skip
    return Happening(
        "refunds", title, "plain", tuple(_beside(payload, language)), minor, currency
    )  # fmt: skip


def _reason(code: str, language: Language) -> str:
    return word_of("reason", code, language) or outside(code, language)


def _beside(payload: Payload, language: Language) -> Iterable[str]:
    """What else an analyst looks at in a request, where it is not as usual."""
    if payload.get("ignore"):
        yield language.say("not counted: a mistake of the shop's own")
    if kept := payload.get("non_refundable_minor"):
        money = language.money(kept, payload["currency"])
        yield language.say("{amount} of it is kept by the shop's terms", amount=money)
    words = {
        "REFUND": "",
        "RETURN": language.say("a return"),
        "STORE_CREDIT": language.say("as store credit"),
        "GOODWILL": language.say("as goodwill"),
        "INSTANT": language.say("to be paid at once"),
        "REPLACEMENT": language.say("as a replacement"),
    }
    kind = payload.get("type", "REFUND")
    if said := words[kind] if kind in words else outside(kind, language):
        yield said
    by = {"CUSTOMER": "", "MERCHANT": language.say("asked for by the shop"),
          "AGENT": language.say("asked for by an agent")}  # fmt: skip
    who = payload.get("initiated_by", "CUSTOMER")
    if said := by[who] if who in by else outside(who, language):
        yield said


def _outcome(payload: Payload, language: Language, currency: str | None) -> Happening:
    title, tone = _said(
        payload["status"],
        {
            "COMPLETED": (language.say("Refund paid"), "plain"),
            "DECLINED": (_declined(payload.get("decline_reason"), language), "plain"),
            "FAILED": (language.say("Paying the refund failed"), "wait"),
            "CANCELED": (language.say("Refund cancelled"), "plain"),
        },
        lambda word: language.say("Refund: {word}", word=outside(word, language)),
    )
    minor = payload.get("amount_minor")
    return Happening("refunds", title, tone, (), minor, None if minor is None else currency)


def _declined(code: str | None, language: Language) -> str:
    if code is None:
        return language.say("Refund declined")
    titles = {
        "RAVELIN": language.say("Refund declined by the risk service"),
        "RISK": language.say("Refund declined as too risky"),
        "POLICY": language.say("Refund declined by the shop's terms"),
        "MERCHANT": language.say("Refund declined by the shop"),
    }
    said = titles.get(code)
    return said or language.say("Refund declined: {reason}", reason=outside(code, language))


def _return(payload: Payload, language: Language) -> Happening:
    title, tone = _said(
        payload["status"],
        {
            "LABEL_CREATED": (language.say("Return label made"), "wait"),
            "IN_TRANSIT": (language.say("Return on its way"), "wait"),
            "RECEIVED": (language.say("Return received"), "good"),
            "LOST": (language.say("Return lost on its way"), "bad"),
            "ACCEPTED": (language.say("Return accepted after inspection"), "good"),
            "REJECTED": (language.say("Return rejected after inspection"), "bad"),
        },
        lambda word: language.say("Return: {word}", word=outside(word, language)),
    )
    return Happening("returns", title, tone)


# --- disputes and verdicts ---------------------------------------------------------------------


def _dispute(payload: Payload, language: Language) -> Happening:
    stage, outcome = payload.get("stage"), payload.get("outcome")
    said = None if stage is None else _stage(stage, language)
    details: list[str] = []
    if outcome is not None:
        title, tone = _ended(outcome, language)
        details += [] if said is None else [said[0]]
    else:
        title, tone = said or (language.say("Dispute reported"), "bad")
    if (reason := payload.get("reason")) is not None:
        is_gone = reason == ERASED
        details.append(outside(reason, language) if is_gone
                       else language.say("reason: {reason}", reason=reason))  # fmt: skip
    if "payment_method_id" in payload:
        details.append(language.say("told of the payment method alone"))
    return Happening("disputes", title, tone, tuple(details), payload.get("amount_minor"),
                     payload.get("currency"))  # fmt: skip


def _stage(code: str, language: Language) -> tuple[str, Tone]:
    return _said(
        code,
        {
            "EARLY_FRAUD_WARNING": (language.say("Early warning of fraud"), "bad"),
            "REQUEST_FOR_INFORMATION": (language.say("The bank asked for information"), "wait"),
            "NOTIFICATION_OF_CHARGEBACK": (language.say("Chargeback announced"), "bad"),
            "CHARGEBACK": (language.say("Chargeback opened"), "bad"),
            "SECOND_CHARGEBACK": (language.say("Second chargeback opened"), "bad"),
            "CHARGEBACK_REVERSED": (language.say("Chargeback reversed"), "good"),
            "PREARBITRATION": (language.say("Dispute about to go to arbitration"), "bad"),
            "ARBITRATION": (language.say("Dispute in arbitration"), "bad"),
        },
        lambda word: language.say("Dispute: {word}", word=outside(word, language)),
    )


def _ended(code: str, language: Language) -> tuple[str, Tone]:
    return _said(
        code,
        {
            "ACCEPTED": (language.say("Dispute accepted by the shop"), "bad"),
            "WON": (language.say("Dispute won by the shop"), "good"),
            "EXPIRED": (language.say("Dispute expired"), "plain"),
            "LOST": (language.say("Dispute lost by the shop"), "bad"),
        },
        lambda word: language.say("Dispute ended: {word}", word=outside(word, language)),
    )


def verdict(payload: Payload, language: Language) -> Happening:
    """What a label says.

    >>> from serving.language import ENGLISH
    >>> found = {"label": "REFUND_ABUSE", "source": "INVESTIGATION", "refund_id": "r"}
    >>> verdict(found, ENGLISH).title
    'Confirmed as abuse by an investigation'
    """
    label, source = payload["label"], payload.get("source")
    say = language.say
    titles: dict[tuple[str, str | None], str] = {
        ("REFUND_ABUSE", None): say("Confirmed as abuse"),
        ("REFUND_ABUSE", "ANALYST"): say("Confirmed as abuse by an analyst"),
        ("REFUND_ABUSE", "CHARGEBACK"): say("Confirmed as abuse by a chargeback"),
        ("REFUND_ABUSE", "INVESTIGATION"): say("Confirmed as abuse by an investigation"),
        ("NOT_REFUND_ABUSE", None): say("Cleared of abuse"),
        ("NOT_REFUND_ABUSE", "ANALYST"): say("Cleared of abuse by an analyst"),
        ("NOT_REFUND_ABUSE", "CHARGEBACK"): say("Cleared of abuse by the end of a chargeback"),
        ("NOT_REFUND_ABUSE", "INVESTIGATION"): say("Cleared of abuse by an investigation"),
        ("UNREVIEWED", None): say("Set back to not reviewed"),
        ("UNREVIEWED", "ANALYST"): say("Set back to not reviewed by an analyst"),
        ("UNREVIEWED", "CHARGEBACK"): say("Set back to not reviewed by a chargeback"),
        ("UNREVIEWED", "INVESTIGATION"): say("Set back to not reviewed by an investigation"),
    }
    title = titles.get((label, source)) or say("Verdict: {word}", word=outside(label, language))
    whole = say("about the customer, not about one refund")
    return Happening("verdicts", title, _TONE_OF_VERDICT.get(label, "plain"),
                     (whole,) if "customer_id" in payload else ())  # fmt: skip


_TONE_OF_VERDICT: Final[Mapping[str, Tone]] = {"REFUND_ABUSE": "bad", "NOT_REFUND_ABUSE": "good"}


# --- decisions ---------------------------------------------------------------------------------


def decided(data: Payload, language: Language, *, is_first: bool = True) -> Happening:
    """What was answered to a request; ``data`` is the answer's.

    >>> from serving.language import ENGLISH
    >>> data = {"action": "MANUAL_REVIEW", "source": "MODEL", "abuseProbability": 0.62}
    >>> decided(data, ENGLISH).title
    'Decided: Manual review (the model, 62 %)'
    """
    values = {
        "action": action_name(data["action"], language),
        "source": source_name(data["source"], language),
    }
    probability = data.get("abuseProbability")
    if probability is not None:
        values["probability"] = language.probability(probability)
    if probability is None and is_first:
        title = language.say("Decided: {action} ({source})", **values)
    elif probability is None:
        title = language.say("Decided again: {action} ({source})", **values)
    elif is_first:
        title = language.say("Decided: {action} ({source}, {probability})", **values)
    else:
        title = language.say("Decided again: {action} ({source}, {probability})", **values)
    details = (language.say("without the model"),) if data.get("degraded") else ()
    return Happening("decisions", title, _TONE_OF_ACTION.get(data["action"], "wait"), details)


_TONE_OF_ACTION: Final[Mapping[str, Tone]] = {"ALLOW": "good", "PREVENT": "bad"}


def _said(
    code: str, known: Mapping[str, tuple[str, Tone]], otherwise: Callable[[str], str]
) -> tuple[str, Tone]:
    found = known.get(code)
    return (otherwise(code), "plain") if found is None else found
