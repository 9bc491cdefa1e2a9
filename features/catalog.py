"""FEATURES: the one ordered list of everything a decision may look at. A feature is one line.

The order is the order of the columns of a feature table and of a model's inputs. `_over` makes the
same statement about several holders or windows; to add a feature, add an expression to the
statement it belongs to, or a statement. `docs/features.md` is made from this list.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from features.absence import never_of_nothing
from features.engine import Plan
from features.events import ENTITIES
from features.feature import (
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
    count,
    count_same,
    distinct,
    distinct_near,
    either,
    entropy,
    last,
    maximum,
    mean,
    median,
    says,
    since_first,
    since_last,
    standing,
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
_LOST = ("ACCEPTED", "EXPIRED", "LOST")
# A dispute moves through stages and counts once, as it stands. Neither a warning nor a question is
# a chargeback; one that was won or reversed was one. Who reports only an outcome names no stage.
CHARGEBACK = either(
    "chargeback",
    where("staged", stage=(*CHARGEBACK_STAGES, "CHARGEBACK_REVERSED")),
    where("settled", stage=(None,), outcome=("WON", *_LOST)),
)
# Won or reversed, the shop has its money again. Lost, accepted or lapsed, the customer has it.
CHARGEBACK_WON = either(
    "chargeback_won",
    where("won", stage=(*CHARGEBACK_STAGES, None), outcome=("WON",)),
    where("reversed", stage=("CHARGEBACK_REVERSED",)),
)
CHARGEBACK_LOST = where("chargeback_lost", stage=(*CHARGEBACK_STAGES, None), outcome=_LOST)
CHARGEBACK_PENDING = where("pending_chargeback", stage=CHARGEBACK_STAGES, outcome=(None,))
EARLY_WARNING = where("early_warning", stage=("EARLY_FRAUD_WARNING", "REQUEST_FOR_INFORMATION"))

# A return, too, counts once, as it stands: what failed inspection is no longer received.
LABEL_CREATED = where("return_label", return_status=("LABEL_CREATED",))
LABEL_UNUSED = where("return_label_unused", return_status=("LABEL_CREATED",))
RETURN_RECEIVED = where("return_received", return_status=("RECEIVED", "ACCEPTED"))
RETURN_REJECTED = where("return_rejected", return_status=("REJECTED",))

# A verdict may be repeated or taken back: a case counts once, by the latest word on it.
CONFIRMED = where("abuse_confirmed", label=("REFUND_ABUSE",))
CLEARED = where("abuse_cleared", label=("NOT_REFUND_ABUSE",))
JUDGED = where("case_judged", label=("REFUND_ABUSE", "NOT_REFUND_ABUSE"))

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

# --- words ---------------------------------------------------------------------------------------

_WINDOWS = {1: "in a day", 7: "in 7 days", 30: "in 30 days", 90: "in 90 days", 365: "in a year"}
_LATELY = {1: "within the last day", 7: "in the last 7 days"}

_THIS = {
    "customer": "this customer", "device": "this device", "payment_method": "this payment method",
    "address": "this address", "ip": "this IP address", "email": "this e-mail address",
    "order": "this order", "refund": "this refund",
}  # fmt: skip
_FROM = {
    "customer": "by this customer", "device": "from this device",
    "payment_method": "with this payment method", "address": "from this address",
    "ip": "from this IP address", "email": "from this e-mail address",
}  # fmt: skip
_NAMES = {
    "customer": ("customer", "customers"), "device": ("device", "devices"),
    "payment_method": ("payment method", "payment methods"), "address": ("address", "addresses"),
    "ip": ("IP address", "IP addresses"), "email": ("e-mail address", "e-mail addresses"),
    "order": ("order", "orders"), "refund": ("refund", "refunds"),
}  # fmt: skip

_LINKS = ENTITIES[1:]
"""What customers may share."""
_LASTING = ("customer", "device", "payment_method", "address")
"""What people do not change from one visit to the next."""


_RULES_ONLY: Final = ()
"""No window of a statement is for a model: others tell it the same. See `MODEL_FEATURES`."""


def _over(
    family: Family, unit: Unit, reason_code: str, what: str, why: str, *expressions: Expression,
    none: str | None = None, model_days: Collection[int] = tuple(_WINDOWS),
) -> list[Feature]:  # fmt: skip
    """The same statement about several holders or windows.

    ``what`` is a sentence with {value}, {by} (the holder), {from_} (it as the source of something),
    {in_} (the window), {average} (mean or median), {this}, {one} and {these} (this one, one and
    more of what the column holds), and ``(one|many)`` where words change with the value. ``none``
    is said where there is no value; what counts has none only where nobody said whose to count. A
    model sees the windows of ``model_days``.
    """
    features = []
    for expression in expressions:
        scope = next(part for part in expression.walk() if isinstance(part, Aggregate))
        if scope.days not in _WINDOWS:
            raise ValueError(f"{expression.name}: expected a window of {list(_WINDOWS)} days, for "
                             f"which there are words, got {scope.days}")  # fmt: skip
        if none is None and not never_of_nothing(expression):
            raise ValueError(f"{expression.name}: expected what is said where there is no value")
        column = scope.column or ""
        one, many = _NAMES.get(column, ("", ""))
        key = column if scope.op == "count_same" else scope.by
        words = {
            "value": "{value}", "by": _THIS[scope.by], "from_": _FROM.get(scope.by),
            "in_": _WINDOWS[scope.days], "lately": _LATELY.get(scope.days),
            "average": {"mean": "average", "median": "median"}.get(scope.op),
            "this": _THIS.get(column), "one": one, "these": many,
        }  # fmt: skip
        nothing = f"the {_NAMES[key][0]} is not known" if none is None else none
        said = says(what.format_map(words), nothing.format_map(words))
        for_model = scope.days in model_days
        features.append(Feature(expression, family, unit, reason_code, said, why, for_model))
    return features


def _refunds(by: str, days: int, chosen: Where | None = None) -> Aggregate:
    return count("refund_request", by=by, days=days, where=chosen)


def _outcomes(by: str, days: int, chosen: Where | None = None) -> Aggregate:
    return count("refund_outcome", by=by, days=days, where=chosen)


def _orders(by: str, days: int) -> Aggregate:
    return count("order", by=by, days=days)


def _asked(by: str, days: int) -> Aggregate:
    return total("refund_request", "amount", by=by, days=days)


def _paid(by: str, days: int) -> Aggregate:
    return total("refund_outcome", "paid", by=by, days=days, where=COMPLETED)


def _bought(by: str, days: int) -> Aggregate:
    return total("order", "amount", by=by, days=days)


def _returns(by: str, days: int, state: Where) -> Aggregate:
    return standing("return", "case", by=by, days=days, where=state)


def _disputes(by: str, days: int, state: Where) -> Aggregate:
    return standing("dispute", "dispute", by=by, days=days, where=state)


def _cases(by: str, days: int, verdict: Where) -> Aggregate:
    return standing("label", "case", by=by, days=days, where=verdict)


# --- the features --------------------------------------------------------------------------------

VELOCITY: Final = [
    *_over(
        "velocity", "count", "REFUND_VELOCITY_HIGH",
        "{value} earlier refund (request|requests) by {by} {in_}",
        "Abuse pays by repetition: many requests in a short time are rare among honest customers.",
        *(_refunds("customer", days) for days in _WINDOWS),
    ),
    *_over(
        "velocity", "count", "LINKED_REFUND_VELOCITY_HIGH",
        "{value} earlier refund (request|requests) {from_} {in_}",
        "Accounts are cheap, devices, cards and addresses are not: they show the ring behind.",
        *(_refunds(by, days) for by in _LINKS for days in _WINDOWS), model_days=(7, 30, 365),
    ),
    *_over(
        "velocity", "count", "REFUNDS_PAID_OFTEN", "{value} (refund|refunds) paid to {by} {in_}",
        "Success invites the next attempt.",
        *(_outcomes("customer", days, COMPLETED) for days in _WINDOWS), model_days=(30, 90, 365),
    ),
    *_over(
        "velocity", "count", "LINKED_REFUNDS_PAID_OFTEN",
        "{value} (refund|refunds) paid on requests {from_} {in_}",
        "What worked for one account is done again with the next.",
        *(_outcomes(by, days, COMPLETED) for by in _LINKS for days in _WINDOWS),
        model_days=_RULES_ONLY,
    ),
    *_over(
        "velocity", "count", "REFUNDS_DECLINED_BEFORE",
        "{value} (refund|refunds) of {by} declined {in_}",
        "A declined refund was suspect to somebody before.",
        *(_outcomes("customer", days, DECLINED) for days in _WINDOWS), model_days=(30, 365),
    ),
    *_over(
        "velocity", "count", "LINKED_REFUNDS_DECLINED_BEFORE",
        "{value} (refund|refunds) declined on requests {from_} {in_}",
        "Who is refused tries again under another name, with the same device, card or door.",
        *(_outcomes(by, days, DECLINED) for by in _LINKS for days in _WINDOWS), model_days=(365,),
    ),
    *_over(
        "velocity", "share", "REFUNDS_DECLINED_BEFORE",
        "{value} of the outcomes of refunds of {by} {in_} were refusals",
        "One refusal among many refunds is an accident, one among two a habit.",
        Ratio(_outcomes("customer", 365, DECLINED), _outcomes("customer", 365)),
        model_days=_RULES_ONLY,
        none="no refund of {by} had an outcome {in_}",
    ),
    *_over(
        "velocity", "days", "REFUND_SOON_AFTER_LAST",
        "the last refund request {from_} was {value} ago",
        "Requests that follow one another closely are a campaign, not bad luck.",
        *(since_last("refund_request", by=by) for by in ENTITIES),
        none="no earlier refund request {from_} {in_}",
    ),
    *_over(
        "velocity", "days", "REFUND_SOON_AFTER_LAST",
        "the last refund of {by} was paid {value} ago",
        "The next attempt follows the last success.",
        *(since_last("refund_outcome", by=by, where=COMPLETED) for by in ("customer", "device")),
        model_days=_RULES_ONLY,
        none="no refund of {by} was paid {in_}",
    ),
    *_over(
        "velocity", "days", "REFUNDS_DECLINED_BEFORE",
        "a refund of {by} was last declined {value} ago",
        "Asking again soon after a refusal, with another story or another account.",
        *(since_last("refund_outcome", by=by, where=DECLINED) for by in ("customer", "device")),
        model_days=_RULES_ONLY,
        none="no refund of {by} was declined {in_}",
    ),
    *_over(
        "velocity", "days", "REFUND_HABIT_NEW",
        "the first refund request {from_} within a year was {value} ago",
        "An honest returner has returned for long; abuse starts, and is in a hurry.",
        since_first("refund_request", by="customer"),
        none="no earlier refund request {from_} {in_}",
    ),
    *_over(
        "velocity", "share", "REFUND_BURST",
        "{value} of the earlier refund requests {from_} in 90 days came {lately}",
        "A burst against the own past betrays a hijacked account or a last harvest.",
        *(Ratio(_refunds(by, 1), _refunds(by, 90)) for by in ("customer", "device")),
        Ratio(_refunds("customer", 7), _refunds("customer", 90)),
        none="no earlier refund request {from_} in 90 days",
    ),
    *_over(
        "velocity", "count", "GOODWILL_OFTEN",
        "{value} earlier (request|requests) for goodwill refunds by {by} {in_}",
        "Goodwill is granted without proof, so it is what abusers ask for.",
        _refunds("customer", 365, GOODWILL),
    ),
]  # fmt: skip

AMOUNT: Final = [
    Feature(Field("payable_minor"), "amount", "minor", "AMOUNT_HIGH",
            says("the refund is worth {value}", "what the refund is worth is not known"),
            "What is at stake, and what an abuser goes for."),
    Feature(Ratio(Field("payable_minor"), ORDER_AMOUNT), "amount", "share",
            "AMOUNT_SHARE_OF_ORDER_HIGH",
            says("the refund is {value} of the order",
                 "what part of the order the refund is, is not known"),
            "Honest returns are often partial; a claim of non-receipt takes all."),
    *_over(
        "amount", "ratio", "AMOUNT_ABOVE_OWN_NORM",
        "the refund is {value} times the {average} order of {by} {in_}",
        "Abuse concentrates on orders unlike the customer's usual ones.",
        Ratio(Field("payable_minor"), mean("order", "amount", by="customer", days=365)),
        Ratio(Field("payable_minor"), median("order", "amount", by="customer", days=365)),
        none="no earlier order by {by} {in_} to compare the amount with",
    ),
    *_over(
        "amount", "ratio", "AMOUNT_ABOVE_OWN_NORM",
        "the refund is {value} times the largest order of {by} {in_}",
        "The order that is claimed is the one that was placed to be claimed.",
        Ratio(Field("payable_minor"), maximum("order", "amount", by="customer", days=365)),
        none="no earlier order by {by} {in_} to compare the amount with",
    ),
    *_over(
        "amount", "ratio", "AMOUNT_ABOVE_OWN_NORM",
        "the refund is {value} times the {average} earlier claim of {by} {in_}",
        "After small claims that went well comes the large one.",
        Ratio(Field("payable_minor"), mean("refund_request", "amount", by="customer", days=365)),
        Ratio(Field("payable_minor"), median("refund_request", "amount", by="customer", days=365)),
        none="no earlier claim of {by} {in_} to compare the amount with",
    ),
    *_over(
        "amount", "ratio", "AMOUNT_ABOVE_OWN_NORM",
        "the refund is {value} times the {average} earlier claim of {by} {in_}",
        "Who grew up to large claims over the years is known by the last quarter.",
        Ratio(Field("payable_minor"), mean("refund_request", "amount", by="customer", days=90)),
        Ratio(Field("payable_minor"), median("refund_request", "amount", by="customer", days=90)),
        none="no earlier claim of {by} {in_} to compare the amount with",
    ),
    *_over(
        "amount", "ratio", "AMOUNT_ABOVE_OWN_NORM",
        "the refund is {value} times the largest earlier claim of {by} {in_}",
        "Testing how much passes unchecked.",
        Ratio(Field("payable_minor"), maximum("refund_request", "amount", by="customer", days=365)),
        none="no earlier claim of {by} {in_} to compare the amount with",
    ),
    *_over(
        "amount", "ratio", "CLAIMS_ABOVE_OWN_NORM",
        "the largest earlier claim of {by} {in_} was {value} times the median claim of a year",
        "A hijacked account leaves its owner's habits for days, also in claims that look small.",
        Ratio(maximum("refund_request", "amount", by="customer", days=7),
              median("refund_request", "amount", by="customer", days=365)),
        none="no earlier claim of {by} {in_} to compare",
    ),
    *_over(
        "amount", "minor", "REFUNDED_AMOUNT_HIGH", "{value} asked back by {by} {in_}",
        "The sum is what the business loses.",
        *(_asked("customer", days) for days in (30, 90, 365)),
        none="how much {by} asked back {in_} is not known",
    ),
    *_over(
        "amount", "minor", "LINKED_REFUNDED_AMOUNT_HIGH",
        "{value} asked back on requests {from_} {in_}",
        "A ring keeps each account small; its device, card and door add up.",
        *(_asked(by, days) for by in _LINKS for days in (30, 90, 365)), model_days=(90,),
        none="how much was asked back on requests {from_} {in_} is not known",
    ),
    *_over(
        "amount", "minor", "REFUNDED_AMOUNT_HIGH", "{value} paid back to {by} {in_}",
        "Money that went out before.",
        *(_paid("customer", days) for days in (30, 90, 365)), model_days=(365,),
        none="how much was paid back to {by} {in_} is not known",
    ),
    *_over(
        "amount", "share", "REFUNDED_SHARE_HIGH",
        "{value} of what was bought {from_} {in_} was asked back",
        "Who sends back nearly everything is not shopping.",
        *(Ratio(_asked("customer", days), _bought("customer", days)) for days in (30, 90, 365)),
        *(Ratio(_asked(by, 365), _bought(by, 365)) for by in ("device", "address")),
        none="no purchase of known worth {from_} {in_} to compare with",
    ),
    *_over(
        "amount", "share", "REFUNDED_SHARE_HIGH",
        "{value} of what was bought {from_} {in_} was paid back",
        "What was asked may have been refused; this is what it came to.",
        Ratio(_paid("customer", 365), _bought("customer", 365)),
        none="no purchase of known worth {from_} {in_} to compare with",
    ),
]  # fmt: skip

ACCOUNT_AGE: Final = [
    Feature(Age(REGISTERED_AT), "account_age", "days", "ACCOUNT_AGE",
            says("the account is {value} old", "how old the account is, is not known"),
            "Throw-away accounts are young when they ask."),
    Feature(Between(REGISTERED_AT, ORDERED_AT), "account_age", "days", "ACCOUNT_AGE",
            says("the account was {value} old when it ordered",
                 "how old the account was when it ordered is not known",
                 below="the account was registered {value} after its order"),
            "An account made for one order."),
    Feature(Ratio(Age(REGISTERED_AT), _orders("customer", 365)), "account_age", "days",
            "ACCOUNT_AGE",
            says("the account has {value} of age for each order of the year",
                 "no earlier order by this customer in a year"),
            "Orders in a hurry from a young account, or an old one that wakes up to claim."),
    *_over(
        "account_age", "days", "FIRST_ORDER",
        "the first order of {by} within a year was {value} ago",
        "A claim on the very first order comes from who has nothing to lose here.",
        since_first("order", by="customer"),
        none="no earlier order by {by} {in_}",
    ),
    Feature(Age(FirstSeen("customer")), "account_age", "days", "CUSTOMER_KNOWN_SINCE",
            says("we have known this customer for {value}",
                 "this customer was never seen before"),
            "What we know of a customer starts with the first event, whatever the account says."),
    Feature(Age(FirstSeen("email")), "account_age", "days", "CUSTOMER_KNOWN_SINCE",
            says("we have known this e-mail address for {value}",
                 "this e-mail address was never seen before"),
            "A fresh mailbox costs nothing."),
]  # fmt: skip

ORDER: Final = [
    *_over(
        "order", "count", "ORDER_HISTORY", "{by} placed {value} (order|orders) {in_}",
        "A long record of orders kept is the best witness for a customer.",
        *(_orders("customer", days) for days in (30, 90, 365)),
    ),
    *_over(
        "order", "minor", "ORDER_HISTORY", "{by} bought for {value} {in_}",
        "What a customer is worth, and has to lose.",
        _bought("customer", 365),
        none="for how much {by} bought {in_} is not known",
    ),
    *_over(
        "order", "days", "ORDER_HISTORY", "the last order of {by} was {value} ago",
        "Who goes on shopping waits for no verdict; who has gone silent only collects.",
        since_last("order", by="customer"),
        none="no earlier order by {by} {in_}",
    ),
    *_over(
        "order", "count", "LINKED_ORDER_HISTORY", "{value} (order|orders) {from_} {in_}",
        "Tells a busy shared device or parcel shop from a ring.",
        _orders("device", 90), _orders("address", 90),
    ),
    *_over(
        "order", "ratio", "REFUNDS_PER_ORDER_HIGH",
        "{value} refund requests per order {from_} {in_}",
        "Velocity means little without the orders it came from.",
        *(Ratio(_refunds("customer", days), _orders("customer", days)) for days in (90, 365)),
        Ratio(_refunds("device", 90), _orders("device", 90)),
        none="no earlier order {from_} {in_}",
    ),
    *_over(
        "order", "ratio", "LINKED_REFUNDS_PER_ORDER_HIGH",
        "{value} refund requests per order {from_} {in_}",
        "A parcel shop has many refunds and many orders; a ring has only the first.",
        *(Ratio(_refunds(by, 365), _orders(by, 365)) for by in _LINKS), model_days=_RULES_ONLY,
        none="no earlier order {from_} {in_}",
    ),
    Feature(Age(ORDERED_AT), "order", "days", "CLAIM_TIMING",
            says("ordered {value} before the claim", "when it was ordered is not known"),
            "Claims that are late, or suspiciously quick, differ from the usual."),
    Feature(Age(DELIVERED_AT), "order", "days", "CLAIM_TIMING",
            says("delivered {value} before the claim", "when it was delivered is not known"),
            "Wardrobers wear before they return; honest non-delivery is noticed at once."),
    Feature(Known(DELIVERED_AT), "order", "flag", "DELIVERY_CONFIRMED",
            says("the delivery is (confirmed|not confirmed)",
                 "whether the delivery is confirmed is not known"),
            "To say that nothing came is bolder when the carrier says it did."),
    Feature(Between(ORDERED_AT, DELIVERED_AT), "order", "days", "DELIVERY_TIME",
            says("delivery took {value}", "how long delivery took is not known",
                 below="the delivery is dated {value} before the order"),
            "Slow deliveries really get lost."),
    *_over(
        "order", "count", "ORDER_REFUNDED_BEFORE",
        "{value} earlier refund (request|requests) on {by}",
        "Asking again for the same order.",
        _refunds("order", 365),
    ),
    *_over(
        "order", "share", "ORDER_REFUNDED_BEFORE", "{value} of {by} was asked back before",
        "Claim by claim, more may be asked than was bought.",
        Ratio(_asked("order", 365), ORDER_AMOUNT),
        none="how much of {by} was asked back before is not known",
    ),
]  # fmt: skip

CLAIM: Final = [
    Feature(Field("reason"), "claim", "code", "CLAIM_KIND",
            says("the reason given for the refund: {value}",
                 "no reason is given for the refund"),
            "Abuse prefers claims that need no goods back."),
    Feature(Field("type"), "claim", "code", "CLAIM_KIND",
            says("the type of the refund: {value}",
                 "the type of the refund is not given"),
            "Instant and goodwill refunds are paid before anything is checked."),
    Feature(Field("claim"), "claim", "code", "CLAIM_KIND",
            says("full or partial claim: {value}",
                 "whether the claim is full or partial is not known"),
            "Abuse tends to claim in full."),
    Feature(Field("policy"), "claim", "code", "CLAIM_KIND",
            says("the ground on which it is asked: {value}",
                 "the ground on which it is asked is not given"),
            "What is owed by law is asked otherwise than what is hoped for as a favour."),
    Feature(Field("initiated_by"), "claim", "code", "CLAIM_KIND",
            says("who asked for the refund: {value}",
                 "who asked for the refund is not known"),
            "A shop that refunds by itself is not being cheated."),
    Feature(Field("issued_to"), "claim", "code", "PAYOUT_CHANNEL",
            says("where the money is to go: {value}",
                 "where the money is to go is not known"),
            "Money that leaves by another way than it came."),
    Feature(Field("item_count"), "claim", "count", "ITEMS_MANY",
            says("{value} (item|items) in the claim",
                 "the number of items in the claim is not known"),
            "Claims over many items."),
    *_over(
        "claim", "count", "FREQUENT_ITEM_NOT_RECEIVED",
        "{value} earlier (claim|claims) of non-receipt {from_} {in_}",
        "Deliveries fail at random, not always at the same door.",
        _refunds("customer", 90, NOT_RECEIVED),
        *(_refunds(by, 365, NOT_RECEIVED) for by in ("customer", "address", "device")),
    ),
    *_over(
        "claim", "share", "FREQUENT_ITEM_NOT_RECEIVED",
        "{value} of the earlier claims {from_} {in_} say not received",
        "A single story told again and again.",
        *(Ratio(_refunds(by, 365, NOT_RECEIVED), _refunds(by, 365))
          for by in ("customer", "device", "address")),
        none="no earlier claim {from_} {in_}",
    ),
    *_over(
        "claim", "count", "FREQUENT_EMPTY_BOX",
        "{value} earlier empty-box (claim|claims) {from_} {in_}",
        "Empty boxes and missing items are hard to disprove.",
        *(_refunds(by, 365, EMPTY_BOX) for by in ("customer", "device")),
    ),
    *_over(
        "claim", "share", "FREQUENT_EMPTY_BOX",
        "{value} of the earlier claims {from_} {in_} say empty box",
        "Boxes arrive empty seldom, and not again at the same people.",
        *(Ratio(_refunds(by, 365, EMPTY_BOX), _refunds(by, 365)) for by in ("customer", "device")),
        none="no earlier claim {from_} {in_}",
    ),
    *_over(
        "claim", "count", "FREQUENT_DAMAGE",
        "{value} earlier (claim|claims) of damage {from_} {in_}",
        "Damage claims without returns.",
        *(_refunds(by, 365, DAMAGED) for by in ("customer", "device")),
    ),
    *_over(
        "claim", "share", "FREQUENT_DAMAGE",
        "{value} of the earlier claims {from_} {in_} say damaged",
        "Goods break at random; a picture of a broken one can be shown twice.",
        *(Ratio(_refunds(by, 365, DAMAGED), _refunds(by, 365)) for by in ("customer", "device")),
        none="no earlier claim {from_} {in_}",
    ),
    *_over(
        "claim", "bits", "REASONS_VARY",
        "the reasons of earlier claims {from_} {in_} are mixed by {value}: 0 if always the same, "
        "1 if two are equally frequent",
        "One story for every claim, or a new one each time to find what passes.",
        *(entropy("refund_request", "reason", by=by, days=365) for by in ("customer", "device")),
        none="no earlier claim {from_} {in_} with a reason",
    ),
]  # fmt: skip

RETURN: Final = [
    *_over(
        "return", "count", "RETURN_LABELS_UNUSED",
        "{value} return (label|labels) made for {by} {in_}",
        "A label asked for and never used is the oldest trick.",
        count("return", by="customer", days=365, where=LABEL_CREATED),
    ),
    *_over(
        "return", "count", "RETURN_LABELS_UNUSED",
        "{value} (return|returns) of {by} {in_} (has|have) a label but (was|were) never shipped",
        "The label starts the refund where shops trust it; the goods stay.",
        *(_returns(by, 365, LABEL_UNUSED) for by in ("customer", "device")),
    ),
    *_over(
        "return", "count", "RETURN_LABELS_UNUSED",
        "{value} return (label|labels) of {by} (has|have) lain unused for more than 30 days",
        "A fresh label may still be used; an old one will not be.",
        Difference("return_label_abandoned", _returns("customer", 365, LABEL_UNUSED),
                   _returns("customer", 30, LABEL_UNUSED)),
    ),
    *_over(
        "return", "ratio", "RETURNS_MISSING",
        "{value} returns received per refund request {from_} {in_}",
        "Refunds without goods coming back.",
        *(Ratio(_returns(by, 365, RETURN_RECEIVED), _refunds(by, 365))
          for by in ("customer", "device")),
        none="no earlier refund request {from_} {in_}",
    ),
    *_over(
        "return", "count", "RETURNS_MISSING",
        "refunds of {by} paid {in_}, less the returns received: {value}",
        "Goods kept and money back: what abuse is, whatever the story.",
        *(Difference("refund_without_return", _outcomes(by, 365, COMPLETED),
                     _returns(by, 365, RETURN_RECEIVED)) for by in ("customer", "device")),
    ),
    *_over(
        "return", "count", "RETURN_REJECTED_BEFORE",
        "{value} (return|returns) of {by} failed inspection {in_}",
        "What came back was not what went out.",
        *(_returns(by, 365, RETURN_REJECTED) for by in ("customer", "device")),
    ),
    *_over(
        "return", "count", "RETURN_RECEIVED", "{value} (return|returns) received for {by}",
        "The goods are back.",
        _returns("order", 365, RETURN_RECEIVED),
    ),
]  # fmt: skip

DEVICE: Final = [
    *_over(
        "device", "count", "DEVICE_SHARED", "{value} ({one}|{these}) ordered on {by} {in_}",
        "One device behind many accounts.",
        *(distinct("order", "customer", by="device", days=days) for days in (30, 90, 365)),
        model_days=(30, 365),
    ),
    *_over(
        "device", "count", "DEVICE_SHARED",
        "{value} ({one}|{these}) asked for refunds on {by} {in_}",
        "A family shares a device to shop; a ring shares it to claim.",
        distinct("refund_request", "customer", by="device", days=365),
    ),
    *_over(
        "device", "count", "IDENTITY_SHARED", "{value} ({one}|{these}) ordered with {by} {in_}",
        "One card, address or connection behind many accounts.",
        *(distinct("order", "customer", by=by, days=days)
          for by in _LINKS[1:] for days in (30, 90, 365)),
        model_days=(365,),
    ),
    *_over(
        "device", "count", "IDENTITY_SHARED",
        "{value} ({one}|{these}) asked for refunds with {by} {in_}",
        "Neighbours order from one address; they seldom all claim.",
        *(distinct("refund_request", "customer", by=by, days=365) for by in _LINKS[1:]),
    ),
    *_over(
        "device", "count", "ACCOUNTS_REGISTERED_TOGETHER",
        "{value} ({one}|{these}) that ordered with {by} {in_} registered within 7 days of this one",
        "Accounts for abuse are made in batches.",
        *(distinct_near("order", "customer", near="registered_at", within_days=7, by=by, days=365)
          for by in _LASTING[1:]),
        none="when the account was registered is not known",
    ),
    *_over(
        "device", "count", "IDENTITY_CHANGES_OFTEN",
        "{by} ordered with {value} ({one}|{these}) {in_}",
        "Honest customers rarely change device or card.",
        *(distinct("order", column, by="customer", days=days)
          for column in _LASTING[1:] for days in (30, 365)),
        model_days=(365,),
    ),
    *_over(
        "device", "count", "IDENTITY_NEW_TO_CUSTOMER",
        "{by} placed {value} (order|orders) with {this} {in_}",
        "What the customer never used before speaks of another person at the keyboard.",
        *(count_same("order", column, by="customer", days=365) for column in _LASTING[1:]),
    ),
    *_over(
        "device", "count", "IDENTITY_NEW_TO_CUSTOMER",
        "{by} asked for {value} (refund|refunds) with {this} {in_}",
        "A first claim from a new device or towards a new card is how stolen accounts are emptied.",
        *(count_same("refund_request", column, by="customer", days=365) for column in _LASTING[1:]),
    ),
    Feature(Age(FirstSeen("device")), "device", "days", "DEVICE_KNOWN_SINCE",
            says("this device was first seen {value} ago",
                 "this device was never seen before"),
            "A device never seen before on an old account."),
    Feature(Age(FirstSeen("payment_method")), "device", "days", "IDENTITY_KNOWN_SINCE",
            says("this payment method was first seen {value} ago",
                 "this payment method was never seen before"),
            "A fresh card."),
    Feature(Age(FirstSeen("address")), "device", "days", "IDENTITY_KNOWN_SINCE",
            says("this address was first seen {value} ago",
                 "this address was never seen before"),
            "A fresh drop address."),
    Feature(Age(FirstSeen("ip")), "device", "days", "IDENTITY_KNOWN_SINCE",
            says("this IP address was first seen {value} ago",
                 "this IP address was never seen before"),
            "A connection borrowed for one claim."),
    Feature(Field("country_mismatch"), "device", "flag", "COUNTRY_MISMATCH",
            says("billing and shipping country (differ|are the same)",
                 "whether billing and shipping country differ is not known"),
            "Goods that go elsewhere than the money is from."),
    Feature(Field("ip_risk"), "device", "share", "IP_RISK_HIGH",
            says("the IP address has a risk of {value}", "the risk of the IP address is not known"),
            "Proxies and known bad networks."),
]  # fmt: skip

CHARGEBACKS: Final = [
    *_over(
        "chargeback", "count", "PRIOR_CHARGEBACK", "{value} (chargeback|chargebacks) on {by} {in_}",
        "The strongest public predictor of the next dispute.",
        *(_disputes(by, 365, CHARGEBACK) for by in _LASTING),
        _disputes("customer", 90, CHARGEBACK),
    ),
    *_over(
        "chargeback", "count", "CHARGEBACK_WON",
        "{value} (chargeback|chargebacks) on {by} won back {in_}",
        "The shop could prove the claim wrong.",
        *(_disputes(by, 365, CHARGEBACK_WON) for by in _LASTING), model_days=_RULES_ONLY,
    ),
    *_over(
        "chargeback", "count", "CHARGEBACK_LOST",
        "{value} (chargeback|chargebacks) on {by} lost {in_}",
        "The bank paid: for a thief's victim, or for who has learnt that it pays.",
        *(_disputes(by, 365, CHARGEBACK_LOST) for by in _LASTING), model_days=_RULES_ONLY,
    ),
    *_over(
        "chargeback", "ratio", "PRIOR_CHARGEBACK", "{value} chargebacks per order of {by} {in_}",
        "One chargeback in a hundred orders is bad luck, one in two is a way to shop.",
        Ratio(_disputes("customer", 365, CHARGEBACK), _orders("customer", 365)),
        model_days=_RULES_ONLY,
        none="no earlier order by {by} {in_}",
    ),
    *_over(
        "chargeback", "count", "EARLY_FRAUD_WARNING",
        "{value} early (warning|warnings) on {by} {in_}",
        "The bank has doubts, though nothing is disputed yet.",
        *(_disputes(by, 365, EARLY_WARNING) for by in ("customer", "payment_method")),
    ),
    *_over(
        "chargeback", "count", "CHARGEBACK_OPEN",
        "{value} (chargeback|chargebacks) on {by} not won back",
        "Paying now would pay twice.",
        Difference("open_chargeback", _disputes("order", 365, CHARGEBACK),
                   _disputes("order", 365, CHARGEBACK_WON)),
    ),
    *_over(
        "chargeback", "count", "CHARGEBACK_OPEN",
        "{value} (chargeback|chargebacks) on {by} still undecided",
        "The bank may yet take back what is paid now.",
        _disputes("order", 365, CHARGEBACK_PENDING), model_days=_RULES_ONLY,
    ),
    *_over(
        "chargeback", "flag", "REFUND_AND_CHARGEBACK",
        "{by} was (refunded and charged back|not both refunded and charged back) before",
        "The double dip: paid by the shop and by the bank for one order.",
        Both("refund_and_chargeback", _outcomes("order", 365, COMPLETED),
             _disputes("order", 365, CHARGEBACK)), model_days=_RULES_ONLY,
    ),
]  # fmt: skip

# Verdicts come in late, and what they speak of goes on or has ended: so their age tells as much as
# their number. A word that was taken back was said all the same; whether it stands, counts tell.
LABELS: Final = [
    *_over(
        "label_history", "count", "ABUSE_CONFIRMED_BEFORE",
        "{value} earlier (case|cases) of {by} confirmed as abuse {in_}",
        "Who was caught before is likelier to try again.",
        *(_cases(by, days, CONFIRMED) for by in _LASTING for days in (90, 365)), model_days=(365,),
    ),
    *_over(
        "label_history", "count", "ABUSE_CONFIRMED_BEFORE",
        "{value} (case|cases) of {by} confirmed as abuse {in_}",
        "A campaign that is being found out is still going on.",
        *(_cases(by, days, CONFIRMED) for by in ("customer", "device") for days in (7, 30)),
    ),
    *_over(
        "label_history", "share", "ABUSE_CONFIRMED_BEFORE",
        "{value} of the judged cases of {by} {in_} were abuse",
        "Frequent returners are looked at often and found honest; their share is low.",
        *(Ratio(_cases(by, days, CONFIRMED), _cases(by, days, JUDGED))
          for by in ("customer", "device") for days in (7, 30, 365)),
        none="no case of {by} was judged {in_}",
    ),
    *_over(
        "label_history", "days", "ABUSE_CONFIRMED_BEFORE",
        "a case of {by} was last confirmed as abuse {value} ago",
        "A device or a customer that was caught last week is no closed chapter.",
        *(since_last("label", by=by, where=CONFIRMED) for by in ("customer", "device")),
        none="no case of {by} was confirmed as abuse {in_}",
    ),
    *_over(
        "label_history", "days", "ABUSE_CONFIRMED_BEFORE",
        "the first confirmation {in_} that a case of {by} is abuse was {value} ago",
        "How long a campaign has been known tells how long it may yet last.",
        *(since_first("label", by=by, days=30, where=CONFIRMED) for by in ("customer", "device")),
        none="no case of {by} was confirmed as abuse {in_}",
    ),
    *_over(
        "label_history", "minor", "ABUSE_CONFIRMED_BEFORE",
        "cases of {by} confirmed as abuse {in_} were worth {value} on average",
        "One large case may be a stranger's; many of the usual size are how it is done here.",
        *(mean("label", "amount", by=by, days=30, where=CONFIRMED)
          for by in ("customer", "device")),
        none="no case of known worth of {by} was confirmed as abuse {in_}",
    ),
    *_over(
        "label_history", "minor", "ABUSE_CONFIRMED_BEFORE",
        "the largest case of {by} confirmed as abuse {in_} was worth {value}",
        "What was dared before tells whether this claim is of the same hand.",
        *(maximum("label", "amount", by=by, days=30, where=CONFIRMED)
          for by in ("customer", "device")),
        none="no case of known worth of {by} was confirmed as abuse {in_}",
    ),
    *_over(
        "label_history", "count", "ABUSE_CLEARED_BEFORE",
        "{value} earlier (case|cases) of {by} cleared {in_}",
        "Who was checked and found honest probably is.",
        *(_cases(by, 365, CLEARED) for by in _LASTING),
    ),
    *_over(
        "label_history", "days", "ABUSE_CLEARED_BEFORE",
        "a case of {by} was last cleared {value} ago",
        "Found honest after it was found abusive: the abuse has ended.",
        *(since_last("label", by=by, where=CLEARED) for by in ("customer", "device")),
        none="no case of {by} was cleared {in_}",
    ),
]  # fmt: skip

RULE_FACTS: Final = [
    *_over(
        "order", "minor", "AMOUNT_ABOVE_CAPTURED", "{value} captured on {by}",
        "More cannot be refunded than was paid.",
        total("transaction", "minor", by="order", days=365, where=CAPTURED), model_days=_RULES_ONLY,
        none="how much was captured on {by} is not known",
    ),
    *_over(
        "order", "minor", "AMOUNT_ABOVE_CAPTURED", "{value} already refunded on {by}",
        "What went back cannot go back again.",
        total("transaction", "minor", by="order", days=365, where=REFUNDED), model_days=_RULES_ONLY,
        none="how much was refunded on {by} is not known",
    ),
    *_over(
        "order", "code", "AMOUNT_ABOVE_CAPTURED", "the currency of {by}: {value}",
        "Sums of an order are in the order's own currency.",
        last("order", "currency", by="order"), model_days=_RULES_ONLY,
        none="the currency of {by} is not known",
    ),
    *_over(
        "order", "count", "ORDER_UNKNOWN", "{value} (order|orders) known by this id",
        "A refund for an order nobody placed.",
        _orders("order", 365), model_days=_RULES_ONLY,
    ),
    *_over(
        "velocity", "count", "ALREADY_REFUNDED", "{value} (payment|payments) of {by}",
        "The same refund is never paid twice.",
        _outcomes("refund", 365, COMPLETED), model_days=_RULES_ONLY,
    ),
    *_over(
        "return", "count", "RETURN_REJECTED", "{value} (return|returns) of {by} failed inspection",
        "What came back for this order was not what went out.",
        _returns("order", 365, RETURN_REJECTED), model_days=_RULES_ONLY,
    ),
]  # fmt: skip

FEATURES: Final[tuple[Feature, ...]] = (
    *VELOCITY, *AMOUNT, *ACCOUNT_AGE, *ORDER, *CLAIM, *RETURN, *DEVICE, *CHARGEBACKS, *LABELS,
    *RULE_FACTS,
)  # fmt: skip
"""Every feature, in order."""

BY_NAME: Final[Mapping[str, Feature]] = {feature.name: feature for feature in FEATURES}

MODEL_FEATURES: Final[tuple[Feature, ...]] = tuple(f for f in FEATURES if f.for_model)
"""What a model sees: the order of its inputs.

Not every window of every holder. Neighbouring windows rank requests alike, and three times as many
inputs found no more abuse on the sample, while each retraining and each explanation pays for them.
Policies and people may read them all.
"""

PLAN: Final = Plan.of(FEATURES)
"""What computing all of it needs."""
