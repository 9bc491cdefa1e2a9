"""What the synthetic shop wrote down of its history: the tables of a data folder.

A record carries the time at which the shop's systems could know the fact, never earlier than the
fact; what happens after the run is not written down.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.money import DAY_MS
from training.world import (
    CATEGORIES,
    CHANNELS,
    COUNTRIES,
    CURRENCIES,
    PRICE_LEVEL,
    SKUS_PER_CATEGORY,
    Floats,
    Ints,
    Places,
    flattened,
    take,
)
from training.world_aftermath import (
    DECLINE_REASONS,
    LABELS,
    OUTCOMES,
    QUESTION,
    REVIEWERS,
    SOURCES,
    STAGES,
    WARNING,
    dispute_stages,
)
from training.world_claims import INITIATED_BY, ISSUED_TO, MISTAKEN, POLICIES, REASONS, TYPES
from training.world_history import History
from training.world_names import emails, ips, named, serials, tokens, words

DAY_SECONDS: Final = 86_400
BATCH_SECONDS: Final = 900  # carriers, warehouse and gateway report every quarter of an hour
_SCAN_LAG_DAYS = 0.04  # between a delivery and the carrier's message about it
_RETURN_FEE = np.array([250, 295, 395, 3_900, 990])  # by currency, minor units
_CATEGORY_NAMES = [category.name for category in CATEGORIES]

_DISPUTE_REASONS = ("FRAUD", "PRODUCT_NOT_RECEIVED", "CREDIT_NOT_PROCESSED", "NOT_AS_DESCRIBED")


class Records:
    """Writes down what the shop could see of a history, one method a table."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.rng = history.records
        midnight = datetime.combine(history.start, time(), UTC)
        self.start_ms = int(midnight.timestamp()) * 1000
        self.end_ms = self.start_ms + history.days * DAY_MS
        orders, claims, lines = history.purchases.orders, history.claims, history.purchases.lines
        n, rng = len(orders.time), self.rng
        self.order_ids, self.refund_ids = serials("o", n), serials("r", len(claims.time))
        self.customer_ids = tokens("c", len(history.people.kind), rng)
        self.skus = tokens("sku-", len(CATEGORIES) * SKUS_PER_CATEGORY, rng)
        ordered, asked = history.order_places, history.claim_places
        self.devices = named("d", ordered.device, asked.device, rng)
        self.payments = named("p", ordered.payment, asked.payment, rng)
        self.addresses = named("a", ordered.address, asked.address, rng)
        self.ips = ips(ordered, asked, rng)
        self.emails = emails(history.people, rng)

        goods = np.bincount(lines.order, lines.amount, n).astype(np.int64)
        self.order_amount = goods + history.shipping
        self.pieces = np.bincount(lines.order, lines.quantity, n).astype(np.int64)
        self.claimant = orders.customer[claims.order]
        self.claim_currency = history.currency[claims.order]
        posted = (claims.reason <= MISTAKEN) & claims.returns & (self.claimant % 3 == 0)
        fee = np.minimum(_RETURN_FEE[self.claim_currency], history.asked)
        self.fee = np.where(posted, fee, 0)
        self._send_again()

    def _send_again(self) -> None:
        """A few requests are sent again: with a smaller amount, or as the shop's own mistake."""
        history, claims = self.history, self.history.claims
        n = len(claims.time)
        by_shop = history.forms["initiated_by"] == INITIATED_BY.index("MERCHANT")
        again = self.rng.random(n) < 0.008
        wait = 0.001 + np.minimum(history.handling.closed - claims.time, 2) * self.rng.random(n)
        again &= claims.time + wait < history.days
        less = np.maximum(history.asked * self.rng.integers(5, 10, n) // 10, self.fee)
        mistake = by_shop & ~claims.abuse & (self.rng.random(n) < 0.5)
        self.again = np.flatnonzero(again)
        self.again_at = (claims.time + wait)[again]
        self.mistake_at_first = mistake & ~again
        self.mistake = mistake
        self.final_amount = np.where(again & ~mistake, less, history.asked)
        self.payable = self.final_amount - self.fee

    def tables(self) -> dict[str, pa.Table]:
        """All tables of DESIGN.md section 3."""
        return {
            "orders": self.orders(),
            "order_items": self.order_items(),
            "order_updates": self.order_updates(),
            "transactions": self.transactions(),
            "refund_requests": self.refund_requests(),
            "refund_items": self.refund_items(),
            "refund_outcomes": self.refund_outcomes(),
            "returns": self.returns(),
            "disputes": self.disputes(),
            "labels": self.labels(),
            "fx_rates": self.fx_rates(),
        }

    def known(self, days: Floats, tick_seconds: int = 1) -> pa.Array:
        """When the shop knew: at the next tick of the system that records it."""
        return self._epoch_ms(np.ceil(days * DAY_SECONDS / tick_seconds) * tick_seconds)

    def happened(self, days: Floats, tick_seconds: int) -> pa.Array:
        """A business time, rounded down; NaN is null."""
        return self._epoch_ms(np.floor(days * DAY_SECONDS / tick_seconds) * tick_seconds)

    def _epoch_ms(self, seconds: Floats) -> pa.Array:
        unknown = np.isnan(seconds)
        milliseconds = np.where(unknown, 0, seconds).astype(np.int64) * 1000
        return pa.array(milliseconds + self.start_ms, mask=unknown)

    def finish(self, columns: dict[str, pa.Array], *key: str) -> pa.Table:
        """The rows known before the end of the run, in order of (known_at, key)."""
        table = pa.table(columns)
        table = table.filter(pc.less(table["known_at"], self.end_ms))
        return table.sort_by([(name, "ascending") for name in ("known_at", *key)]).combine_chunks()

    def seen(self, customer: Ints, places: Places, which: int) -> dict[str, pa.Array]:
        """The entities and countries of the orders (`which` 0) or of the claims (1)."""
        country = self.history.people.country[customer]
        return {
            "device_id": self.devices[which],
            "payment_method_id": self.payments[which],
            "address_id": self.addresses[which],
            "ip": self.ips[which],
            "email": words(self.emails, np.where(customer % 61 == 0, -1, customer)),
            "billing_country": words(COUNTRIES, country),
            "shipping_country": words(
                COUNTRIES, np.where(places.abroad >= 0, places.abroad, country)
            ),
        }

    def orders(self) -> pa.Table:
        """Every order as placed."""
        history, orders = self.history, self.history.purchases.orders
        return self.finish(
            {
                "order_id": self.order_ids,
                "customer_id": words(self.customer_ids, orders.customer),
                "known_at": self.known(orders.time),
                "amount_minor": pa.array(self.order_amount),
                "currency": words(CURRENCIES, history.currency),
                "item_count": pa.array(self.pieces),
                "shipping_minor": pa.array(history.shipping),
                "channel": words(CHANNELS, orders.channel),
                "ordered_at": self.happened(orders.time, 60),
                "registered_at": self.happened(history.people.registered[orders.customer], 60),
                **self.seen(orders.customer, history.order_places, 0),
            },
            "order_id",
        )

    def order_items(self) -> pa.Table:
        """The lines of every order, in the order of `orders`."""
        purchases = self.history.purchases
        lines = purchases.lines
        return self.finish(
            {
                "order_id": words(self.order_ids, lines.order),
                "line_id": pa.array(lines.number).cast(pa.string()),
                "sku": words(self.skus, lines.sku),
                "category": words(_CATEGORY_NAMES, lines.sku // SKUS_PER_CATEGORY),
                "quantity": pa.array(lines.quantity),
                "amount_minor": pa.array(lines.amount),
                "final_sale": pa.array(lines.final_sale),
                "known_at": self.known(purchases.orders.time[lines.order]),
            },
            "order_id",
            "line_id",
        ).drop_columns("known_at")

    def order_updates(self) -> pa.Table:
        """What became of the parcels; orders by telephone are accepted by hand first."""
        orders, parcels = self.history.purchases.orders, self.history.purchases.parcels
        by_phone = orders.channel == CHANNELS.index("phone")
        accepted = np.where(by_phone, orders.time + 0.02, np.nan)
        told = parcels.delivered + _SCAN_LAG_DAYS
        status, order, when = flattened(accepted, parcels.shipped, told, parcels.cancelled)
        delivered = np.where(status == 2, parcels.delivered[order], np.nan)
        return self.finish(
            {
                "order_id": words(self.order_ids, order),
                "known_at": self.known(when, BATCH_SECONDS),
                "status": words(("ACCEPTED", "SHIPPED", "DELIVERED", "CANCELLED"), status),
                "delivered_at": self.happened(delivered, BATCH_SECONDS),
                "line_id": pa.nulls(len(order), pa.string()),
                "quantity": pa.nulls(len(order), pa.int64()),
            },
            "order_id",
            "status",
        )

    def transactions(self) -> pa.Table:
        """Captures (some fail first), voids of cancelled orders, refunds to the payment method."""
        history, claims = self.history, self.history.claims
        orders, parcels = history.purchases.orders, history.purchases.parcels
        n = len(orders.time)
        original = history.forms["issued_to"] == ISSUED_TO.index("ORIGINAL_PAYMENT_METHOD")
        paid = np.flatnonzero(history.handling.paid & original)
        refused = np.where(self.rng.random(n) < 0.015, orders.time + 10 / DAY_SECONDS, np.nan)
        kind, order, when = flattened(refused, orders.time + 40 / DAY_SECONDS, parcels.cancelled)
        kind = np.concatenate([kind, np.full(len(paid), 3)])
        when = np.concatenate([when, history.handling.closed[paid]])
        nothing = np.full(len(paid), -1)
        number = np.argsort(np.argsort(when, kind="stable"), kind="stable")
        of_order = np.concatenate([order, claims.order[paid]])
        amount = np.concatenate([self.order_amount[order], self.payable[paid]])
        return self.finish(
            {
                "transaction_id": serials("t", len(when)).take(pa.array(number)),
                "known_at": self.known(when, BATCH_SECONDS),
                "kind": words(("CAPTURE", "CAPTURE", "VOID", "REFUND"), kind),
                "order_id": words(self.order_ids, np.concatenate([order, nothing])),
                "refund_id": words(
                    self.refund_ids, np.concatenate([np.full(len(order), -1), paid])
                ),
                "payment_method_id": self.payments[0].take(pa.array(of_order)),
                "amount_minor": pa.array(amount),
                "currency": words(CURRENCIES, history.currency[of_order]),
                "success": pa.array(kind != 0),
            },
            "transaction_id",
        )

    def refund_requests(self) -> pa.Table:
        """Each request as first sent, and the versions of it sent again."""
        history, claims = self.history, self.history.claims
        orders, parcels = history.purchases.orders, history.purchases.parcels
        lines, n = history.purchases.lines, len(claims.time)
        rows = np.concatenate([np.arange(n), self.again])
        order, customer = claims.order[rows], self.claimant[rows]
        when = np.concatenate([claims.time, self.again_at])
        told = np.ceil((parcels.delivered[order] + _SCAN_LAG_DAYS) * DAY_SECONDS / BATCH_SECONDS)
        told_days = told * BATCH_SECONDS / DAY_SECONDS
        back = history.line_claim >= 0
        line_claim = history.line_claim[back]
        pieces = np.bincount(line_claim, lines.quantity[back], n).astype(np.int64)
        final_sale = np.bincount(line_claim, lines.final_sale[back], n) > 0
        goods = self.order_amount[claims.order] - history.shipping[claims.order]
        risk = history.claim_places.ip_risk
        first = {
            "non_refundable_minor": pa.array(self.fee),
            "order_amount_minor": pa.array(self.order_amount[claims.order]),
            "reason": words(REASONS, claims.reason),
            "claim": words(("PARTIAL", "FULL"), (history.asked >= goods).astype(np.int64)),
            "type": words(TYPES, history.forms["type"]),
            "initiated_by": words(INITIATED_BY, history.forms["initiated_by"]),
            "issued_to": words(ISSUED_TO, history.forms["issued_to"]),
            "policy": words(POLICIES, history.forms["policy"]),
            "channel": words(CHANNELS, orders.channel[claims.order]),
            "item_count": pa.array(pieces),
            "ordered_at": self.happened(orders.time[claims.order], 60),
            "registered_at": self.happened(history.people.registered[self.claimant], 60),
            **self.seen(self.claimant, history.claim_places, 1),
            "final_sale": pa.array(final_sale),
            "ip_risk": pa.array(risk, mask=np.isnan(risk)),
        }
        repeated = {name: column.take(pa.array(rows)) for name, column in first.items()}
        delivered = np.where(told_days <= when, parcels.delivered[order], np.nan)
        amount = np.concatenate([history.asked, self.final_amount[self.again]])
        ignore = np.concatenate([self.mistake_at_first, self.mistake[self.again]])
        unnamed = np.where(rows % 199 == 0, -1, order)  # the backend did not say which order
        columns = {
            "refund_id": words(self.refund_ids, rows),
            "customer_id": words(self.customer_ids, customer),
            "known_at": self.known(when),
            "amount_minor": pa.array(amount),
            "currency": words(CURRENCIES, self.claim_currency[rows]),
            "order_id": words(self.order_ids, unnamed),
            **repeated,
            "delivered_at": self.happened(delivered, BATCH_SECONDS),
            "ignore": pa.array(ignore),
        }
        return self.finish(columns, "refund_id")

    def refund_items(self) -> pa.Table:
        """The lines each request asks back, in the order of `refund_requests`."""
        history = self.history
        line = np.flatnonzero(history.line_claim >= 0)
        claim, lines = history.line_claim[line], take(history.purchases.lines, line)
        return self.finish(
            {
                "refund_id": words(self.refund_ids, claim),
                "line_id": pa.array(lines.number).cast(pa.string()),
                "sku": words(self.skus, lines.sku),
                "category": words(_CATEGORY_NAMES, lines.sku // SKUS_PER_CATEGORY),
                "quantity": pa.array(lines.quantity),
                "amount_minor": pa.array(lines.amount),
                "reason": words(REASONS, history.claims.reason[claim]),
                "known_at": self.known(history.claims.time[claim]),
            },
            "refund_id",
            "line_id",
        ).drop_columns("known_at")

    def refund_outcomes(self) -> pa.Table:
        """How each request ended; a payment that failed is made again two days later."""
        handling = self.history.handling
        fails = handling.paid & (np.arange(len(handling.paid)) % 167 == 0)
        ends = handling.closed + np.where(fails, 2, 0)
        status, claim, when = flattened(
            np.where(handling.paid, ends, np.nan),
            np.where(handling.decline >= 0, ends, np.nan),
            np.where(fails, handling.closed, np.nan),
            np.where(handling.withdrawn, ends, np.nan),
        )
        declined = np.where(status == 1, handling.decline[claim], -1)
        return self.finish(
            {
                "refund_id": words(self.refund_ids, claim),
                "known_at": self.known(when, BATCH_SECONDS),
                "status": words(("COMPLETED", "DECLINED", "FAILED", "CANCELED"), status),
                "amount_minor": pa.array(self.payable[claim], mask=status != 0),
                "decline_reason": words(DECLINE_REASONS, declined),
            },
            "refund_id",
            "status",
        )

    def returns(self) -> pa.Table:
        """The way back of the goods; only some carriers scan a parcel when they take it."""
        handling, claims = self.history.handling, self.history.claims
        back = handling.returns
        status, claim, when = flattened(
            np.where(claims.returns & ~handling.ruled_out, claims.time + 0.01, np.nan),
            np.where(self.claimant % 5 < 2, back.scanned, np.nan),
            back.received,
            np.where(back.lost, back.scanned + 12, np.nan),
            np.where(back.rejected, np.nan, back.inspected),
            np.where(back.rejected, back.inspected, np.nan),
        )
        steps = ("LABEL_CREATED", "IN_TRANSIT", "RECEIVED", "LOST", "ACCEPTED", "REJECTED")
        return self.finish(
            {
                "refund_id": words(self.refund_ids, claim),
                "order_id": pa.nulls(len(claim), pa.string()),
                "known_at": self.known(when, BATCH_SECONDS),
                "status": words(steps, status),
            },
            "refund_id",
            "status",
        )

    def disputes(self) -> pa.Table:
        """Each dispute's stages, and early warnings and questions that came to nothing."""
        orders, found, rng = self.history.purchases.orders, self.history.disputes, self.rng
        idle = np.flatnonzero(rng.random(len(orders.time)) < 0.002)
        heard = orders.time[idle] + 2 + rng.exponential(9, len(idle))
        row, stage, outcome, when = dispute_stages(found.time, rng)
        row = np.concatenate([row, len(found.time) + np.arange(len(idle))])
        stage = np.concatenate([stage, idle % 2])
        outcome = np.concatenate([outcome, np.full(len(idle), -1)])
        order = np.concatenate([found.order, idle])[row]
        when = np.maximum(np.concatenate([when, heard]), orders.time[order] + 0.5)
        # An early warning may come from the card scheme, which knows the card alone; a question
        # may come by telephone, about the customer.
        card = self.history.order_places.payment[order]
        by_card = (stage == WARNING) & (row % 2 == 0) & (card >= 0)
        by_name = (stage == QUESTION) & (row % 3 == 0)
        cards = self.payments[0].take(pa.array(np.where(by_card, order, 0)))
        why = np.where(orders.thief[order] >= 0, 0, 1 + row % 3)
        return self.finish(
            {
                "dispute_id": serials("dp", len(found.time) + len(idle)).take(pa.array(row)),
                "known_at": self.known(when, BATCH_SECONDS),
                "customer_id": words(
                    self.customer_ids, np.where(by_name, orders.customer[order], -1)
                ),
                "order_id": words(self.order_ids, np.where(by_card | by_name, -1, order)),
                "payment_method_id": pc.if_else(
                    pa.array(by_card), cards, pa.scalar(None, pa.string())
                ),
                "amount_minor": pa.array(self.order_amount[order]),
                "currency": words(CURRENCIES, self.history.currency[order]),
                "stage": words(STAGES, stage),
                "outcome": words(OUTCOMES, outcome),
                "reason": words(_DISPUTE_REASONS, why),
            },
            "dispute_id",
            "stage",
        )

    def labels(self) -> pa.Table:
        """What was said of refunds and customers, by whom."""
        labels = self.history.labels
        customer = np.where(labels.claim < 0, labels.customer, -1)
        return self.finish(
            {
                "refund_id": words(self.refund_ids, labels.claim),
                "customer_id": words(self.customer_ids, customer),
                "known_at": self.known(labels.time, 60),
                "label": words(LABELS, labels.label),
                "source": words(SOURCES, labels.source),
                "reviewer": words(REVIEWERS, labels.reviewer),
            },
            "refund_id",
            "customer_id",
            "source",
        )

    def fx_rates(self) -> pa.Table:
        """Daily rates in pounds: slow random walks about the level of the price lists."""
        days, others = self.history.days, len(CURRENCIES) - 1
        step = self.rng.normal(0, 0.004, (days, others))
        walk = np.zeros_like(step)
        for day in range(1, days):
            walk[day] = 0.99 * walk[day - 1] + step[day]
        dates = [(self.history.start + timedelta(days=day)).isoformat() for day in range(days)]
        table = pa.table(
            {
                "date": [day for day in dates for _ in range(others)],
                "currency": list(CURRENCIES[1:]) * days,
                "rate": np.round(PRICE_LEVEL[1:] * np.exp(walk), 6).ravel(),
            }
        )
        return table.sort_by([("date", "ascending"), ("currency", "ascending")]).combine_chunks()
