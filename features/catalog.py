"""FEATURES: the one ordered list of everything a decision may look at. A feature is one line.

The order is the order of the columns of a feature table and of a model's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from features.engine import Plan
from features.feature import (
    Age,
    Aggregate,
    Between,
    Coalesce,
    Difference,
    Expression,
    Family,
    Feature,
    Field,
    FirstSeen,
    Ratio,
    Unit,
    Where,
    count,
    distinct,
    either,
    last,
    maximum,
    mean,
    since_last,
    total,
    where,
)

# --- what counts as what -----------------------------------------------------------------------

COMPLETED = where("refund_completed", outcome_status=("COMPLETED",))
DECLINED = where("refund_declined", outcome_status=("DECLINED",))
NOT_RECEIVED = where("item_not_received", reason=("ITEM_NOT_RECEIVED",))
EMPTY_BOX = where("empty_box", reason=("EMPTY_BOX", "MISSING_ITEM"))
DAMAGED = where("damaged", reason=("ITEM_DAMAGED", "NOT_AS_DESCRIBED"))
GOODWILL = either("goodwill", where("type", type=("GOODWILL",)),
                  where("policy", policy=("GOODWILL",)))  # fmt: skip

CHARGEBACK_STAGES = (
    "NOTIFICATION_OF_CHARGEBACK", "CHARGEBACK", "SECOND_CHARGEBACK", "PREARBITRATION",
    "ARBITRATION",
)  # fmt: skip
CHARGEBACK = where("chargeback", stage=CHARGEBACK_STAGES)
# Won or reversed, the shop has its money again. Lost, accepted or lapsed, the customer has it.
CHARGEBACK_CLOSED = either(
    "chargeback_closed",
    where("won", stage=(*CHARGEBACK_STAGES, None), outcome=("WON",)),
    where("reversed", stage=("CHARGEBACK_REVERSED",)),
)
EARLY_WARNING = where("early_warning", stage=("EARLY_FRAUD_WARNING", "REQUEST_FOR_INFORMATION"))

LABEL_CREATED = where("return_label", return_status=("LABEL_CREATED",))
RETURN_RECEIVED = where("return_received", return_status=("RECEIVED", "ACCEPTED"))
RETURN_REJECTED = where("return_rejected", return_status=("REJECTED",))

CONFIRMED = where("abuse_confirmed", label=("REFUND_ABUSE",))
CLEARED = where("abuse_cleared", label=("NOT_REFUND_ABUSE",))

SUCCEEDED = ("true", None)
CAPTURED = where("captured", kind=("CAPTURE",), success=SUCCEEDED)
REFUNDED = where("refunded", kind=("REFUND",), success=SUCCEEDED)

# --- business times and amounts, from the request or else from what is known of its order --------

REGISTERED_AT = Coalesce(
    (Field("registered_at"), last("order", "registered_at", by="order"),
     last("order", "registered_at", by="customer"))
)  # fmt: skip
ORDERED_AT = Coalesce((Field("ordered_at"), last("order", "ordered_at", by="order")))
DELIVERED_AT = Coalesce((Field("delivered_at"), last("order_update", "delivered_at", by="order")))
ORDER_AMOUNT = Coalesce((Field("order_amount_minor"), last("order", "amount", by="order")))

_WINDOWS = {1: "in a day", 7: "in 7 days", 30: "in 30 days", 90: "in 90 days", 365: "in a year"}

_BY = {
    "customer": "this customer", "device": "this device", "payment_method": "this payment method",
    "address": "this address", "ip": "this IP address", "email": "this e-mail address",
    "order": "this order", "refund": "this refund",
}  # fmt: skip


def _over(
    family: Family, unit: Unit, reason_code: str, what: str, why: str, *aggregates: Expression,
    for_model: bool = True,
) -> list[Feature]:  # fmt: skip
    """The same statement about several holders or windows: ``what`` holds {value}, {by}, {in_}."""
    features = []
    for expression in aggregates:
        scope = next(part for part in expression.walk() if isinstance(part, Aggregate))
        said = what.replace("{by}", _BY[scope.by]).replace("{in_}", _WINDOWS[scope.days])
        features.append(Feature(expression, family, unit, reason_code, said, why, for_model))
    return features


def _refunds(by: str, days: int, chosen: Where | None = None) -> Aggregate:
    return count("refund_request", by=by, days=days, where=chosen)


def _outcomes(by: str, days: int, chosen: Where) -> Aggregate:
    return count("refund_outcome", by=by, days=days, where=chosen)


def _orders(by: str, days: int) -> Aggregate:
    return count("order", by=by, days=days)


VELOCITY: Final = [
    *_over(
        "velocity", "count", "REFUND_VELOCITY_HIGH",
        "{value} earlier refund requests by {by} {in_}",
        "Abuse pays by repetition: many requests in a short time are rare among honest customers.",
        *(_refunds("customer", days) for days in _WINDOWS),
    ),
    *_over(
        "velocity", "count", "LINKED_REFUND_VELOCITY_HIGH",
        "{value} earlier refund requests from {by} {in_}",
        "Accounts are cheap, devices, cards and addresses are not: they show the ring behind.",
        *(_refunds(by, days) for by in ("device", "payment_method", "address")
          for days in (7, 30, 365)),
        *(_refunds(by, days) for by in ("ip", "email") for days in (7, 90)),
    ),
    *_over(
        "velocity", "count", "REFUNDS_PAID_OFTEN", "{value} refunds paid to {by} {in_}",
        "Success invites the next attempt.",
        *(_outcomes("customer", days, COMPLETED) for days in (30, 90, 365)),
        _outcomes("device", 365, COMPLETED),
    ),
    *_over(
        "velocity", "count", "REFUNDS_DECLINED_BEFORE", "{value} refunds of {by} declined {in_}",
        "A declined refund was suspect to somebody before.",
        *(_outcomes("customer", days, DECLINED) for days in (30, 365)),
        _outcomes("device", 365, DECLINED),
    ),
    *_over(
        "velocity", "days", "REFUND_SOON_AFTER_LAST",
        "the last refund request of {by} was {value} ago",
        "Requests that follow one another closely are a campaign, not bad luck.",
        since_last("refund_request", by="customer"), since_last("refund_request", by="device"),
    ),
    *_over(
        "velocity", "ratio", "REFUND_BURST", "{value} of the quarter's refund requests came {in_}",
        "A burst against the customer's own past betrays a hijacked account or a last harvest.",
        Ratio(_refunds("customer", 1), _refunds("customer", 90)),
        Ratio(_refunds("customer", 7), _refunds("customer", 90)),
    ),
    *_over(
        "velocity", "count", "GOODWILL_OFTEN", "{value} goodwill refunds to {by} {in_}",
        "Goodwill is granted without proof, so it is what abusers ask for.",
        _refunds("customer", 365, GOODWILL),
    ),
]  # fmt: skip

AMOUNT: Final = [
    Feature(Field("payable_minor"), "amount", "minor", "AMOUNT_HIGH", "the refund is worth {value}",
            "What is at stake, and what an abuser goes for."),
    Feature(Ratio(Field("payable_minor"), ORDER_AMOUNT), "amount", "share",
            "AMOUNT_SHARE_OF_ORDER_HIGH", "the refund is {value} of the order",
            "Honest returns are often partial; a claim of non-receipt takes all."),
    *_over(
        "amount", "ratio", "AMOUNT_ABOVE_OWN_NORM",
        "the refund is {value} times what {by} usually orders or gets back",
        "Abuse concentrates on orders unlike the customer's usual ones.",
        Ratio(Field("payable_minor"), mean("order", "amount", by="customer", days=365)),
        Ratio(Field("payable_minor"), maximum("order", "amount", by="customer", days=365)),
        Ratio(Field("payable_minor"), mean("refund_request", "amount", by="customer", days=365)),
    ),
    *_over(
        "amount", "minor", "REFUNDED_AMOUNT_HIGH", "{value} asked back by {by} {in_}",
        "The sum is what the business loses.",
        *(total("refund_request", "amount", by="customer", days=days) for days in (30, 90, 365)),
        total("refund_request", "amount", by="device", days=90),
        total("refund_request", "amount", by="address", days=90),
    ),
    *_over(
        "amount", "minor", "REFUNDED_AMOUNT_HIGH", "{value} paid back to {by} {in_}",
        "Money that went out before.",
        total("refund_outcome", "paid", by="customer", days=365, where=COMPLETED),
    ),
    *_over(
        "amount", "share", "REFUNDED_SHARE_HIGH",
        "{value} of what {by} bought {in_} was asked back",
        "Who sends back nearly everything is not shopping.",
        Ratio(total("refund_request", "amount", by="customer", days=90),
              total("order", "amount", by="customer", days=90)),
        Ratio(total("refund_request", "amount", by="customer", days=365),
              total("order", "amount", by="customer", days=365)),
    ),
]  # fmt: skip

ACCOUNT_AGE: Final = [
    Feature(Age(REGISTERED_AT), "account_age", "days", "ACCOUNT_AGE", "the account is {value} old",
            "Throw-away accounts are young when they ask."),
    Feature(Between(REGISTERED_AT, ORDERED_AT), "account_age", "days", "ACCOUNT_AGE",
            "the account was {value} old when it ordered",
            "An account made for one order."),
    Feature(Age(FirstSeen("customer")), "account_age", "days", "CUSTOMER_KNOWN_SINCE",
            "we have known this customer for {value}",
            "What we know of a customer starts with the first event, whatever the account says."),
    Feature(Age(FirstSeen("email")), "account_age", "days", "CUSTOMER_KNOWN_SINCE",
            "we have known this e-mail address for {value}", "A fresh mailbox costs nothing."),
]  # fmt: skip

ORDER: Final = [
    *_over(
        "order", "count", "ORDER_HISTORY", "{by} placed {value} orders {in_}",
        "A long record of orders kept is the best witness for a customer.",
        *(_orders("customer", days) for days in (30, 90, 365)),
    ),
    *_over(
        "order", "count", "LINKED_ORDER_HISTORY", "{value} orders from {by} {in_}",
        "Tells a busy shared device or parcel shop from a ring.",
        _orders("device", 90), _orders("address", 90),
    ),
    *_over(
        "order", "ratio", "REFUNDS_PER_ORDER_HIGH",
        "{value} refund requests per order of {by} {in_}",
        "Velocity means little without the orders it came from.",
        Ratio(_refunds("customer", 90), _orders("customer", 90)),
        Ratio(_refunds("customer", 365), _orders("customer", 365)),
        Ratio(_refunds("device", 90), _orders("device", 90)),
    ),
    Feature(Age(ORDERED_AT), "order", "days", "CLAIM_TIMING", "ordered {value} before the claim",
            "Claims that are late, or suspiciously quick, differ from the usual."),
    Feature(Age(DELIVERED_AT), "order", "days", "CLAIM_TIMING",
            "delivered {value} before the claim",
            "Wardrobers wear before they return; honest non-delivery is noticed at once."),
    Feature(Between(ORDERED_AT, DELIVERED_AT), "order", "days", "DELIVERY_TIME",
            "delivery took {value}", "Slow deliveries really get lost."),
    *_over(
        "order", "count", "ORDER_REFUNDED_BEFORE", "{value} earlier refund requests on {by}",
        "Asking again for the same order.",
        _refunds("order", 365),
    ),
]  # fmt: skip

CLAIM: Final = [
    Feature(Field("reason"), "claim", "code", "CLAIM_KIND", "the reason given for the refund",
            "Abuse prefers claims that need no goods back."),
    Feature(Field("type"), "claim", "code", "CLAIM_KIND", "the type of the refund",
            "Instant and goodwill refunds are paid before anything is checked."),
    Feature(Field("claim"), "claim", "code", "CLAIM_KIND", "full or partial claim",
            "Abuse tends to claim in full."),
    Feature(Field("issued_to"), "claim", "code", "PAYOUT_CHANNEL", "where the money is to go",
            "Money that leaves by another way than it came."),
    Feature(Field("item_count"), "claim", "count", "ITEMS_MANY", "{value} items in the claim",
            "Claims over many items."),
    *_over(
        "claim", "count", "FREQUENT_ITEM_NOT_RECEIVED",
        "{value} earlier claims of non-receipt by {by} {in_}",
        "Deliveries fail at random, not always at the same door.",
        _refunds("customer", 90, NOT_RECEIVED), _refunds("customer", 365, NOT_RECEIVED),
        _refunds("address", 365, NOT_RECEIVED), _refunds("device", 365, NOT_RECEIVED),
    ),
    *_over(
        "claim", "share", "FREQUENT_ITEM_NOT_RECEIVED",
        "{value} of the earlier claims by {by} {in_} say not received",
        "A single story told again and again.",
        Ratio(_refunds("customer", 365, NOT_RECEIVED), _refunds("customer", 365)),
    ),
    *_over(
        "claim", "count", "FREQUENT_EMPTY_BOX", "{value} earlier empty-box claims by {by} {in_}",
        "Empty boxes and missing items are hard to disprove.",
        _refunds("customer", 365, EMPTY_BOX), _refunds("device", 365, EMPTY_BOX),
    ),
    *_over(
        "claim", "count", "FREQUENT_DAMAGE", "{value} earlier claims of damage by {by} {in_}",
        "Damage claims without returns.",
        _refunds("customer", 365, DAMAGED),
    ),
]  # fmt: skip

RETURN: Final = [
    *_over(
        "return", "count", "RETURN_LABELS_UNUSED", "{value} return labels for {by} {in_}",
        "A label asked for and never used is the oldest trick.",
        count("return", by="customer", days=365, where=LABEL_CREATED),
    ),
    *_over(
        "return", "ratio", "RETURNS_MISSING",
        "{value} returns received per refund request of {by} {in_}",
        "Refunds without goods coming back.",
        Ratio(count("return", by="customer", days=365, where=RETURN_RECEIVED),
              _refunds("customer", 365)),
    ),
    *_over(
        "return", "count", "RETURN_REJECTED_BEFORE",
        "{value} returns of {by} failed inspection {in_}",
        "What came back was not what went out.",
        count("return", by="customer", days=365, where=RETURN_REJECTED),
        count("return", by="device", days=365, where=RETURN_REJECTED),
    ),
    *_over(
        "return", "count", "RETURN_RECEIVED", "{value} returns received for {by}",
        "The goods are back.",
        count("return", by="order", days=365, where=RETURN_RECEIVED),
    ),
]  # fmt: skip

DEVICE: Final = [
    *_over(
        "device", "count", "DEVICE_SHARED", "{value} customers on {by} {in_}",
        "One device behind many accounts.",
        *(distinct("order", "customer", by="device", days=days) for days in (30, 365)),
        distinct("refund_request", "customer", by="device", days=365),
    ),
    *_over(
        "device", "count", "IDENTITY_SHARED", "{value} customers share {by} {in_}",
        "One card, address or connection behind many accounts.",
        *(distinct("order", "customer", by=by, days=365)
          for by in ("payment_method", "address", "ip", "email")),
        distinct("refund_request", "customer", by="address", days=365),
    ),
    *_over(
        "device", "count", "IDENTITY_CHANGES_OFTEN", "{by} used {value} different ones {in_}",
        "Honest customers rarely change device or card.",
        distinct("order", "device", by="customer", days=365),
        distinct("order", "payment_method", by="customer", days=365),
        distinct("order", "address", by="customer", days=365),
    ),
    Feature(Age(FirstSeen("device")), "device", "days", "DEVICE_KNOWN_SINCE",
            "this device was first seen {value} ago",
            "A device never seen before on an old account."),
    Feature(Age(FirstSeen("payment_method")), "device", "days", "IDENTITY_KNOWN_SINCE",
            "this payment method was first seen {value} ago", "A fresh card."),
    Feature(Age(FirstSeen("address")), "device", "days", "IDENTITY_KNOWN_SINCE",
            "this address was first seen {value} ago", "A fresh drop address."),
    Feature(Field("country_mismatch"), "device", "flag", "COUNTRY_MISMATCH",
            "billing and shipping country differ",
            "Goods that go elsewhere than the money is from."),
    Feature(Field("ip_risk"), "device", "share", "IP_RISK_HIGH",
            "the IP address has a risk of {value}", "Proxies and known bad networks."),
]  # fmt: skip

CHARGEBACKS: Final = [
    *_over(
        "chargeback", "count", "PRIOR_CHARGEBACK", "{value} chargeback notices on {by} {in_}",
        "The strongest public predictor of the next dispute.",
        *(count("dispute", by=by, days=365, where=CHARGEBACK)
          for by in ("customer", "device", "payment_method", "address")),
        count("dispute", by="customer", days=90, where=CHARGEBACK),
    ),
    *_over(
        "chargeback", "count", "EARLY_FRAUD_WARNING", "{value} early warnings on {by} {in_}",
        "The bank has doubts, though nothing is disputed yet.",
        count("dispute", by="customer", days=365, where=EARLY_WARNING),
    ),
    *_over(
        "chargeback", "count", "CHARGEBACK_OPEN",
        "{value} chargebacks on {by} that were not won back",
        "Paying now would pay twice.",
        Difference(
            "open_chargeback",
            distinct("dispute", "dispute", by="order", days=365, where=CHARGEBACK),
            distinct("dispute", "dispute", by="order", days=365, where=CHARGEBACK_CLOSED),
        ),
    ),
]  # fmt: skip

LABELS: Final = [
    *_over(
        "label_history", "count", "ABUSE_CONFIRMED_BEFORE",
        "{value} earlier cases of {by} confirmed as abuse {in_}",
        "Who was caught before is likelier to try again.",
        *(count("label", by=by, days=365, where=CONFIRMED)
          for by in ("customer", "device", "payment_method", "address")),
    ),
    *_over(
        "label_history", "count", "ABUSE_CLEARED_BEFORE",
        "{value} earlier cases of {by} cleared {in_}",
        "Who was checked and found honest probably is.",
        count("label", by="customer", days=365, where=CLEARED),
    ),
]  # fmt: skip

RULE_FACTS: Final = [
    *_over(
        "order", "minor", "AMOUNT_ABOVE_CAPTURED", "{value} captured on {by}",
        "More cannot be refunded than was paid.",
        total("transaction", "minor", by="order", days=365, where=CAPTURED), for_model=False,
    ),
    *_over(
        "order", "minor", "AMOUNT_ABOVE_CAPTURED", "{value} already refunded on {by}",
        "What went back cannot go back again.",
        total("transaction", "minor", by="order", days=365, where=REFUNDED), for_model=False,
    ),
    *_over(
        "order", "code", "AMOUNT_ABOVE_CAPTURED", "the currency of {by}",
        "Sums of an order are in the order's own currency.",
        last("order", "currency", by="order"), for_model=False,
    ),
    *_over(
        "order", "count", "ORDER_UNKNOWN", "{value} orders known by this id",
        "A refund for an order nobody placed.",
        _orders("order", 365), for_model=False,
    ),
    *_over(
        "velocity", "count", "ALREADY_REFUNDED", "{value} payments of {by}",
        "The same refund is never paid twice.",
        _outcomes("refund", 365, COMPLETED), for_model=False,
    ),
]  # fmt: skip

FEATURES: Final[tuple[Feature, ...]] = (
    *VELOCITY, *AMOUNT, *ACCOUNT_AGE, *ORDER, *CLAIM, *RETURN, *DEVICE, *CHARGEBACKS, *LABELS,
    *RULE_FACTS,
)  # fmt: skip
"""Every feature, in order."""

BY_NAME: Final[Mapping[str, Feature]] = {feature.name: feature for feature in FEATURES}

MODEL_FEATURES: Final[tuple[Feature, ...]] = tuple(f for f in FEATURES if f.for_model)
"""What a model sees: the order of its inputs."""

PLAN: Final = Plan.of(FEATURES)
"""What computing all of it needs."""
