"""Reason codes by name: what a code is called where an analyst reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rules.decision import FACT_MISSING
from serving.language import Language

NOT_KNOWN: Final = "NOT_KNOWN"
"""The reason code of features whose value is unknown, whatever they would say if it were known."""

NO_HISTORY: Final = "NO_HISTORY"
"""The reason code of features that have no value since there is nothing earlier."""

NAMES: Final[Mapping[str, str]] = {
    NOT_KNOWN: "Facts that are not known",
    NO_HISTORY: "Nothing earlier to go by",
    FACT_MISSING: "A fact that a rule needs is missing",
    "LISTED": "On a list",
    # The catalog's.
    "ABUSE_CLEARED_BEFORE": "Found honest before",
    "ABUSE_CONFIRMED_BEFORE": "Confirmed abuse before",
    "ACCOUNTS_REGISTERED_TOGETHER": "Accounts registered together",
    "ACCOUNT_AGE": "Age of the account",
    "ALREADY_REFUNDED": "Already refunded",
    "AMOUNT_ABOVE_CAPTURED": "More than was paid",
    "AMOUNT_ABOVE_OWN_NORM": "Amount beside what is usual for the customer",
    "AMOUNT_HIGH": "Amount of the refund",
    "AMOUNT_SHARE_OF_ORDER_HIGH": "Part of the order that is asked back",
    "CHARGEBACK_LOST": "Chargebacks lost",
    "CHARGEBACK_OPEN": "Chargeback on this order",
    "CHARGEBACK_WON": "Chargebacks won back",
    "CLAIMS_ABOVE_OWN_NORM": "Recent claims beside what is usual for the customer",
    "CLAIM_KIND": "Kind of claim",
    "CLAIM_TIMING": "Time between order, delivery and claim",
    "COUNTRY_MISMATCH": "Billing and shipping country",
    "CUSTOMER_KNOWN_SINCE": "How long the customer is known",
    "DELIVERY_CONFIRMED": "Confirmation of the delivery",
    "DELIVERY_TIME": "Time the delivery took",
    "DEVICE_KNOWN_SINCE": "How long the device is known",
    "DEVICE_SHARED": "Device shared by accounts",
    "EARLY_FRAUD_WARNING": "Early warnings from banks",
    "FIRST_ORDER": "Time since the first order",
    "FREQUENT_DAMAGE": "Claims of damage",
    "FREQUENT_EMPTY_BOX": "Empty-box claims",
    "FREQUENT_ITEM_NOT_RECEIVED": "Claims of non-receipt",
    "GOODWILL_OFTEN": "Requests for goodwill",
    "IDENTITY_CHANGES_OFTEN": "Changes of device, card or address",
    "IDENTITY_KNOWN_SINCE": "How long card, address and connection are known",
    "IDENTITY_NEW_TO_CUSTOMER": "Customer's own use of device, card and address",
    "IDENTITY_SHARED": "Card, address or connection shared by accounts",
    "IP_RISK_HIGH": "Risk of the IP address",
    "ITEMS_MANY": "Number of items",
    "LINKED_ORDER_HISTORY": "Orders from the same device or address",
    "LINKED_REFUNDED_AMOUNT_HIGH": "Money asked back through the same device, card or address",
    "LINKED_REFUNDS_DECLINED_BEFORE": "Refunds declined with the same device, card or address",
    "LINKED_REFUNDS_PAID_OFTEN": "Refunds paid with the same device, card or address",
    "LINKED_REFUNDS_PER_ORDER_HIGH": "Refunds per order with the same device, card or address",
    "LINKED_REFUND_VELOCITY_HIGH": "Refund requests with the same device, card or address",
    "ORDER_HISTORY": "The customer's orders",
    "ORDER_REFUNDED_BEFORE": "Earlier requests for this order",
    "ORDER_UNKNOWN": "Order not known",
    "PAYOUT_CHANNEL": "Where the money is to go",
    "PRIOR_CHARGEBACK": "Earlier chargebacks",
    "REASONS_VARY": "Mixture of reasons given",
    "REFUNDED_AMOUNT_HIGH": "Money asked back before",
    "REFUNDED_SHARE_HIGH": "Share of purchases asked back",
    "REFUNDS_DECLINED_BEFORE": "Refunds declined before",
    "REFUNDS_PAID_OFTEN": "Refunds paid before",
    "REFUNDS_PER_ORDER_HIGH": "Refund requests per order",
    "REFUND_AND_CHARGEBACK": "Refunded and charged back",
    "REFUND_BURST": "Sudden burst of requests",
    "REFUND_HABIT_NEW": "Time since the first refund request",
    "REFUND_SOON_AFTER_LAST": "Time since the last refund request",
    "REFUND_VELOCITY_HIGH": "Number of refund requests",
    "RETURNS_MISSING": "Refunds and the returns for them",
    "RETURN_LABELS_UNUSED": "Return labels never used",
    "RETURN_RECEIVED": "Return received",
    "RETURN_REJECTED": "Return failed inspection",
    "RETURN_REJECTED_BEFORE": "Returns that failed inspection before",
    # The default policy's.
    "ALREADY_REQUESTED": "Already requested",
    "AMOUNT_ABOVE_LINES": "More than the lines are worth",
    "AMOUNT_OVER_AUTO_APPROVE_LIMIT": "Above the limit for paying unseen",
    "CURRENCY_MISMATCH": "Another currency than the order's",
    "GOODWILL_LIMIT_EXCEEDED": "Too many goodwill refunds",
    "IDENTITY_MISMATCH": "Identity that does not hold together",
    "INSTANT_REFUND_NOT_EARNED": "Instant refund not earned",
    "ITEM_NOT_REFUNDABLE_FINAL_SALE": "Final sale",
    "PARTIALLY_SHIPPED": "Shipped in part",
    "PAYMENT_METHOD_EXPIRED": "Payment method expired",
    "POLICY_WINDOW_EXCEEDED": "Too late for a refund",
    "REFUND_LIMIT": "Limit of refunds reached",
    "REASONS_DIFFER": "Reasons of request and lines differ",
    "RETURN_NOT_RECEIVED": "Return not received yet",
    "SHIPPING_NOT_REFUNDABLE": "Shipping is not refundable",
    "SUBSCRIPTION_CANCELLED_LATE": "Subscription cancelled late",
}
"""Names of the codes that come with the program.

The catalog's codes may raise the risk and lower it, so their names take no side.
"""


def name_of_code(code: str, language: Language) -> str:
    """The name of a reason code; one that nobody named, as a policy's own, in plain words.

    >>> from serving.language import ENGLISH
    >>> name_of_code("REFUND_BURST", ENGLISH), name_of_code("MY_OWN_CODE", ENGLISH)
    ('Sudden burst of requests', 'My own code')
    """
    named = NAMES.get(code)
    return code.replace("_", " ").capitalize() if named is None else language.say(named)
