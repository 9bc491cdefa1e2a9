"""The wire contract inward: a body's bytes to a report, or to every problem that is in it.

What must be there depends on the call, so it is asked of the raw body, beside the types that
`serving.bodies` checks. A refused body raises `serving.wire.InvalidRequest`. The reports, and how
they become events, are in `serving.reports`; what is answered is in `serving.answers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from serving.reports import DisputeReport, LabelReport, OrderReport, RefundReport, ReturnReport
from serving.wire import MAX_ENTRIES, InvalidRequest, Problem, absent, load_object, shown, validate

Raw = Mapping[str, Any]


def parse_refund(
    body: bytes, *, scored: bool, backfill: bool = False, besides: Sequence[Problem] = ()
) -> RefundReport:
    """The report in the body of a refund; ``scored`` bodies must say all that scoring needs.

    ``besides`` is what is wrong with its request already: all is told at once.

    >>> parse_refund(b'{"refund": {"refundId": "r", "status": "OPEN", "amount": "10.00"}}',
    ...              scored=False)
    Traceback (most recent call last):
    ...
    serving.wire.InvalidRequest: customer.customerId: is required; refund.currency: is required; \
refund.amount: must be an integer of minor units, got "10.00"
    """
    try:
        raw = load_object(body)
    except InvalidRequest as error:
        raise InvalidRequest([*besides, *error.problems]) from None
    gaps = (besides, _missing_time(raw, backfill), _refund_gaps(raw, scored), _expiry_gaps(raw))
    return validate(RefundReport, raw, chain(*gaps))


def parse_order(body: bytes, *, backfill: bool = False) -> OrderReport:
    """The report in the body of an order."""
    raw = load_object(body)
    gaps = (_missing_time(raw, backfill), _order_gaps(raw), _expiry_gaps(raw))
    return validate(OrderReport, raw, chain(*gaps))


def parse_return(body: bytes, *, backfill: bool = False) -> ReturnReport:
    """The report in the body of a return."""
    raw = load_object(body)
    problems = [*_missing_time(raw, backfill), *_missing(raw, "return.status")]
    references = ("return.refundId", "return.orderId", "refund.refundId", "order.orderId")
    if all(absent(raw, path) for path in references):
        problems.append(Problem("return.refundId", "is required, or return.orderId"))
    return validate(ReturnReport, raw, problems)


def parse_dispute(body: bytes, *, backfill: bool = False) -> DisputeReport:
    """The report in the body of a dispute."""
    raw = load_object(body)
    problems = [*_missing_time(raw, backfill), *_missing(raw, "dispute.disputeId")]
    references = ("order.orderId", "paymentMethod.paymentMethodId", "customer.customerId")
    if all(absent(raw, path) for path in references):
        message = "is required, or paymentMethod.paymentMethodId, or customer.customerId"
        problems.append(Problem("order.orderId", message))
    if not absent(raw, "dispute.amount"):
        problems += _missing(raw, "dispute.currency")
    return validate(DisputeReport, raw, problems)


def parse_label(
    body: bytes, customer_id: str | None = None, *, backfill: bool = False
) -> LabelReport:
    """The report in the body of a label; ``customer_id`` is that of the address, if it has one."""
    raw = load_object(body)
    problems = [*_missing_time(raw, backfill), *_missing(raw, "category", "review")]
    if customer_id is not None:
        if raw.get("customer") is None:
            raw["customer"] = {"customerId": customer_id}
        given = raw["customer"]
        if isinstance(given, dict) and given.get("customerId") not in (None, customer_id):
            # A verdict on somebody else than its sender meant must not stand.
            message = "must be the customer of the address, or left out"
            problems.append(Problem("customer.customerId", message, shown(given["customerId"])))
    if absent(raw, "customer.customerId") and absent(raw, "refundId"):
        problems.append(Problem("refundId", "is required, or customer.customerId"))
    return validate(LabelReport, raw, problems)


def _missing(raw: Raw, *paths: str) -> Iterator[Problem]:
    return (Problem(path, "is required") for path in paths if absent(raw, path))


def _missing_time(raw: Raw, backfill: bool) -> Iterator[Problem]:
    return _missing(raw, "timestamp") if backfill else iter(())


def _refund_gaps(raw: Raw, scored: bool) -> Iterator[Problem]:
    refund = raw.get("refund")
    status = refund.get("status") if isinstance(refund, dict) else None
    is_open = isinstance(status, str) and status.strip().upper() == "OPEN"
    yield from _missing(raw, "refund.refundId")
    if scored:
        yield from _missing(raw, "order.orderId")
        if isinstance(status, str) and not is_open:
            yield Problem("refund.status", "must be OPEN in a scored request", shown(status))
    yield from _missing(raw, "refund.status")
    if scored or is_open:
        # Without these there is nothing to record: only an outcome can rely on what is known.
        yield from _missing(raw, "customer.customerId", "refund.amount", "refund.currency")
    if scored and isinstance(refund, dict):
        yield from _reason_gaps(refund)


def _reason_gaps(refund: Raw) -> Iterator[Problem]:
    items = refund.get("items")
    if not items and refund.get("refundReason") is None:
        yield Problem("refund.refundReason", "is required when there are no items")
    if isinstance(items, list):
        for i, item in enumerate(items):
            if isinstance(item, dict) and item.get("refundReason") is None:
                yield Problem(f"refund.items[{i}].refundReason", "is required")


def _expiry_gaps(raw: Raw) -> Iterator[Problem]:
    """A month without its year, or a year without its month, says of no day that it is over."""
    methods = raw.get("paymentMethods")
    for i, method in enumerate(islice(methods, MAX_ENTRIES) if isinstance(methods, list) else ()):
        if isinstance(method, dict):
            month, year = method.get("expiryMonth"), method.get("expiryYear")
            if month is None and year is not None:
                yield Problem(f"paymentMethods[{i}].expiryMonth", "is required beside expiryYear")
            elif year is None and month is not None:
                yield Problem(f"paymentMethods[{i}].expiryYear", "is required beside expiryMonth")


def _order_gaps(raw: Raw) -> Iterator[Problem]:
    yield from _missing(raw, "order.orderId")
    if not absent(raw, "order.price"):
        yield from _missing(raw, "order.currency", "customer.customerId")
    elif not raw.get("transactions") and all(
        absent(raw, path) for path in ("order.status.stage", "order.deliveredTime")
    ):
        yield Problem("order.price", "is required, or order.status.stage")
