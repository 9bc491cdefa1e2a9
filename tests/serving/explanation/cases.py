"""Six explanations written by hand: five kinds of decision, and one whose every text is hostile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from features.money import DAY_MS
from serving.explanation.parts import (
    AuditTold,
    Change,
    Edge,
    Explanation,
    FactTold,
    Hub,
    Lane,
    Linked,
    Links,
    Moment,
    Note,
    ReasonTold,
    RuleTold,
    Timeline,
    Verdict,
    Versions,
    WhatIf,
)  # fmt: skip

NOW = 1_780_000_000_000
HOUR_MS = DAY_MS // 24
ANN, BEA, CARL = "Go9nGLBidYqiQZNXBvf1eQ", "u3zy_S8O8pFPXtRn1UaPLQ", "PDJsgCTKtsanaMZKTS3_TQ"
DEVICE, CARD, HOME = "ShkwcjhzHoK-u3v6sKR6ag", "mwZxvcMWp4Era1ZVu3cM8g", "MSBGdPt3LQBSz_uW93iUQQ"
VERSIONS = Versions(
    model="14", policy="2", policy_hash="5f0e1c3a9d7b", catalog_hash="c41d77e0aa52",
    base_currency="GBP",
)  # fmt: skip
SCORE_ID = "82d5dbc76734424f9b4b744d8b23a083"

BASE = Verdict(
    score_id=SCORE_ID, refund_id="r-48213", order_id="o-99120", customer=ANN, decided_at=NOW,
    action="PREVENT", source="MODEL", decided_by=(), asked_minor=129_900, currency="GBP",
    payable_minor=129_900.0, base_currency="GBP", probability=0.9312, base_rate=0.0341,
    risk_level="highest", expected_loss_minor=121_000.0, band="PREVENT", degraded=False,
    explored=False, follow_up=None,
)  # fmt: skip


def odds(probability: float) -> float:
    """The log-odds of a probability."""
    return math.log(probability / (1 - probability))


Said = tuple[str, str | None, str | None]


def reason(code: str, name: str, weight: float, way: float | None, *facts: Said) -> ReasonTold:
    """A reason whose facts (sentence, standing, own past) share its weight, the first most."""
    parts = [weight * share for share in ((1.0,), (0.7, 0.3), (0.6, 0.3, 0.1))[len(facts) - 1]]
    told = tuple(
        FactTold(f"{code.lower()}_{n}", sentence, 9.0, part, standing, past)
        for n, ((sentence, standing, past), part) in enumerate(zip(facts, parts, strict=True))
    )
    return ReasonTold(code, name, weight, None if way is None else weight / way, told)


def moment(days: float, lane: Lane, title: str, **more: Any) -> Moment:
    """Something that happened so many days before the decision; below 0 it became known later."""
    return Moment(NOW - int(days * DAY_MS), lane, title, is_later=days < 0, **more)


def rule(rule_id: str, outcome: Any, action: str, description: str, **more: Any) -> RuleTold:
    """A live rule at the risk stage, unless told otherwise."""
    told = {"version": 1, "mode": "live", "stage": "risk", "reason": rule_id.upper(), **more}
    return RuleTold(rule_id, outcome=outcome, action=action, description=description, **told)


MISSED = (
    rule("refund_already_completed", "miss", "PREVENT", "This refund has already been paid",
         stage="hard"),
    rule("line_asked_twice", "miss", "MANUAL_REVIEW",
         "Pieces that another refund, still open or paid, asks for too", stage="hard"),
    rule("outside_return_window", "miss", "PREVENT", "Requested more than 30 days after delivery",
         stage="hard", version=2),
    rule("country_mismatch", "miss", "MANUAL_REVIEW", "Billing and shipping country differ"),
    rule("new_account_large_refund", "miss", "MANUAL_REVIEW",
         "More than 100.00 to an account younger than 14 days"),
)  # fmt: skip


def abuse() -> Explanation:
    """A clear case: many claims of non-delivery, a device shared with confirmed abusers."""
    base, score = odds(0.0341), odds(0.9312)
    way = score - base
    raising = (
        reason("FREQUENT_ITEM_NOT_RECEIVED", "Often says nothing arrived", 1.61, way,
               ("8 of 9 earlier refund requests by this customer in a year say that nothing "
                "arrived", "991 of 1,000 refund requests have a smaller share",
                "more than ever before: at most 75 % in 8 earlier requests"),
               ("3 claims of non-delivery by this customer in 30 days",
                "996 of 1,000 refund requests have fewer", None)),
        reason("REFUND_VELOCITY_HIGH", "Many refund requests", 1.22, way,
               ("9 earlier refund requests by this customer in 30 days",
                "997 of 1,000 refund requests have fewer",
                "more than ever before: at most 5 in 9 earlier requests"),
               ("the last request of this customer was 29 hours before",
                "only 12 of 1,000 are shorter ago", "at the 9 earlier requests 2 to 40 days"),
               ("12 earlier refund requests by this customer in 90 days",
                "998 of 1,000 refund requests have fewer", None)),
        reason("DEVICE_SHARED", "Device of several accounts", 1.13, way,
               ("4 customers asked for refunds from this device in a year",
                "989 of 1,000 refund requests have fewer", "as at the last 3 requests")),
        reason("LINKED_ABUSE_CONFIRMED", "Abuse confirmed nearby", 0.94, way,
               ("2 cases of abuse were confirmed on this device in a year",
                "999 of 1,000 refund requests have fewer", None)),
        reason("AMOUNT_HIGH", "High amount", 0.72, way,
               ("1,299.00 GBP would be paid", "985 of 1,000 refund requests pay less",
                "at the 9 earlier requests 49.00 GBP to 320.00 GBP")),
        reason("REFUNDS_PAID_OFTEN", "Refunds paid often", 0.41, way,
               ("7 refunds paid to this customer in 90 days", "98 of 100 have fewer", None)),
        reason("ADDRESS_SHARED", "Address of several accounts", 0.33, way,
               ("3 customers asked for refunds to this address in a year", None, None)),
        reason("NOT_KNOWN", "What is not known", 0.11, way,
               ("the IP address's risk is not known", None, None)),
        reason("RETURN_UNUSED", "Return labels unused", 0.07, way,
               ("1 return label of this customer was never used", None, None)),
    )  # fmt: skip
    lowering = (
        reason("ACCOUNT_AGE", "Age of the account", -0.31, way,
               ("the account is 3.4 years old", "81 of 100 accounts are younger", None)),
        reason("ORDER_HISTORY", "History of orders", -0.18, way,
               ("27 earlier orders by this customer in a year", "94 of 100 have fewer", None)),
        reason("ITEM_CATEGORY", "What is asked back", -0.09, way,
               ("1 item is asked back", None, None)),
        reason("CHANNEL", "Where it was ordered", -0.04, way,
               ("the order was placed on the web", None, None)),
    )  # fmt: skip
    later = (
        moment(-3.1, "disputes", "Chargeback opened: product not received", amount_minor=129_900,
               currency="GBP", order_id="o-99120", is_own=True, tone="bad"),
        moment(-9, "verdicts", "Confirmed as abuse by an investigation", refund_id="r-48213",
               is_own=True, tone="bad"),
    )  # fmt: skip
    past = [
        moment(days, "refunds", f"Asked {amount} GBP back: item not received",
               amount_minor=int(float(amount) * 100), currency="GBP", refund_id=f"r-{n}")
        for n, (days, amount) in enumerate(
            [(310, "49.00"), (204, "89.50"), (151, "120.00"), (88, "75.00"), (26, "210.00"),
             (19, "64.90"), (13, "320.00"), (9.2, "99.00"), (1.2, "149.00")], start=47_000)
    ]  # fmt: skip
    paid = [
        moment(one.at and (NOW - one.at) / DAY_MS - 0.4, "refunds", "Refund paid", tone="good",
               amount_minor=one.amount_minor, currency="GBP", refund_id=one.refund_id)
        for one in past[:7]
    ]  # fmt: skip
    orders = [
        moment(days, "orders", "Ordered 3 items", detail="delivered 2 days after",
               amount_minor=8_900 + 100 * n, currency="GBP", order_id=f"o-{90_000 + n}")
        for n, days in enumerate(
            [340, 318, 290, 260, 231, 212, 188, 160, 133, 110, 95, 71, 50, 33, 30, 28, 24, 21, 18,
             16, 14, 11]
        )
    ]  # fmt: skip
    others = [
        moment(8, "orders", "Ordered 1 item", amount_minor=129_900, currency="GBP",
               order_id="o-99120", is_own=True, detail="delivered 5 days before the decision"),
        moment(140, "returns", "Return label made", detail="never used", tone="wait"),
        moment(82, "disputes", "Chargeback lost: product not received", amount_minor=7_500,
               currency="GBP", tone="bad"),
        moment(60, "verdicts", "Cleared by an analyst", tone="good", refund_id="r-47003"),
        moment(25.9, "decisions", "Decided: manual review (a rule, 41 %)", tone="wait"),
        moment(9.2, "decisions", "Decided: allow (the model, 9.1 %)", tone="good"),
        moment(0, "refunds", "Asked 1,299.00 GBP back: item not received", amount_minor=129_900,
               currency="GBP", refund_id="r-48213", order_id="o-99120", is_own=True),
        moment(0, "decisions", "Decided: prevent (the model, 93 %)", tone="bad", is_own=True,
               refund_id="r-48213"),
    ]  # fmt: skip
    moments = sorted([*past, *paid, *orders, *others, *later], key=lambda one: one.at)
    accounts = (
        Linked(BEA, (DEVICE, HOME), 6, 5, 2, 2, NOW - 6 * DAY_MS),
        Linked(CARL, (DEVICE, CARD), 3, 3, 1, 1, NOW - 40 * DAY_MS),
        Linked("x9QmW2aTqE-7yVvJcM1kRg", (DEVICE,), 2, 1, 0, 0, NOW - 90 * DAY_MS),
        Linked("Kk31sXo0QmKp5cWcN2y_zA", (HOME,), 14, 1, 0, 0, NOW - 200 * DAY_MS),
        Linked("e0Zt7YpLQfOqWb4n9uMd8w", (HOME,), 1, 0, 0, 0, NOW - 301 * DAY_MS),
    )
    return Explanation(
        language="en",
        verdict=replace(BASE, decided_by=(
            "The probability of abuse is 93 %, the expected loss 1,210.00 GBP: that is in the "
            "policy's band for Prevent, which begins at a probability of 85 % and an expected loss "
            "of 20.00 GBP.",
        )),
        raising=raising, lowering=lowering, base_log_odds=base,
        log_odds=base + sum(one.contribution for one in (*raising, *lowering)),
        what_if=WhatIf(
            edges=(
                Edge("probability", 0.85, "MANUAL_REVIEW",
                     "Below a probability of 85 % it would be: Manual review."),
                Edge("amount", 2_140, "MANUAL_REVIEW",
                     "Asked for 21.40 GBP or less, it would be: Manual review."),
            ),
            changes=(
                Change("return_received", "Once the return is scanned as received",
                       "MANUAL_REVIEW", 0.61, moves=True),
                Change("abuse_cleared", "Were the earlier refund r-47004 cleared by an analyst",
                       "MANUAL_REVIEW", 0.79, moves=True),
                Change("dispute_won", "Were the chargeback of 12 Mar 2026 won", "PREVENT", 0.91,
                       moves=False),
                Change("wait_30", "Were it decided anew 30 days later, with nothing else "
                       "happening in between",
                       "PREVENT", 0.88, moves=False),
            ),
        ),
        timeline=Timeline(tuple(moments), left_out=13),
        links=Links(
            ANN,
            (Hub("device", DEVICE, "device", 4), Hub("payment_method", CARD, "payment method", 2),
             Hub("address", HOME, "address", 4), Hub("ip", "q7YxS8O8pFPXtRn1UaPLAA",
                                                     "IP address", 1)),
            accounts,
        ),
        rules=(
            rule("high_refund_velocity", "hit", "MANUAL_REVIEW",
                 "Five or more earlier refunds of this customer within 30 days, or three within 7",
                 reason="REFUND_VELOCITY_HIGH", version=2),
            rule("serial_item_not_received", "hit", "MANUAL_REVIEW",
                 "Customer claims non-delivery unusually often",
                 reason="FREQUENT_ITEM_NOT_RECEIVED", version=2),
            rule("high_ip_risk", "unknown", "MANUAL_REVIEW",
                 "The reputation service rates the IP address 0.8 or worse", reason="FACT_MISSING",
                 unknown_facts=("ip_risk",)),
            rule("ip_per_day", "hit", "MANUAL_REVIEW", "More than 30 requests of one ip in 1 day",
                 mode="shadow", stage="limit"),
            *MISSED,
        ),
        warnings=("The request does not say how risky its IP address is.",),
        notes=(
            Note(NOW + 9 * DAY_MS, "maria.s", "Confirmed as abuse",
                 "Carrier's photo shows the parcel at the door; same claim on r-47006."),
        ),
        audit=(
            AuditTold(88_121, NOW, "key k_live_7", "decision.made",
                      {"score_id": SCORE_ID, "action": "PREVENT", "source": "MODEL"}),
            AuditTold(91_007, NOW + 9 * DAY_MS, "maria.s", "label.recorded",
                      {"label": "REFUND_ABUSE", "source": "INVESTIGATION"}),
        ),
        versions=VERSIONS,
    )  # fmt: skip


def honest() -> Explanation:
    """An old customer with few refunds; nobody else is near."""
    base, way = odds(0.0341), odds(0.0031) - odds(0.0341)
    lowering = (
        reason("ACCOUNT_AGE", "Age of the account", -1.02, way,
               ("the account is 6.1 years old", "93 of 100 accounts are younger", None)),
        reason("ORDER_HISTORY", "History of orders", -0.81, way,
               ("41 earlier orders by this customer in a year",
                "97 of 100 refund requests have fewer", None)),
        reason("REFUND_VELOCITY_HIGH", "Many refund requests", -0.66, way,
               ("no earlier refund request by this customer within a year", None,
                "as at the last request")),
        reason("AMOUNT_HIGH", "High amount", -0.22, way, ("18.50 GBP would be paid",
               "79 of 100 refund requests pay more", None)),
    )  # fmt: skip
    raising = (
        reason(
            "REFUND_REASON",
            "The reason given",
            0.28,
            way,
            ("the reason given is: changed mind", None, None),
        ),
    )
    return Explanation(
        language="en",
        verdict=replace(
            BASE, refund_id="r-50001", order_id="o-50001", customer=BEA, action="ALLOW",
            decided_by=("The probability of abuse is 0.3 %, the expected loss 0.06 GBP: none of "
                        "the policy's bands is reached, and no rule calls for more.",),
            asked_minor=1_850, payable_minor=1_850.0, probability=0.0031, risk_level="lowest",
            expected_loss_minor=5.7, band="ALLOW",
        ),
        raising=raising, lowering=lowering, base_log_odds=base,
        log_odds=base + sum(one.contribution for one in (*raising, *lowering)),
        what_if=WhatIf(
            edges=(Edge("probability", 0.25, "MANUAL_REVIEW",
                        "From a probability of 25 % on it would be: Manual review."),),
        ),
        timeline=Timeline(tuple(sorted((
            moment(21, "orders", "Ordered 2 items", amount_minor=4_100, currency="GBP",
                   is_own=True, order_id="o-50001"),
            moment(9, "returns", "Return label made", is_own=True),
            moment(2, "returns", "Return received", is_own=True, tone="good"),
            moment(0, "refunds", "Asked 18.50 GBP back: changed mind", amount_minor=1_850,
                   currency="GBP", refund_id="r-50001", is_own=True),
            moment(0, "decisions", "Decided: allow (the model, 0.3 %)", is_own=True, tone="good"),
            moment(-0.2, "refunds", "Refund paid", amount_minor=1_850, currency="GBP",
                   refund_id="r-50001", is_own=True, tone="good"),
        ), key=lambda one: one.at))),
        links=Links(BEA, (Hub("device", DEVICE, "device", 1), Hub("email", CARD, "e-mail address",
                                                                  1))),
        rules=MISSED, warnings=(), notes=(),
        audit=(AuditTold(77, NOW, "key k_live_7", "decision.made", {"action": "ALLOW"}),),
        versions=VERSIONS,
    )  # fmt: skip


def borderline() -> Explanation:
    """Held for review by a hair: the return is on its way, and settles it."""
    base, way = odds(0.0341), odds(0.264) - odds(0.0341)
    raising = (
        reason("RETURN_OUTSTANDING", "Return outstanding", 1.1, way,
               ("the return was not received yet", None, "at the 2 earlier requests it was")),
        reason("AMOUNT_HIGH", "High amount", 0.94, way,
               ("412.00 GBP would be paid", "961 of 1,000 refund requests pay less",
                "at the 2 earlier requests 20.00 GBP to 35.00 GBP")),
        reason("NOT_KNOWN", "What is not known", 0.42, way,
               ("the device is not known", None, None)),
    )  # fmt: skip
    lowering = (
        reason(
            "ACCOUNT_AGE",
            "Age of the account",
            -0.14,
            way,
            ("the account is 2.2 years old", None, None),
        ),
    )
    return Explanation(
        language="en",
        verdict=replace(
            BASE, refund_id="r-61200", order_id="o-61007", customer=CARL, action="MANUAL_REVIEW",
            decided_by=("The probability of abuse is 26 %, the expected loss 108.77 GBP: that is "
                        "in the policy's band for Manual review, which begins at a probability of "
                        "25 % and an expected loss of 5.00 GBP.",),
            asked_minor=41_200, payable_minor=41_200.0, probability=0.264, risk_level="elevated",
            expected_loss_minor=10_877.0, band="MANUAL_REVIEW", follow_up="STEP_UP_VERIFICATION",
        ),
        raising=raising, lowering=lowering, base_log_odds=base,
        log_odds=base + sum(one.contribution for one in (*raising, *lowering)),
        what_if=WhatIf(
            edges=(Edge("probability", 0.25, "ALLOW", "Below a probability of 25 % it would be: "
                                                      "Allow."),
                   Edge("probability", 0.85, "PREVENT", "From a probability of 85 % on it would "
                                                        "be: Prevent."),
                   Edge("amount", 38_150, "ALLOW", "Asked for 381.50 GBP or less, it would be: "
                                                   "Allow.")),
            changes=(
                Change("return_received", "Once the return is scanned as received", "ALLOW", 0.041,
                       moves=True, happened_at=NOW + 2 * DAY_MS),
                Change("return_lost", "Were the return reported lost", "MANUAL_REVIEW", 0.33,
                       moves=False),
            ),
            differs="Made again from what is known by now of that time, the probability is 27 %.",
        ),
        timeline=Timeline((
            moment(12, "orders", "Ordered 1 item", amount_minor=41_200, currency="GBP",
                   order_id="o-61007", is_own=True),
            moment(3, "returns", "Return label made", is_own=True),
            moment(1.5, "returns", "Return on its way", is_own=True, tone="wait"),
            moment(0, "refunds", "Asked 412.00 GBP back: not as described", amount_minor=41_200,
                   currency="GBP", refund_id="r-61200", is_own=True),
            moment(0, "decisions", "Decided: manual review (the model, 26 %)", is_own=True,
                   tone="wait"),
            moment(-2, "returns", "Return received", is_own=True, tone="good"),
        )),
        links=Links(
            CARL, (Hub("address", HOME, "address", 38), Hub("ip", DEVICE, "IP address", 940)),
            tuple(
                Linked(f"{name:02d}Qx7hZkT2mVd1s8LbYw", (HOME, DEVICE)[name % 2 :], 3 + name,
                       name % 3, 0, 0, NOW - (name + 1) * 5 * DAY_MS)
                for name in range(12)
            ),
            left_out=953,
        ),
        rules=MISSED, warnings=("The request names no device.",), notes=(),
        audit=(), versions=VERSIONS,
    )  # fmt: skip


def ruled() -> Explanation:
    """A hard rule decides against a mild score."""
    base, way = odds(0.0341), odds(0.021) - odds(0.0341)
    raising = (
        reason("AMOUNT_HIGH", "High amount", 0.21, way, ("88.00 GBP would be paid", None, None)),
    )
    lowering = (reason("ORDER_HISTORY", "History of orders", -0.71, way,
                       ("19 earlier orders by this customer in a year", "9 of 10 have fewer",
                        "at the 3 earlier requests 11 to 18")),)  # fmt: skip
    return Explanation(
        language="en",
        verdict=replace(
            BASE, refund_id="r-70777", order_id="o-70777", source="RULE",
            decided_by=("Rule outside_return_window (version 2): Requested more than 30 days after "
                        "delivery",),
            asked_minor=8_800, payable_minor=8_000.0, probability=0.021, risk_level="low",
            expected_loss_minor=168.0, band="ALLOW", follow_up="STORE_CREDIT",
        ),
        raising=raising, lowering=lowering, base_log_odds=base,
        log_odds=base + sum(one.contribution for one in (*raising, *lowering)),
        what_if=WhatIf(
            changes=(Change("rule_off", "Did rule outside_return_window not hit", "ALLOW", 0.021,
                            moves=True),
                     Change("delivered", "Were the delivery reported 5 days later", "ALLOW", 0.021,
                            moves=True)),
            differs=None,
        ),
        timeline=Timeline((
            moment(58, "orders", "Ordered 2 items", amount_minor=8_800, currency="GBP",
                   order_id="o-70777", is_own=True, detail="delivered 34 days before"),
            moment(0, "refunds", "Asked 88.00 GBP back: changed mind", amount_minor=8_800,
                   currency="GBP", refund_id="r-70777", is_own=True),
            moment(0, "decisions", "Decided: prevent (a rule, 2.1 %)", is_own=True, tone="bad"),
        )),
        links=Links(ANN, (Hub("device", DEVICE, "device", 1),)),
        rules=(
            rule("outside_return_window", "hit", "PREVENT",
                 "Requested more than 30 days after delivery", stage="hard", version=2,
                 reason="POLICY_WINDOW_EXCEEDED", decisive=True),
            rule("line_already_refunded", "unknown", "PREVENT",
                 "More pieces of a line than were ordered and are not paid back yet", stage="hard",
                 reason="FACT_MISSING", unknown_facts=("refunded_again_piece_count",)),
            rule("unused_return_labels", "hit", "MANUAL_REVIEW",
                 "Three or more return labels of this customer were never used", mode="shadow"),
            *MISSED[:2],
        ),
        warnings=(),
        notes=(Note(NOW + DAY_MS, "j.okafor", "Sent to the shop's goodwill desk", ""),),
        audit=(AuditTold(5, NOW, "key k_live_7", "decision.made", {}, erased=True),),
        versions=VERSIONS,
    )  # fmt: skip


def degraded() -> Explanation:
    """No score in time: the fallback answered, and hardly anything else is known."""
    return Explanation(
        language="en",
        verdict=replace(
            BASE, refund_id="r-80000", order_id=None, action="MANUAL_REVIEW", source="FALLBACK",
            decided_by=("There was no score, so the policy's fallback answered: Manual review.",),
            asked_minor=2_500, currency="JPY", payable_minor=None, probability=None, base_rate=None,
            risk_level=None, expected_loss_minor=None, band=None, degraded=True,
            problem="deadline: the features took longer than 250 ms",
        ),
        raising=(), lowering=(), base_log_odds=None, log_odds=None,
        what_if=WhatIf(problem="Model 14 is no longer here, so nothing else could be computed."),
        timeline=Timeline((
            moment(0, "refunds", "Asked 2,500 JPY back: item damaged", amount_minor=2_500,
                   currency="JPY", refund_id="r-80000", is_own=True),
        )),
        links=Links(ANN), rules=(), warnings=("The decision was made without a score.",), notes=(),
        audit=(), versions=replace(VERSIONS, model=None),
    )  # fmt: skip


HOSTILE = (
    "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'&{{7*7}}{evil}%s"
    '=HYPERLINK("http://evil.example") \u202egnp.exe\u202c \u200f\u2067 \x00\x07\x1b[31m \ud83d '
    "\N{PILE OF POO}\N{FAMILY} </style></svg></title>]]>--> " + "W" * 10_000
)
"""Markup, templates, a formula, marks of direction, controls, half a character, a long word."""

_T = TypeVar("_T")
CODES = ("lane", "tone", "outcome", "kind", "language", "currency", "base_currency", "action",
           "source", "band", "mode", "stage", "risk_level", "follow_up")  # fmt: skip


def hostile() -> Explanation:
    """The clear case with every text that somebody else may choose replaced."""
    return replace(_hostile(abuse()), language="en")


def _hostile(value: _T, name: str = "") -> _T:
    changed: Any = value
    if isinstance(value, str):
        changed = value if name in CODES else HOSTILE
    elif is_dataclass(value):
        changed = replace(value, **{  # type: ignore[type-var]
            each.name: _hostile(getattr(value, each.name), each.name) for each in fields(value)
        })  # fmt: skip
    elif isinstance(value, Mapping):
        changed = {HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE, 1.5, None]}}
    elif isinstance(value, tuple):
        changed = tuple(_hostile(each, name) for each in value)
    return changed  # type: ignore[no-any-return]


CASES = {
    "abuse": abuse, "honest": honest, "borderline": borderline, "ruled": ruled,
    "degraded": degraded, "hostile": hostile,
}  # fmt: skip
