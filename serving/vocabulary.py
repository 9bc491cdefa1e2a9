"""The words that requests are coded with, as a reader calls them."""

from __future__ import annotations

from serving.language import Language


def word_of(column: str, code: str, language: Language) -> str | None:
    """What a code of a request's column says; None where there are no words for it.

    >>> from serving.language import ENGLISH
    >>> word_of("reason", "MISSING_ITEM", ENGLISH), word_of("claim", "FULL", ENGLISH)
    ('an item is missing', 'full')
    >>> word_of("reason", "EATEN", ENGLISH), word_of("currency", "GBP", ENGLISH)
    (None, None)
    """
    say = language.say
    match column:
        case "reason":
            words = {
                "ITEM_NOT_RECEIVED": say("item not received"),
                "CUSTOMER_INCORRECT_ITEM": say("ordered the wrong item"),
                "ITEM_DAMAGED": say("item damaged"),
                "NOT_AS_DESCRIBED": say("not as described"),
                "MISSING_ITEM": say("an item is missing"),
                "WRONG_ITEM_SENT": say("wrong item sent"),
                "EMPTY_BOX": say("empty box"),
                "CHANGED_MIND": say("changed mind"),
                "LATE_DELIVERY": say("late delivery"),
                "SUBSCRIPTION_CANCELLED": say("subscription cancelled"),
                "OTHER": say("another reason"),
            }
        case "claim":
            words = {"FULL": say("full"), "PARTIAL": say("partial")}
        case "type":
            words = {
                "REFUND": say("refund"),
                "RETURN": say("return of goods"),
                "STORE_CREDIT": say("store credit"),
                "GOODWILL": say("goodwill"),
                "INSTANT": say("to be paid at once"),
                "REPLACEMENT": say("replacement"),
            }
        case "policy":
            words = {
                "TERMS_AND_CONDITIONS": say("the shop's terms"),
                "GOODWILL": say("goodwill"),
                "STATUTORY": say("the law"),
            }
        case "initiated_by":
            words = {
                "CUSTOMER": say("the customer"),
                "MERCHANT": say("the shop"),
                "AGENT": say("an agent"),
            }
        case "issued_to":
            words = {
                "ORIGINAL_PAYMENT_METHOD": say("the original payment method"),
                "GIFT_CARD": say("a gift card"),
                "STORE_CREDIT": say("store credit"),
                "BANK_TRANSFER": say("a bank account"),
            }
        case _:
            return None
    return words.get(code)
